"""What a measurement is: contenders take turns, the first turn is left out, the median counts."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from statistics import median, quantiles
from typing import Any

import numpy as np

ROUNDS = 5
STEEPEST = 1.1  # slope that still counts as growing no faster than the work
REACH = "nothing grows faster than its work"
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "snakemake", "numpy", "pillow", "scikit-learn")

Turn = Callable[[], float]  # does one piece of work, gives its figure: seconds, images a second, ...


@dataclass(frozen=True)
class Row:
    """One line of the table: ours beside a peer.

    `ratio` is more when we are better, whichever way the unit goes. `spread` is the quartile range of our figure in
    parts of its median. `to_reach` says in words what was asked for, `reached` whether it came out.
    """

    name: str
    unit: str
    to_reach: str
    beside: str
    ours: float | None = None
    peer: float | None = None
    ratio: float | None = None
    reached: bool | None = None
    n: int = 0
    spread: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    not_measured: str | None = None  # the reason

    def record(self) -> dict[str, Any]:
        """The row as JSON, with the machine and the versions it holds for."""
        return asdict(self) | {"machine": machine(), "versions": versions()}


def take_turns(*turns: Turn, rounds: int = ROUNDS) -> list[list[float]]:
    """The figures of each contender, who alternate; one round before them warms up and is not counted."""
    figures = [[turn() for turn in turns] for _ in range(rounds + 1)]
    return [list(column) for column in zip(*figures[1:])]


def spread(figures: Sequence[float]) -> float | None:
    """Quartile range in parts of the median; None for a single figure."""
    if len(figures) < 2:
        return None
    low, _, high = quantiles(figures, method="inclusive")
    return (high - low) / median(figures)


def compared(row: Row, ours: Sequence[float], peer: Sequence[float], least: float, **details: Any) -> Row:
    """The row with the figures of both contenders, where a ratio of `least` was asked for.

    Fewer seconds are better, and more of any other unit.
    """
    mine, theirs = median(ours), median(peer)
    ratio = theirs / mine if row.unit == "s" else mine / theirs
    return replace(
        row,
        ours=mine,
        peer=theirs,
        ratio=ratio,
        reached=ratio >= least,
        n=len(ours),
        spread=spread(ours),
        details={"peer_spread": spread(peer)} | details,
    )


def grown(row: Row, turns: Mapping[int, Turn], rounds: int) -> Row:
    """The row of a cost, in seconds, at each size; `ours` is the cost of a unit at the largest over the smallest.

    Its slope is that of a line through logarithms of both: 1 where a cost grows as its work, less where something is
    shared.
    """
    sizes = list(turns)
    measured = take_turns(*turns.values(), rounds=rounds)
    figures = [median(column) for column in measured]
    steepness = slope(sizes, figures)
    return replace(
        row,
        ours=(figures[-1] / sizes[-1]) / (figures[0] / sizes[0]),
        reached=steepness <= STEEPEST,
        n=rounds,
        spread=spread(measured[-1]),
        details={"sizes": sizes, "figures": figures, "unit": "s", "slope": steepness},
    )


def slope(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Slope of the line through the logarithms, by least squares: the power with which figures grow with sizes."""
    return float(np.polyfit(np.log(sizes), np.log(figures), 1)[0])


def machine() -> dict[str, Any]:
    """The hardware that the figures hold for."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": round(memory, 1), "gpus": gpus}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Python and the packages that the figures depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
