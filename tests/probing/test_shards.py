"""Features in shards, read by row number."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from issl.data.arrays import Arrays
from issl.errors import UserError
from issl.probing import shards

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """25 features of dimension 3 in shards of 10, 6 and 9 rows."""
    z = np.arange(75, dtype=np.float16).reshape(25, 3)
    for start, stop in ((0, 10), (10, 16), (16, 25)):
        shards.write(tmp_path, start, z[start:stop])
    return tmp_path


@pytest.mark.parametrize("resident_gb", [0, 1], ids=["from files", "resident"])
def test_rows_come_in_the_requested_order(folder, resident_gb):
    read = shards.Features(folder, 25, CPU, resident_gb)
    rows = torch.tensor([24, 0, 9, 10, 10, 15, 16, 3])
    assert (read.resident is None) == (resident_gb == 0)
    assert read.dim == 3
    assert torch.equal(read(read.place(rows)), torch.arange(75.0).view(25, 3)[rows])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("resident_gb", [0, 1], ids=["from files", "resident"])
def test_resident_features_are_not_in_memory_twice(folder, resident_gb):
    """Pages of a mapped file count as memory of the process."""
    read = shards.Features(folder, 25, CPU, resident_gb)
    mapped = Path("/proc/self/maps").read_text().count(str(folder))
    assert mapped == (0 if resident_gb else 3)
    assert read(torch.arange(25)).sum() == sum(range(75))


@pytest.mark.parametrize("start", [0, 10, 16])
def test_a_missing_shard_is_detected(folder, start):
    shards.path(folder, start).unlink()
    with pytest.raises(UserError, match="2 shards are not all 25 features; delete it and encode again"):
        shards.Features(folder, 25, CPU, 1)


def test_a_damaged_shard_is_named(folder):
    shards.path(folder, 10).write_bytes(b"no numpy")
    with pytest.raises(UserError, match=r"000000010\.npy: cannot be read"):
        shards.Features(folder, 25, CPU, 1)


@pytest.mark.parametrize(("batch_size", "size"), [(4, 8), (3, 9), (16, 16)])
def test_a_shard_holds_whole_batches_of_one_split(monkeypatch, batch_size, size):
    monkeypatch.setattr(shards, "ROWS", 10)
    arrays = Arrays(np.zeros(40), np.zeros(40), {"splits": {"train": 27, "test": 13}})
    found = shards.planned(arrays, batch_size)
    assert [row for start, stop in found for row in range(start, stop)] == list(range(40))
    assert all((stop - start) == size or stop in (27, 40) for start, stop in found)
    assert any(stop == 27 for _, stop in found)
