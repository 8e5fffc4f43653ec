"""Several processes, people or workflows in one results tree: a thing is made by one of them, and once."""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from issl.errors import UserError

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
KEPT = ".made"  # hidden folder beside the outputs, with a second name (a hard link) of each
BEGAN = "ISSL_WORKFLOW_BEGAN"  # environment: when the workflow that asks for a job began, in seconds since 1970


def mark_workflow_start() -> None:
    """Notes the time for all jobs of this workflow; a job that reads the Snakefile again keeps the first one."""
    os.environ.setdefault(BEGAN, repr(time.time()))


@contextmanager
def locked(name: Path) -> Iterator[None]:
    """Holds the lock file `name`, waiting for whoever has it; the system frees it when a process dies.

    Raises UserError where the file system cannot lock, or the folder cannot be written.
    """
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(name, mode=0o664)  # others of the group must be able to open it
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting: another process is making this (%s is locked)", name)
            lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise UserError(f"{name.parent}: cannot write results here: {error.strerror}") from None
        raise UserError(
            f"{name}: cannot be locked ({getattr(error, 'strerror', None) or error}); results/ must lie on a file "
            "system with locks, such as NFS 4 or Lustre mounted with 'flock': link results/ to one"
        ) from None
    try:
        yield
    finally:
        lock.release()


def build_once(outputs: Sequence[Path], make: Callable[[], None]) -> None:
    """Calls `make` for these files of one folder, unless another process makes them now or did since we began."""
    with locked(outputs[-1].with_name(f".{outputs[-1].stem}.lock")):
        if not restore(outputs):
            make()
            link_copy(outputs)


def link_copy(outputs: Sequence[Path]) -> None:
    """Gives each output a second name, under which `restore` finds it."""
    folder = outputs[0].parent / KEPT
    with suppress(OSError):  # a file system without hard links: then a thing may be made twice, never wrongly
        folder.mkdir(exist_ok=True)
        for output in outputs:
            temporary = folder / f".{output.name}.{os.getpid()}"
            os.link(output, temporary)
            temporary.replace(folder / output.name)
            temporary.unlink(missing_ok=True)  # renaming a link to its own file does nothing


def restore(outputs: Sequence[Path]) -> bool:
    """Whether all outputs are there because another process made them since this workflow began.

    Snakemake removes outputs before it starts a job, also those that someone else finished a moment ago; they are then
    linked again. What is older is made anew: someone asked for that.
    """
    began = os.environ.get(BEGAN)
    kept = [outputs[0].parent / KEPT / output.name for output in outputs]
    try:
        if began is None or min(path.stat().st_mtime for path in kept) < float(began):
            return False
        for path, output in zip(kept, outputs):
            if not output.exists():
                os.link(path, output)
    except (OSError, ValueError):
        return False
    log.info("made meanwhile by another process: %s", ", ".join(map(str, outputs)))
    return True
