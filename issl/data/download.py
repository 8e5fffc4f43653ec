"""Downloading one file over http(s): resumed where it broke off, checked, and only then given its name."""

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
    """Downloads `url` to `path`. What came so far stays in ``<path>.part``, and the next call continues there.

    `path` appears only when the file is complete and, where `md5` is given, has that checksum; a file with another
    checksum is deleted. Of several processes that want the same file one downloads and the others wait. Raises
    UserError saying what to do, e.g. to fetch the file by hand.
    """
    path = Path(path)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(
            f"{url}: only http and https are downloaded: correct the url, or fetch it by hand and put it at {path}"
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
    by_hand = f"fetch it by hand and put it at {path}"
    try:
        _continue(url, part, path.name, progress)
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{url}: the server answers {error.code} {error.reason}: correct the url, or {by_hand}"
        ) from error
    except urllib.error.URLError as error:
        raise UserError(f"{url}: cannot be reached ({error.reason}): check the network, or {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url}: download broke off ({error}): call again to continue it, or {by_hand}") from error
    if md5 and (found := md5_of(part)) != md5.lower():
        part.unlink()
        raise UserError(f"{url}: what came has md5 {found}, not {md5}: call again, correct `md5`, or {by_hand}")
    part.replace(path)


def md5_of(path: str | Path) -> str:
    """MD5 of a file as hex digits. Raises OSError where it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _continue(url: str, part: Path, name: str, progress: bool) -> None:
    """Gets the bytes that `part` still lacks. Raises OSError or HTTPException where they do not all come."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = _request(url, have)
    except urllib.error.HTTPError as error:
        if not (have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise
        # Nothing lies beyond what we have: the part is complete, or it is too long and not of this file.
        if _total(error.headers.get("Content-Range")) == have:
            return
        have, response = 0, _request(url, 0)
    with response:
        content_range = response.headers.get("Content-Range")
        resumed = response.status == http.client.PARTIAL_CONTENT and _start(content_range) == have
        if response.status == http.client.PARTIAL_CONTENT and not resumed:
            raise http.client.HTTPException(f"asked for bytes from {have} on, got Content-Range: {content_range}")
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
        raise http.client.HTTPException(f"{size} of {total} bytes came")


def _request(url: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "issl", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return _web().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _web() -> urllib.request.OpenerDirector:
    """What urlopen uses, without its handlers for ftp, files and data: a redirect cannot lead there either."""
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
