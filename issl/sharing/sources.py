"""Where published runs are read from: a folder, a web server, or a repository of the Hugging Face hub.

All have the same files below one place, so urllib does for those on the web: a public repository of the hub serves its
files at plain addresses.
"""

import http.client
import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from issl.errors import UserError
from issl.sharing.index import INDEX, Index, read_index

HUB = "https://huggingface.co"  # or the environment's HF_ENDPOINT, as for the hub's own package
REPOSITORY = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")
TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 20
LARGEST_INDEX = 1 << 28  # bytes


def is_folder(source: str) -> bool:
    """Whether a source is a folder here. Raises UserError for an address of another kind."""
    if source.startswith("hf:") and not REPOSITORY.fullmatch(source):
        raise UserError(f"{source}: must be hf:ORGANISATION/NAME, or hf:ORGANISATION/NAME@REVISION")
    if re.match(r"[\w.+-]+://", source) and not source.startswith(("http://", "https://")):
        raise UserError(f"{source}: must be a folder, http(s)://... or hf:ORGANISATION/NAME")
    return not source.startswith(("hf:", "http://", "https://"))


def address(source: str) -> str:
    """The address of a source on the web, below which its files are."""
    repository = REPOSITORY.fullmatch(source)
    if not repository:
        return source.rstrip("/")
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    return f"{hub}/{repository[1]}/resolve/{repository[2] or 'main'}"


def path_in(source: str, name: str) -> str:
    """A file of a source, as messages name it."""
    return f"{source.rstrip('/')}/{name}"


def index_of(source: str) -> Index:
    """What a source has. Raises UserError if it cannot be reached, or is none."""
    with opened(source, INDEX) as file:
        content = file.read(LARGEST_INDEX)
    return read_index(content, path_in(source, INDEX))


def copy(source: str, name: str, size: int, to: Path) -> None:
    """Copies a file of a source that must have this size. Raises UserError if it has not, or cannot be read."""
    received = 0
    bar = tqdm(total=size, desc=Path(name).name, unit="B", unit_scale=True, disable=None, leave=False)
    with opened(source, name) as content, to.open("wb") as file, bar:
        while block := content.read(min(BLOCK, size - received + 1)):
            received += len(block)
            if received > size:
                break
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    if received != size:
        more = "more than" if received > size else f"{received} of"
        raise UserError(
            f"{path_in(source, name)}: {more} {size} bytes arrived; run again, or tell those who publish it"
        )


@contextmanager
def opened(source: str, name: str) -> Iterator[BinaryIO]:
    """A file of a source. Raises UserError, also for what happens while it is read."""
    where = path_in(source, name)
    try:
        with _in_folder(Path(source), name) if is_folder(source) else _on_web(address(source), name) as content:
            yield content
    except urllib.error.HTTPError as error:
        missing = f", so it is no source of runs: `issl push --to` writes one ({INDEX})" if name == INDEX else ""
        raise UserError(f"{where}: the server answers {error.code} {error.reason}{missing}") from None
    except urllib.error.URLError as error:
        raise UserError(f"{where}: cannot be reached ({error.reason})") from None
    except http.client.IncompleteRead as error:
        raise UserError(f"{where}: the connection was closed after {len(error.partial)} bytes; run again") from None
    except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise UserError(f"{where}: interrupted ({error or type(error).__name__}); run again") from None


def _on_web(url: str, name: str) -> BinaryIO:
    request = urllib.request.Request(f"{url}/{name}", headers={"User-Agent": "issl", "Accept-Encoding": "identity"})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _in_folder(folder: Path, name: str) -> BinaryIO:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if name == INDEX and not (folder / name).exists():
        raise UserError(f"{folder}: has no {INDEX}, so it is no source of runs: `issl push --to` writes one")
    path = folder.resolve() / name
    try:
        if path.resolve() != path:
            raise UserError(f"{path}: is a link, which is not followed")
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: is not a file")
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
