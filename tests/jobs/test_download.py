import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from web import serving

from issl.errors import UserError
from issl.jobs import download

CONTENT = np.random.default_rng(0).bytes(1_000_003)
MD5 = hashlib.md5(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; `server.ranges` and `server.cut` set how well, `server.asked` notes the Range of each request."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://localhost/file")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + server.shift}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with serving(Handler) as server:
        server.ranges, server.length, server.cut, server.shift = True, True, None, 0
        server.url += "/file.zip"
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    path = tmp_path / "data" / "file.zip"
    path.parent.mkdir()

    def run(url=server.url, md5=MD5):
        download.fetch(url, path, md5, progress=False)
        assert path.read_bytes() == CONTENT
        assert sorted(p for p in path.parent.iterdir() if p.suffix != ".lock") == [path]

    run.path, run.part = path, path.with_name("file.zip.part")
    return run


def test_a_file_is_downloaded_and_verified(fetch, server):
    fetch()
    assert server.asked == [None]


def test_a_file_without_length_or_checksum_is_downloaded(fetch, server):
    server.length = False
    fetch(md5=None)


def test_a_download_creates_its_folder(server, tmp_path):
    download.fetch(server.url, tmp_path / "new" / "folder" / "x.zip", MD5.upper(), progress=False)
    assert (tmp_path / "new/folder/x.zip").read_bytes() == CONTENT


def test_a_download_resumes_where_it_broke_off(fetch, server):
    server.cut = HALF
    with pytest.raises(UserError, match=f"interrupted .*{HALF} of {len(CONTENT)} bytes.*run again to continue"):
        fetch()
    assert not fetch.path.exists()
    assert fetch.part.read_bytes() == CONTENT[:HALF]
    server.cut = None
    fetch()
    assert server.asked == [None, f"bytes={HALF}-"]


def test_a_download_restarts_where_the_server_has_no_ranges(fetch, server):
    server.ranges = False
    fetch.part.write_bytes(CONTENT[:HALF])
    fetch()
    assert server.asked == [f"bytes={HALF}-"]


def test_a_complete_partial_file_is_used_as_it_is(fetch, server):
    fetch.part.write_bytes(CONTENT)
    fetch()
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_that_is_too_long_is_fetched_again(fetch, server):
    fetch.part.write_bytes(CONTENT + b"more")
    fetch()
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_range_that_was_not_requested_is_refused(fetch, server):
    server.shift = 1
    fetch.part.write_bytes(CONTENT[:HALF])
    with pytest.raises(UserError, match="Content-Range"):
        fetch()
    assert fetch.part.read_bytes() == CONTENT[:HALF]


def test_a_wrong_checksum_leaves_nothing(fetch, server):
    with pytest.raises(UserError, match=f"md5 {MD5}, not 0123.*save it as .*file.zip"):
        fetch(md5="0123")
    assert [p for p in fetch.path.parent.iterdir() if p.suffix != ".lock"] == []


def test_a_partial_file_of_another_version_is_discarded(fetch, server):
    fetch.part.write_bytes(b"x" * HALF)
    with pytest.raises(UserError, match="run again"):
        fetch()
    assert [p for p in fetch.path.parent.iterdir() if p.suffix != ".lock"] == []
    fetch()


def test_a_failed_download_names_the_cause_and_the_remedy(fetch, server):
    base = server.url.removesuffix("/file.zip")
    unused = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    unused.server_close()
    for url, words in {
        f"{base}/missing": "404",
        f"http://127.0.0.1:{unused.server_port}/": "cannot be reached",
        "ftp://localhost/file": "only http and https",
        "file:///etc/passwd": "only http and https",
        f"{base}/elsewhere": "unknown url type: ftp",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            fetch(url=url)
        assert f"save it as {fetch.path}" in str(error.value)
        assert "\n" not in str(error.value)
    assert [p for p in fetch.path.parent.iterdir() if p.suffix != ".lock"] == []
