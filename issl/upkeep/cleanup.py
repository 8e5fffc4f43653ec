"""Finds removable results: unused by every target of the config, or left behind by jobs."""

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from issl.config.plan import Plan
from issl.errors import UserError
from issl.jobs.files import TEMPORARY
from issl.jobs.leftovers import size
from issl.jobs.locks import held
from issl.jobs.records import finished_runs
from issl.spec.probe import READS_IMAGES

IDLE = 24 * 3600  # seconds since the last write, after which no process is assumed to be writing


class Rubbish(NamedTuple):
    """A file, or a folder (its name ends in "/"), below the results folder, and why it can be removed.

    `spent` says that nobody needs it; what is merely unused may belong to another config.
    """

    path: str
    bytes: int
    why: str
    spent: bool


def rubbish(plan: Plan) -> Iterator[Rubbish]:
    """Lists what can be removed from the preset's results folder, largest first; changes nothing."""
    root = Path(plan.root)
    unused = plan.leftovers()
    found = dict.fromkeys(unused, (UNUSED, False))
    # What killed jobs, of Snakemake too, leave behind.
    runs = [folder.relative_to(root).as_posix() for folder in finished_runs(root)]
    spent = {f"{run}/checkpoints/": "its run is finished" for run in runs if (root / run / "checkpoints").is_dir()}
    for features, scores in _read_by(plan).items():
        if (root / features).is_dir() and all((root / score).exists() for score in scores):
            spent[f"{features}/"] = "all probes of it are finished"
    spent |= dict.fromkeys(_torn(root), "incomplete file of a killed job")
    found |= {path: (why, True) for path, why in spent.items()}
    inside = {path for path in found if any(path.startswith(folder) and path != folder for folder in unused)}
    entries = [Rubbish(path, size(root, path), *why) for path, why in found.items() if path not in inside]
    yield from sorted(entries, key=lambda entry: (-entry.bytes, entry.path))


UNUSED = "no target of this config uses it; another config may"


def _read_by(plan: Plan) -> dict[str, list[str]]:
    """The score files that need each folder of features."""
    found: dict[str, list[str]] = {}
    for row in (row for rows in plan.rows.values() for row in rows):
        reading = [name for name, grid in row.probes.items() if grid.kind not in READS_IMAGES]
        for probe, seed in itertools.product(reading, row.seeds):
            found.setdefault(row.features(seed), []).append(row.score(probe, seed))
    return found


def _torn(root: Path) -> Iterator[str]:
    """Temporary files and folders that nobody has written to for a day; links are not followed."""
    now = time.time()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in (".snakemake", ".made")]
        for name in (*names, *folders):
            path = Path(folder, name)
            if TEMPORARY.fullmatch(name) and path.suffix != ".lock" and now - path.lstat().st_mtime > IDLE:
                yield path.relative_to(root).as_posix() + "/" * (name in folders)


def remove(plan: Plan, entry: Rubbish) -> bool:
    """Removes it unless a process is working there, and says whether it did. Raises UserError if it cannot."""
    path, folder = Path(plan.root, entry.path), entry.path.endswith("/")
    inside = path.rglob(".*.lock") if folder else ()
    if any(held(lock) is not False for lock in (*inside, *path.parent.glob(".*.lock"))):
        return False
    try:
        shutil.rmtree(path) if folder else path.unlink()
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be removed: {error.strerror}") from None
    return True
