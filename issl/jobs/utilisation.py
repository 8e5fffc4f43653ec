"""How busy a GPU is while a job uses it."""

import logging
import threading
from statistics import fmean
from types import TracebackType
from typing import Self

import pynvml
import torch

log = logging.getLogger(__name__)

PERIOD = 2.0  # seconds between two samples; a driver averages over its last second at most


class Watch:
    """Samples the share of time in which a GPU computes, in a thread, while the block runs.

    Idle on the CPU, and on a GPU that does not tell, such as a slice of one.
    """

    def __init__(self, device: torch.device, period: float = PERIOD):
        self.device, self.period = device, period
        self.samples: list[int] = []  # per cent
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def percent(self) -> float | None:
        """The mean so far in per cent; None if nothing is known."""
        return fmean(self.samples) if self.samples else None

    def _sample(self) -> None:
        while not self.over.wait(self.period):
            try:
                self.samples.append(torch.cuda.utilization(self.device))
            except (RuntimeError, pynvml.NVMLError) as error:
                log.info("%s does not tell how busy it is: %s", self.device, error)
                return

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.over.set()
        if self.thread.ident:  # it was started
            self.thread.join()
