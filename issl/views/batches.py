"""Batches of images on the device, either from memory there or streamed to it: the same batches by the same call."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from issl.data.arrays import Arrays

# Row numbers of each batch, on the CPU -> images (B, H, W, 3) uint8 and labels (B,) int64 of each, on the device.
Batches = Callable[[Sequence[Tensor]], Iterator[tuple[Tensor, Tensor]]]


def of_split(arrays: Arrays, split: str, device: torch.device, resident_gb: float) -> Batches:
    """The batches of one split: from the device's memory if the whole data set is at most so large (10^9 bytes)."""
    # A data set is resident or streamed as a whole, so that what fits does not depend on which split comes first.
    read = resident if arrays.images.nbytes <= resident_gb * 1e9 else streamed
    return read(arrays, split, device)


def resident(arrays: Arrays, split: str, device: torch.device) -> Batches:
    """Copies the split to the device once; a batch is an index, and nothing in it asks the device for a value."""
    rows = arrays.split(split)
    images = torch.from_numpy(arrays.images[rows].copy()).to(device)
    labels = torch.from_numpy(arrays.labels[rows]).to(device)

    def batches(order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        chosen = torch.cat(tuple(order)).to(device)  # one transfer for all batches
        for batch in chosen.split([len(batch) for batch in order]):
            yield images[batch], labels[batch]

    return batches


def streamed(arrays: Arrays, split: str, device: torch.device) -> Batches:
    """Gathers each batch from the memory map while the device works on the one before it; RAM holds two batches."""
    rows = arrays.split(split)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the map is read-only, and nothing here writes to it
        images = torch.from_numpy(arrays.images[rows])
    labels = torch.from_numpy(arrays.labels[rows])

    def gather(batch: Tensor) -> tuple[Tensor, Tensor]:
        found = images[batch], labels[batch]
        if device.type == "cuda":  # from page-locked memory the copy goes on beside the computation
            return found[0].pin_memory(), found[1].pin_memory()
        return found

    def batches(order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1, "read ahead") as reader:
            waiting = reader.submit(gather, order[0])
            for following in (*order[1:], None):
                found = waiting.result()
                if following is not None:
                    waiting = reader.submit(gather, following)
                yield tuple(part.to(device, non_blocking=True) for part in found)

    return batches
