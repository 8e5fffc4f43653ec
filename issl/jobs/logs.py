"""Messages of a job: into its log file, and errors as one line on stderr."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from issl.errors import UserError


@contextmanager
def to_file(path: str | Path | None) -> Iterator[None]:
    """Sends messages to a file (to stderr for None) while a job runs.

    A mistake of the user, or what the system refuses (a full disk, a missing permission), ends the process with status
    1 and one line on stderr; any other error keeps its traceback, in the log file too. The log of an attempt that did
    not succeed stays beside the next one's, under a name with the time; so does that of one that succeeds after
    Snakemake has started another.
    """
    path = Path(path) if path else None
    try:
        _configure(path)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    attempt = _second_name(path) if path else None
    try:
        yield
        if attempt:
            with suppress(FileNotFoundError):  # Snakemake or a person may remove either name at any moment
                if path.samefile(attempt):  # else another attempt has taken the name
                    attempt.unlink()
    except UserError as error:
        _fail(str(error), in_log=path is not None)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", in_log=path is not None)
    except Exception:
        if path is not None:
            logging.getLogger(__name__).exception("unexpected error")
        raise


def _configure(path: Path | None) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path) if path else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


def _second_name(path: Path) -> Path | None:
    """A hard link to the log, named by the time: Snakemake removes the log when it starts a failed job again."""
    attempt = path.with_name(f"{path.stem}.{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}{path.suffix}")
    try:
        os.link(path, attempt)
    except OSError:  # a file system without hard links
        return None
    return attempt


def _fail(message: str, in_log: bool) -> None:
    if in_log:
        logging.getLogger(__name__).error("error: %s", message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
