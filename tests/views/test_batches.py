"""Batches: from memory or streamed, the rows that were asked for, and no more of the data in memory than promised."""

import numpy as np
import pytest
import torch

from issl.data.arrays import read
from issl.views import batches

CPU = torch.device("cpu")
ORDER = (torch.tensor([5, 0, 31]), torch.tensor([2]), torch.tensor([31, 30]))


@pytest.mark.parametrize("way", [batches.resident, batches.streamed])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_batch_holds_the_requested_rows(synthetic, way, split):
    arrays = read(synthetic)
    rows = arrays.split(split)
    found = list(way(arrays, (rows,), CPU)(ORDER))
    assert len(found) == len(ORDER)
    for (images, labels), asked in zip(found, ORDER):
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        np.testing.assert_array_equal(images, arrays.images[rows][asked.numpy()])
        np.testing.assert_array_equal(labels, arrays.labels[rows][asked.numpy()])


@pytest.mark.parametrize("way", [batches.resident, batches.streamed])
def test_rows_of_two_parts_follow_each_other(synthetic, way):
    arrays = read(synthetic)
    [(images, labels)] = way(arrays, (slice(3, 5), slice(70, 73)), CPU)([torch.arange(5)])
    np.testing.assert_array_equal(images, arrays.images[[3, 4, 70, 71, 72]])
    np.testing.assert_array_equal(labels, arrays.labels[[3, 4, 70, 71, 72]])


@pytest.mark.parametrize("way", [batches.resident, batches.streamed])
def test_batches_can_be_iterated_repeatedly_and_abandoned(synthetic, way):
    arrays = read(synthetic)
    read_batches = way(arrays, arrays.pretraining, CPU)
    for _ in range(2):
        images, _ = next(read_batches(ORDER))
        np.testing.assert_array_equal(images, read(synthetic).images[ORDER[0].numpy()])


@pytest.mark.parametrize(
    ("gigabytes", "way"), [(96 * 16 * 16 * 3 / 1e9, "resident"), (70e-6, "streamed"), (0, "streamed")]
)
def test_the_size_of_the_data_set_decides_between_resident_and_streamed(synthetic, monkeypatch, gigabytes, way):
    monkeypatch.setattr(batches, "resident", lambda *_: "resident")
    monkeypatch.setattr(batches, "streamed", lambda *_: "streamed")
    arrays = read(synthetic)
    assert batches.of_rows(arrays, (arrays.split("test"),), CPU, gigabytes) == way


def test_streaming_prefetches_exactly_one_batch(synthetic):
    class Watched:
        """Stands for the memory map; remembers which rows were taken."""

        def __init__(self, images):
            self.images, self.taken = images, []

        def __getitem__(self, rows):
            self.taken.append(rows.tolist())
            return self.images[rows]

    arrays = read(synthetic)
    watched = Watched(torch.from_numpy(arrays.images.copy()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "from_numpy", lambda array: watched if array.ndim == 4 else torch.as_tensor(array))
        stream = batches.streamed(arrays, arrays.pretraining, CPU)(ORDER)
    next(stream)
    stream.close()  # waits for what was begun
    assert watched.taken == [ORDER[0].tolist(), ORDER[1].tolist()]


def test_an_error_while_reading_ahead_reaches_the_loop(synthetic):
    arrays = read(synthetic)
    stream = batches.streamed(arrays, arrays.pretraining, CPU)((torch.tensor([0]), torch.tensor([64])))
    next(stream)
    with pytest.raises(IndexError):
        next(stream)
