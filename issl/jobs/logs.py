"""Messages of a job go to its log file; errors also to stderr, as one line."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from issl.errors import UserError
from issl.jobs.environment import refuse_other_checkout


@contextmanager
def to_file(path: str | Path | None) -> Iterator[None]:
    """Sends messages to a file (to stderr for None) while a job runs.

    A UserError or OSError (a full disk, a missing permission) ends the process with status 1 and one line on stderr;
    any other error keeps its traceback, which also goes to the log file. The log of a failed attempt is kept beside the
    next one's, under a name with the time; so is that of one that succeeds after Snakemake has started another.
    """
    path = Path(path) if path else None
    try:
        attempt = _begin(path) if path else None
        _send_messages_to(attempt or path)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    try:
        refuse_other_checkout()
        yield
        if attempt:
            with suppress(FileNotFoundError):  # Snakemake or a user may remove either name at any moment
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


def _begin(path: Path) -> Path | None:
    """A hard link to the log, named by the time; None where the file system has no hard links.

    Messages are written to this name, because Snakemake removes the log itself whenever it starts the same job, here or
    in another workflow.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    attempt = path.with_name(f"{path.stem}.{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}{path.suffix}")
    while True:
        path.touch()
        try:
            os.link(path, attempt)
        except FileNotFoundError:  # removed at this very moment
            continue
        except OSError:
            return None
        return attempt


def _send_messages_to(path: Path | None) -> None:
    handler = (
        logging.FileHandler(path, encoding="utf-8", errors="backslashreplace") if path else logging.StreamHandler()
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


def _fail(message: str, in_log: bool) -> None:
    if in_log:
        logging.getLogger(__name__).error("error: %s", message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
