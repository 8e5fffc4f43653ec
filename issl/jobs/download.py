"""Downloads one file over http(s): resumes after an interruption, and renames the file once it is checked.

Written here because torch.hub and torchvision start over after an interruption.
"""

import hashlib
import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from issl.errors import UserError

TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 18


def fetch(url: str, path: str | Path, md5: str | None = None, progress: bool = True) -> None:
    """Downloads `url` to `path`. An incomplete download stays in ``<path>.part``, and the next call continues it.

    `path` appears only when the file is complete and has the checksum `md5`, if given; a file with another checksum is
    deleted. If several processes want the same file, one downloads and the others wait. Raises UserError that says what
    to do, e.g. to download the file by hand.
    """
    path = Path(path)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(
            f"{url}: only http and https work: correct the url, or download the file by hand and save it as {path}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                _fetch_alone(url, path, md5, progress)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written: {error.strerror}") from error


def _fetch_alone(url: str, path: Path, md5: str | None, progress: bool) -> None:
    part = path.with_name(f"{path.name}.part")
    by_hand = f"download it by hand and save it as {path}"
    try:
        _continue(url, part, path.name, progress)
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{url}: the server answers {error.code} {error.reason}: correct the url, or {by_hand}"
        ) from error
    except urllib.error.URLError as error:
        raise UserError(f"{url}: cannot be reached ({error.reason}): check the network, or {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url}: download interrupted ({error}): run again to continue, or {by_hand}") from error
    if md5 and (found := md5_of(part)) != md5.lower():
        part.unlink()
        raise UserError(f"{url}: the download has md5 {found}, not {md5}: run again, correct `md5`, or {by_hand}")
    part.replace(path)


def md5_of(path: str | Path) -> str:
    """MD5 of a file as hex digits. Raises OSError if it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _continue(url: str, part: Path, name: str, progress: bool) -> None:
    """Gets the bytes that `part` lacks. Raises OSError or HTTPException if not all of them arrive."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = _request(url, have)
    except urllib.error.HTTPError as error:
        if not (have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise
        # There is nothing after our part: it is complete, or it is too long and belongs to another file.
        if _total(error.headers.get("Content-Range")) == have:
            return
        have, response = 0, _request(url, 0)
    with response:
        content_range = response.headers.get("Content-Range")
        resumed = response.status == http.client.PARTIAL_CONTENT and _start(content_range) == have
        if response.status == http.client.PARTIAL_CONTENT and not resumed:
            raise http.client.HTTPException(f"asked for bytes from {have}, got Content-Range: {content_range}")
        start = have if resumed else 0  # a server without ranges sends everything again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, disable=None if progress else True)
        with part.open("ab" if resumed else "wb") as file, bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
            size = file.tell()
    if total is not None and size != total:
        raise http.client.HTTPException(f"{size} of {total} bytes arrived")


def _request(url: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "issl", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return _web().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _web() -> urllib.request.OpenerDirector:
    """urlopen's opener without the handlers for ftp, files and data, so that no redirect leads there."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _start(content_range: str | None) -> int | None:
    """First byte of ``bytes 100-199/200``."""
    match = re.match(r"bytes (\d+)-", content_range or "")
    return int(match[1]) if match else None


def _total(content_range: str | None) -> int | None:
    """Length of the whole file in ``bytes */200``."""
    match = re.fullmatch(r"bytes .*/(\d+)", content_range or "")
    return int(match[1]) if match else None
