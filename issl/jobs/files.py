"""Atomic writes: files appear complete or not at all.

Written here because the library for it, atomicwrites, is no longer maintained.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from issl.errors import UserError

TEMPORARY = re.compile(r"\.[^/]+\.[a-z0-9_]{8}(\.\w+)?")  # names that `whole` gives until a file is complete


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it is synced and renamed to `path`, on error removed.

    Raises UserError if the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write results here: {error.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as content:
            os.fsync(content.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_room(folder: Path, n_bytes: int) -> None:
    """Creates a folder for this many bytes. Raises UserError if it cannot, or if the disk has less space.

    A full disk under a memory map kills the process without a message, so the space is checked first.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    if free < n_bytes:
        size, unit = (1e9, "GB") if n_bytes >= 1e9 else (1e6, "MB")
        raise UserError(
            f"{folder}: needs {n_bytes / size:.1f} {unit}, but only {free / size:.1f} {unit} are free on that disk"
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")  # independent of the node's locale


def write_json(path: str | Path, content: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV atomically; a column that a row lacks is left empty."""
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
