"""Locks for several processes, users or workflows that share a results folder: each output is made once."""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from issl.errors import UserError
from issl.jobs.files import whole

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
KEPT = ".made"  # hidden folder beside the outputs, with a second name (a hard link) of each
BEGAN = "ISSL_WORKFLOW_BEGAN"  # environment: when the workflow that asks for a job began, in seconds since 1970


FORCED = "ISSL_WORKFLOW_FORCED"  # environment: rules and files that must be made again, separated by path separators
ALL = "*"  # one of them: everything


def mark_workflow_start() -> None:
    """Records the time for all jobs of this workflow; a job that parses the Snakefile again keeps the first one."""
    os.environ.setdefault(BEGAN, repr(time.time()))


def mark_forced(settings: Any) -> None:
    """Records, for all jobs of this workflow, the rules and files that Snakemake's DAG settings force."""
    targets = settings.targets if settings.forcetargets else ()
    forced = {*settings.forcerun, *targets, *([ALL] if settings.forceall else ())}
    os.environ[FORCED] = os.pathsep.join(sorted(forced))


def is_forced(rule: str, outputs: Iterable[Path]) -> bool:
    """Whether the user forces these outputs of a rule."""
    forced = set(os.environ.get(FORCED, "").split(os.pathsep))
    return bool(forced & {ALL, rule, *map(str, outputs)})


@contextmanager
def locked(name: Path) -> Iterator[None]:
    """Holds the lock file `name`, waiting while another process does; the system frees it when a process dies.

    Raises UserError if the file system cannot lock, or the folder cannot be written.
    """
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(name, mode=0o664)  # the group must be able to open it
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting: another process is making this (%s is locked)", name)
            lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise UserError(f"{name.parent}: cannot write results here: {error.strerror}") from None
        raise UserError(
            f"{name}: cannot be locked ({getattr(error, 'strerror', None) or error}); results/ must be on a file "
            "system with locks, such as NFS 4 or Lustre mounted with 'flock': link results/ to one"
        ) from None
    try:
        yield
    finally:
        lock.release()


def held(name: Path) -> bool | None:
    """Whether a process holds the lock file `name`; None if that cannot be told, as of another user's file."""
    try:
        with FileLock(name, timeout=0, mode=0o664):
            return False
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return None


def build_once(
    outputs: Sequence[Path], make: Callable[[], None], still_valid: Callable[[Path], bool] = lambda folder: False
) -> None:
    """Calls `make` for these files of one folder, unless another process has made them since this workflow began.

    It also keeps earlier outputs if `still_valid` accepts the folder of their second names.
    """
    with locked(outputs[-1].with_name(f".{outputs[-1].stem}.lock")):
        if not restore(outputs, still_valid):
            make()
            link_copy(outputs)


def link_copy(outputs: Sequence[Path]) -> None:
    """Hard-links each output to a second name, under which `restore` finds it."""
    folder = outputs[0].parent / KEPT
    with suppress(OSError):  # no hard links on this file system: outputs may be made twice, never wrongly
        folder.mkdir(exist_ok=True)
        for output in outputs:
            temporary = folder / f".{output.name}.{os.getpid()}"
            os.link(output, temporary)
            temporary.replace(folder / output.name)
            temporary.unlink(missing_ok=True)  # renaming a link to its own file does nothing


def restore(outputs: Sequence[Path], still_valid: Callable[[Path], bool] = lambda folder: False) -> bool:
    """Whether the outputs are `made_before`; they are then there.

    Snakemake removes outputs before it starts a job, even those that another process has just finished; they are then
    linked again. Other outputs are made again: the user asked for that.
    """
    if not (reason := made_before(outputs, still_valid)):
        return False
    try:
        for output in outputs:
            if not output.exists():
                _second(_kept(output), output)
    except OSError:
        return False
    log.info("%s: %s", reason, ", ".join(map(str, outputs)))
    return True


def made_before(outputs: Sequence[Path], still_valid: Callable[[Path], bool] = lambda folder: False) -> str:
    """Why outputs need not be made: another process has made all of them since this workflow began, or they are
    `still_valid`; empty if neither is true. Every process of a job gets the same answer, for it changes nothing."""
    began = os.environ.get(BEGAN)
    try:
        made = min(_kept(output).stat().st_mtime for output in outputs)
        if began is not None and made >= float(began):
            return "made meanwhile by another process"
        return "made before, and still valid" if still_valid(_kept(outputs[0]).parent) else ""
    except (OSError, ValueError):
        return ""


def _kept(output: Path) -> Path:
    return output.parent / KEPT / output.name


def _second(path: Path, output: Path) -> None:
    """Gives a file a second name, or a copy where the file system has no hard links."""
    try:
        os.link(path, output)
    except OSError:
        with whole(output) as temporary:
            shutil.copyfile(path, temporary)
