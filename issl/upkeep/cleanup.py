"""What can go from the results folder: what no target of the config uses, and what jobs left behind."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from issl.config.plan import Plan
from issl.errors import UserError
from issl.jobs.files import TEMPORARY
from issl.jobs.leftovers import size

IDLE = 24 * 3600  # seconds since the last write after which nobody is taken to be writing any more


class Rubbish(NamedTuple):
    """A file or folder (its name ends in "/") below the results folder, and why it can go."""

    path: str
    bytes: int
    why: str


def rubbish(plan: Plan) -> Iterator[Rubbish]:
    """Everything that can go from the preset's results folder, largest first; changes nothing."""
    root = Path(plan.root)
    unused = plan.leftovers()
    found = dict.fromkeys(unused, "no target of the config uses it")
    for run in root.glob("runs/*/s*/run.json"):
        found |= dict.fromkeys(_spent(plan, root, run.parent.relative_to(root)), "its run is finished")
    found |= dict.fromkeys(_torn(root), "left half-written by a job that was killed")
    inside = {path for path in found if any(path.startswith(folder) and path != folder for folder in unused)}
    entries = [Rubbish(path, size(root, path), why) for path, why in found.items() if path not in inside]
    yield from sorted(entries, key=lambda entry: (-entry.bytes, entry.path))


def _spent(plan: Plan, root: Path, run: Path) -> Iterator[str]:
    """What a finished run needs no more, and still has because Snakemake or its job was killed."""
    if (root / run / "checkpoints").is_dir():
        yield f"{run}/checkpoints/"
    wanted = {row.score(seed) for rows in plan.rows.values() for row in rows for seed in plan.config.seeds}
    own = [path for path in wanted if path.startswith(f"{run}/")]
    if (root / run / "features.npy").exists() and own and all((root / path).exists() for path in own):
        yield f"{run}/features.npy"


def _torn(root: Path) -> Iterator[str]:
    """Temporary files that nobody has written to for a day; links are not followed."""
    now = time.time()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in (".snakemake", ".made")]
        for name in names:
            path = Path(folder, name)
            if TEMPORARY.fullmatch(name) and path.suffix != ".lock" and now - path.lstat().st_mtime > IDLE:
                yield path.relative_to(root).as_posix()


def remove(plan: Plan, entry: Rubbish) -> bool:
    """Removes it, unless a process works there now; whether it is gone. Raises UserError where that is refused."""
    path, folder = Path(plan.root, entry.path), entry.path.endswith("/")
    inside = path.rglob(".*.lock") if folder else ()
    if any(_held(lock) for lock in (*inside, *path.parent.glob(".*.lock"))):
        return False
    try:
        shutil.rmtree(path) if folder else path.unlink()
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be removed: {error.strerror}") from None
    return True


def _held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):  # someone has it, or nobody can tell
        return True
