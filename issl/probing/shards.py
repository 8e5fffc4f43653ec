"""Features of many images on disk, in shards written atomically: a restarted job keeps those of the killed one."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from issl.data.arrays import Arrays
from issl.errors import UserError
from issl.jobs.files import whole, write_json
from issl.jobs.records import differing, read_record

log = logging.getLogger(__name__)

ROWS = 10_240  # images per shard, a multiple of usual batch sizes: 168 MB at 8192 dimensions
SPLITS = ("train", "test")
ABOUT = "about.json"
REMEDY = "delete this folder and encode again"


def discard_others(folder: Path, about: Mapping[str, Any]) -> None:
    """Removes a folder of shards whose inputs differ from `about`."""
    if folder.exists() and _about(folder) != about:
        log.info("%s: removed, because it was made from other inputs", folder)
        shutil.rmtree(folder)


def _about(folder: Path) -> dict[str, Any] | None:
    try:
        return read_record(folder / ABOUT)
    except UserError:
        return None


def refuse_others(folder: Path, about: Mapping[str, Any]) -> None:
    """Raises UserError for shards that were made from something else than `about` says."""
    if other := differing(read_record(folder / ABOUT, REMEDY), about):
        raise UserError(f"{folder}: features of other {' and '.join(other)} than these probes are for; {REMEDY}")


def begin(folder: Path, about: Mapping[str, Any]) -> None:
    """Creates the folder of shards unless it exists."""
    if not (folder / ABOUT).exists():
        write_json(folder / ABOUT, about)


def planned(arrays: Arrays, batch_size: int) -> list[tuple[int, int]]:
    """First row and end of every shard. No shard has rows of both splits; only the last of a split is shorter."""
    size = max(ROWS // batch_size, 1) * batch_size
    splits = [arrays.split(name) for name in SPLITS]
    return [(start, min(start + size, rows.stop)) for rows in splits for start in range(rows.start, rows.stop, size)]


def path(folder: Path, start: int) -> Path:
    return folder / f"{start:09d}.npy"


def missing(folder: Path, shards: list[tuple[int, int]], dim: int) -> list[tuple[int, int]]:
    """The shards that do not exist yet. Raises UserError if the disk lacks space for them."""
    left = [(start, stop) for start, stop in shards if not path(folder, start).exists()]
    n_bytes, free = sum(stop - start for start, stop in left) * dim * 2, shutil.disk_usage(folder.parent).free
    if free < n_bytes:
        raise UserError(
            f"{folder}: features need {n_bytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free on that disk; "
            "free some space, or link results/ to a larger disk"
        )
    return left


def write(folder: Path, start: int, z: np.ndarray) -> None:
    """Writes one shard, (n, dim) float16, atomically."""
    with whole(path(folder, start)) as temporary, temporary.open("wb") as target:
        np.save(target, z)


class Features:
    """All features of a folder of shards, read by row number: (N, dim) float16.

    Up to `resident_gb` (10^9 bytes) are copied to the device; larger features are gathered from the files batch by
    batch, so memory stays bounded. Raises UserError if a shard is missing or damaged.
    """

    def __init__(self, folder: Path, n: int, device: torch.device, resident_gb: float):
        files = sorted(folder.glob("*.npy"))
        starts, self.shards = [int(file.stem) for file in files], [_open(file) for file in files]
        ends = [start + len(z) for start, z in zip(starts, self.shards)]
        if starts != [0, *ends[:-1]] or ends[-1] != n:
            raise UserError(f"{folder}: its {len(files)} shards are not all {n} features; delete it and encode again")
        self.device, self.dim, self.starts = device, self.shards[0].shape[1], torch.tensor(starts)
        self.resident = None
        if n * self.dim * 2 <= resident_gb * 1e9:
            self.resident = torch.empty(n, self.dim, dtype=torch.float16, device=device)
            for start, end in zip(starts, ends):  # pages of a file count as memory until it is closed
                self.resident[start:end] = torch.from_numpy(self.shards.pop(0))

    def place(self, rows: Tensor) -> Tensor:
        """Row numbers on the device of the lookup: one transfer instead of one per step."""
        return rows if self.resident is None else rows.to(self.device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Features of these rows, (n,) as `place` gives them, as (n, dim) float32 on the device."""
        if self.resident is not None:
            # On a CPU `resident[rows]` takes five times as long, and so does float16 to bf16 in one step.
            return self.resident.index_select(0, rows).float()
        found = torch.empty(len(rows), self.dim, dtype=torch.float16)
        for number, places in self._by_shard(rows):
            chosen = rows[places] - self.starts[number]
            found[places] = torch.from_numpy(self.shards[number][chosen.numpy()])
        return found.to(self.device).float()

    def _by_shard(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each shard that holds some of the rows, and their places among the rows."""
        numbers = torch.searchsorted(self.starts, rows, right=True) - 1
        for number in numbers.unique().tolist():
            yield number, (numbers == number).nonzero()[:, 0]


def _open(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="c")  # copy on write: torch wants writable arrays
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: cannot be read ({error}); delete it and encode again") from None
