"""The history of a training run: one row per epoch; names terms that are not finite."""

import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from issl.errors import UserError
from issl.jobs.files import write_csv

LOOK_EVERY = 50  # steps between two reads from the device, each of which waits for it


class History:
    """Collects the terms of every step without waiting for the device, and averages them over each epoch."""

    def __init__(self):
        self.rows: list[dict[str, float]] = []
        self._names: list[str] = []
        self._pending: list[Tensor] = []  # one tensor (terms,) per step, on the device
        self._sums: Tensor | None = None
        self._count = 0
        self._first_step = 0
        self._started = time.monotonic()

    def start_epoch(self, step: int) -> None:
        """Begins an epoch; `step` is the global number of its first step."""
        self._pending, self._sums, self._count = [], None, 0
        self._first_step = step
        self._started = time.monotonic()

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, also in the middle of an epoch."""
        return {
            "rows": self.rows,
            "names": self._names,
            "pending": [terms.cpu() for terms in self._pending],  # not summed: sums must not depend on checkpoints
            "sums": self._sums,
            "count": self._count,
            "first_step": self._first_step,
            "seconds": time.monotonic() - self._started,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the return value of `state`."""
        self.rows, self._names, self._pending = list(state["rows"]), list(state["names"]), list(state["pending"])
        self._sums, self._count, self._first_step = state["sums"], state["count"], state["first_step"]
        self._started = time.monotonic() - state["seconds"]

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Adds the terms of one step (0-d tensors). Raises UserError if a recent one is not finite."""
        self._names = list(terms)
        self._pending.append(torch.stack([term.detach().float() for term in terms.values()]))
        if len(self._pending) >= LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        if not self._pending:
            return
        device = self._pending[-1].device  # those of a checkpoint are on the CPU
        values = torch.stack([terms.to(device) for terms in self._pending]).double().cpu()  # (steps, terms)
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            step = self._first_step + self._count + row
            raise UserError(
                f"training stopped: {self._names[column]} is {values[row, column].item()} at step {step}; "
                "the run diverged: lower optim.lr or use execution.precision: 32; earlier checkpoints are kept"
            )
        self._sums = values.sum(0) + (0 if self._sums is None else self._sums)
        self._count += len(values)
        self._pending = []

    def end_epoch(self, epoch: int, lr: float, images: int) -> dict[str, float]:
        """Ends the epoch and returns its row, with the means of its terms; callers may add to it.

        Raises UserError if a term is not finite.
        """
        self._look()
        seconds = time.monotonic() - self._started
        row = {"epoch": epoch, "lr": lr}
        row |= dict(zip(self._names, (self._sums / self._count).tolist()))
        row |= {"seconds": seconds, "images_per_second": images / seconds}
        self.rows.append(row)
        return row

    def line(self, epochs: int) -> str:
        """The newest row for a log file, with the time left at the pace of the last epochs."""
        row, recent = self.rows[-1], self.rows[-10:]
        left = (epochs - 1 - row["epoch"]) * sum(r["seconds"] for r in recent) / len(recent)
        return "  ".join(
            (
                f"epoch {row['epoch'] + 1}/{epochs}",
                f"loss {row['loss']:.4f}",
                f"online accuracy {100 * row['online_acc']:.1f} %",
                f"{row['images_per_second']:.0f} images/s",
                f"ETA {timedelta(seconds=round(left))}",
            )
        )

    def write(self, path: Path) -> None:
        """Writes a CSV with one row per epoch; a column that only some epochs have is empty in the others."""
        columns = list(dict.fromkeys(["epoch", "lr", *(name for row in self.rows for name in row)]))
        write_csv(path, columns, self.rows)
