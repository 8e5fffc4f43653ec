"""Batches that are computed ahead are the same, in the same order, and wait for the step that uses them."""

from typing import NamedTuple

import pytest
import torch

from issl.views.ahead import ahead


class Batch(NamedTuple):
    views: tuple[torch.Tensor, ...]
    labels: torch.Tensor


def counted(device, number, size=4):
    """Batches of equal numbers: 0, 1, 2 ..."""
    for value in range(number):
        full = torch.full((size,), float(value), device=device)
        yield Batch((full, full + 0.5), full.long())


def test_on_a_cpu_nothing_is_computed_ahead():
    device, begun = torch.device("cpu"), []

    def watched():
        for batch in counted(device, 3):
            begun.append(batch)
            yield batch

    batches = ahead(watched(), device)
    next(batches)
    assert len(begun) == 1
    assert [int(batch.labels[0]) for batch in batches] == [1, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_batches_though_steps_are_slow():
    device, size = torch.device("cuda"), 2**20
    work = torch.randn(2048, 2048, device=device)
    found = []
    for batch in ahead(counted(device, 12, size), device):
        for _ in range(20):  # the device is behind the host
            work = work @ work / 100
        found.append(torch.stack([batch.views[0].min(), batch.views[0].max(), batch.views[1].max()]))
        del batch  # its memory is free for the host, but not yet for the device
    assert torch.stack(found).tolist() == [[value, value, value + 0.5] for value in range(12)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_error_reaches_the_step_that_would_use_the_batch():
    def failing():
        yield from counted("cuda", 1)
        raise ValueError("no second batch")

    batches = ahead(failing(), torch.device("cuda"))
    next(batches)
    with pytest.raises(ValueError, match="no second batch"):
        next(batches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_training_that_ends_early_closes_its_batches():
    closed = []

    def watched():
        try:
            yield from counted("cuda", 5)
        finally:
            closed.append(True)

    batches = ahead(watched(), torch.device("cuda"))
    next(batches)
    batches.close()
    del batches
    assert closed
