"""Batches computed one ahead, while the device works on the last."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from torch import Tensor


class Parts(Protocol):
    """A batch: views of each resolution, and labels."""

    views: tuple[Tensor, ...]
    labels: Tensor


B = TypeVar("B", bound=Parts)


def ahead(batches: Iterator[B], device: torch.device) -> Iterator[B]:
    """The same batches in the same order; on a GPU each is computed by a thread and a stream of their own.

    At most one batch waits: the next is begun when the device has finished the step before the current one.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream, used = torch.cuda.Stream(device), torch.cuda.Event()
    stream.wait_stream(torch.cuda.current_stream(device))  # which has copied the data set to the device

    def compute() -> tuple[B, torch.cuda.Event] | None:
        used.synchronize()
        with torch.cuda.device(device), torch.cuda.stream(stream):
            batch = next(batches, None)
            return batch and (batch, stream.record_event())

    with ThreadPoolExecutor(1, "views") as computer:
        waiting = computer.submit(compute)
        while (computed := waiting.result()) is not None:
            batch, ready = computed
            current = torch.cuda.current_stream(device)
            used = current.record_event()
            waiting = computer.submit(compute)
            current.wait_event(ready)
            for tensor in (*batch.views, batch.labels):
                tensor.record_stream(current)  # else its memory could be given to the next batch during this step
            yield batch
