"""What a call measures, and on what: the paper's runs on a GPU, or small ones in a rehearsal."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from issl.config import plan as catalog
from issl.config.layers import PAPER
from issl.config.resolve import PlannedRow
from issl.errors import UserError, nearest
from issl.jobs import devices
from issl.jobs.execution import Execution
from issl.spec.run import RunSpec

PROJECT = Path(__file__).resolve().parents[2]
REHEARSED = "tiny"  # preset
TINYIMAGENET = 100_000  # training images
EXECUTION = Execution(device="auto", progress=False, checkpoint_minutes=1)

Line = dict[str, Any]  # of a table: numbers and words by column; lists and mappings are only kept in the JSON


class Piece(NamedTuple):
    """One measurement; `minutes` is what it may take on an H100. `measure` returns its lines of the table."""

    name: str
    minutes: float
    measure: Callable[[], list[Line]]


class Budget:
    """The time that a call has for a part."""

    def __init__(self, minutes: float):
        self.minutes, self._end = minutes, time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds; negative when the time is over."""
        return self._end - time.monotonic()

    def fits(self, minutes: float) -> bool:
        """Whether something that takes so long may start; in a short call it may while half of the time is left."""
        return self.left() > 60 * min(minutes, self.minutes / 2)


@dataclass(frozen=True)
class Session:
    """The settings of a call. With a `limit`, all is as small as the preset *tiny* and has at most so many repeats."""

    out: Path
    budget: Budget
    limit: int | None = None
    preset: str = PAPER  # whose rows are pretrained
    archive: Path | None = None  # of TinyImageNet, if not where config.yaml says

    def most(self, number: int) -> int:
        """A number of repeats, epochs or rows, or the limit if that is smaller."""
        return number if self.limit is None else min(number, self.limit)

    @cached_property
    def rows(self) -> dict[str, PlannedRow]:
        """Rows of the paper."""
        return pretrained(PAPER if self.limit is None else REHEARSED)

    @property
    def runs(self) -> list[RunSpec]:
        """Their runs, each once."""
        return [row.run for row in self.rows.values()]

    @cached_property
    def methods(self) -> dict[str, RunSpec]:
        """The first run of each method."""
        found: dict[str, RunSpec] = {}
        for row in self.rows.values():
            found.setdefault(row.method, row.run)
        return found

    def shortened(self, run: RunSpec) -> RunSpec:
        """A run with at most as many epochs after its warm-up as the limit."""
        epochs = run.optim.warmup_epochs + self.most(run.optim.epochs - run.optim.warmup_epochs)
        return run.model_copy(update={"optim": run.optim.model_copy(update={"epochs": epochs})})

    @property
    def n_images(self) -> int:
        """Training images of a data set of noise."""
        return TINYIMAGENET if self.limit is None else 256

    @property
    def device(self) -> torch.device:
        return devices.choose(EXECUTION)

    @property
    def precision(self) -> str:
        return devices.precision(EXECUTION, self.device)


def pretrained(preset: str) -> dict[str, PlannedRow]:
    """The rows of a preset that `all` pretrains, each run once, by name: "fig7a: strength 0.5, classes 20000".

    Raises UserError for an unknown preset.
    """
    plans = {plan.preset: plan for plan in catalog.load(PROJECT / "config.yaml").values()}
    if preset not in plans:
        raise UserError(f"unknown preset '{preset}', {nearest(preset, plans)}")
    plan, found = plans[preset], {}
    for name, experiment in plan.config.experiments.items():
        own = () if experiment.of or experiment.on_request else plan.rows.get(name, ())
        found |= {row.name: (f"{name}: {row.label}", row) for row in own if row.trained_here and row.name not in found}
    return dict(found.values())


def forget_peak_memory() -> None:
    """Lets the next peak be that of what follows."""
    gc.collect()  # a trainer and its module hold each other
    if torch.cuda.is_available():
        torch.cuda.init()  # else there is nothing to reset
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory_gb(device: torch.device) -> float | None:
    """Of the GPU since `forget_peak_memory`; None on a CPU, where only the whole process has one."""
    return devices.peak_memory_gb(device) if device.type == "cuda" else None
