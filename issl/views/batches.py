"""Batches of images on the device, either held in its memory or streamed to it, through the same interface."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from issl.data.arrays import Arrays

# Row numbers of each batch, on the CPU -> its images (B, H, W, 3) uint8 and labels (B,) int64, on the device.
Batches = Callable[[Sequence[Tensor]], Iterator[tuple[Tensor, Tensor]]]


def of_rows(arrays: Arrays, rows: Sequence[slice], device: torch.device, resident_gb: float) -> Batches:
    """Batches of these rows, from the device's memory if the whole data set has at most `resident_gb` * 10^9 bytes."""
    # The whole data set decides, so that it does not matter which split comes first.
    read = resident if arrays.images.nbytes <= resident_gb * 1e9 else streamed
    return read(arrays, rows, device)


def resident(arrays: Arrays, rows: Sequence[slice], device: torch.device) -> Batches:
    """Copies the rows to the device once; batches are indexed there, without synchronising with the device."""
    images = torch.from_numpy(np.concatenate([arrays.images[part] for part in rows])).to(device)
    labels = torch.from_numpy(np.concatenate([arrays.labels[part] for part in rows])).to(device)

    def batches(order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        chosen = torch.cat(tuple(order)).to(device)  # one transfer for all batches
        for batch in chosen.split([len(batch) for batch in order]):
            yield images[batch], labels[batch]

    return batches


def streamed(arrays: Arrays, rows: Sequence[slice], device: torch.device) -> Batches:
    """Gathers each batch from the memory map while the device works on the previous one; RAM holds two batches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the map is read-only, and nothing here writes to it
        images = torch.from_numpy(arrays.images)
    labels = torch.from_numpy(arrays.labels)
    places = torch.cat([torch.arange(part.start, part.stop) for part in rows])

    def gather(batch: Tensor) -> tuple[Tensor, Tensor]:
        pair = images[places[batch]], labels[places[batch]]
        if device.type == "cuda":  # copies from page-locked memory overlap with the computation
            return pair[0].pin_memory(), pair[1].pin_memory()
        return pair

    def batches(order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1, "read ahead") as reader:
            waiting = reader.submit(gather, order[0])
            for following in (*order[1:], None):
                pair = waiting.result()
                if following is not None:
                    waiting = reader.submit(gather, following)
                yield tuple(part.to(device, non_blocking=True) for part in pair)

    return batches
