"""A web server of this machine, for tests of downloads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


@contextmanager
def serving(handler: Callable[..., object]) -> Iterator[ThreadingHTTPServer]:
    """Serves with this handler; `server.url` is the address, and `server.asked` an empty list for its notes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.url, server.asked = f"http://127.0.0.1:{server.server_port}", []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
