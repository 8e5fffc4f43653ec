"""Features of many images on disk, in shards that appear whole: what a killed job made is there when it comes back."""

import json
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

log = logging.getLogger(__name__)

ROWS = 10_240  # images of a shard, a multiple of usual batch sizes: 168 MB at 8192 dimensions
SPLITS = ("train", "test")
ABOUT = "about.json"


def begin(folder: Path, about: Mapping[str, Any]) -> None:
    """Makes the folder of shards, and removes those in it that were made from something else than `about` says."""
    known = folder / ABOUT
    if folder.exists() and (not known.exists() or json.loads(known.read_text()) != about):
        log.info("%s: what is there was made otherwise, and is made again", folder)
        shutil.rmtree(folder)
    if not known.exists():
        write_json(known, about)


def planned(arrays: Arrays, batch_size: int) -> list[tuple[int, int]]:
    """First row and end of every shard. None holds rows of both splits, and only the last of a split is short."""
    size = max(ROWS // batch_size, 1) * batch_size
    splits = [arrays.split(name) for name in SPLITS]
    return [(start, min(start + size, rows.stop)) for rows in splits for start in range(rows.start, rows.stop, size)]


def path(folder: Path, start: int) -> Path:
    return folder / f"{start:09d}.npy"


def missing(folder: Path, shards: list[tuple[int, int]], dim: int) -> list[tuple[int, int]]:
    """Those that are not there yet. Raises UserError where the disk has no room for them."""
    left = [(start, stop) for start, stop in shards if not path(folder, start).exists()]
    n_bytes, free = sum(stop - start for start, stop in left) * dim * 2, shutil.disk_usage(folder).free
    if free < n_bytes:
        raise UserError(
            f"{folder}: no room for features: {n_bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free on that "
            "disk; free some, or link results/ to a larger one"
        )
    return left


def write(folder: Path, start: int, z: np.ndarray) -> None:
    """Writes one shard, (n, dim) float16, whole or not at all."""
    with whole(path(folder, start)) as temporary, temporary.open("wb") as target:
        np.save(target, z)


class Features:
    """All features of a folder of shards, read by row number: (N, dim) float16.

    Up to `resident_gb` (10^9 bytes) they are copied to the device; more is gathered from the files batch by batch, so
    memory stays bounded. Raises UserError where a shard is missing or damaged.
    """

    def __init__(self, folder: Path, n: int, device: torch.device, resident_gb: float):
        shards = [(int(file.stem), _open(file)) for file in sorted(folder.glob("*.npy"))]
        ends = [start + len(z) for start, z in shards]
        if [start for start, _ in shards] != [0, *ends[:-1]] or ends[-1] != n:
            raise UserError(
                f"{folder}: holds {len(shards)} shards that are not all {n} features; delete it and encode again"
            )
        self.device, self.shards = device, [z for _, z in shards]
        self.dim = self.shards[0].shape[1]
        self.starts = torch.tensor([start for start, _ in shards])
        self.resident = None
        if n * self.dim * 2 <= resident_gb * 1e9:
            self.resident = torch.empty(n, self.dim, dtype=torch.float16, device=device)
            for (start, _), end, z in zip(shards, ends, self.shards):
                self.resident[start:end] = torch.from_numpy(z)

    def __call__(self, rows: Tensor) -> Tensor:
        """Features of these rows, (n,) on the CPU, as (n, dim) float32 on the device."""
        if self.resident is not None:
            return self.resident.index_select(0, rows.to(self.device)).float()
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
        return np.load(file, mmap_mode="c")  # copy on write: torch wants what it wraps to be writable
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: cannot be read ({error}); delete it and encode again") from None
