"""Compares published numbers with reproduced ones, each with a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from issl.config.evidence import Comparison, Published
from issl.report.noise import UNKNOWN, Variance, interval, moderated
from issl.report.results import SELECTIONS

Verdict = Literal["agrees", "differs", "not run", "not comparable"]


@dataclass(frozen=True)
class Reproduced:
    """One point of a figure or table in per cent: both accuracies, and their standard errors over seeds.

    A single seed has no standard error, but the 95 % intervals of its test images; several seeds have no intervals.
    """

    test_selected: float
    test_selected_sem: float | None
    val_selected: float
    val_selected_sem: float | None
    seeds: int
    n_test: int
    test_selected_interval: tuple[float, float] | None = None
    val_selected_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Number:
    """A published number and its reproduction; all values in per cent or points."""

    experiment: str
    line: str
    column: str
    published: float
    source: str
    precision: float
    reproduced: Reproduced | None
    tolerance: float | None
    verdict: Verdict
    also: dict[str, float] = field(default_factory=dict)  # by label: what other sources say; not judged


def reproduced(summary: pd.DataFrame) -> dict[tuple[str, str], Reproduced]:
    """The points of `results.over_seeds(..., ["line", "column"])` by line and column."""

    return {(row["line"], row["column"]): _reproduced(row) for row in summary.to_dict("records")}


def _reproduced(row: Mapping[str, Any]) -> Reproduced:
    values = [100 * float(row[f"{name}{part}"]) for name in SELECTIONS for part in ("", "_sem")]
    seeds, n_test = int(row["seeds"]), int(row["n_test"])
    intervals = (interval(accuracy, n_test) for accuracy in values[::2]) if seeds == 1 else ()
    return Reproduced(*(None if math.isnan(value) else value for value in values), seeds, n_test, *intervals)


def numbers(
    experiment: str,
    published: Published,
    found: Mapping[tuple[str, str], Reproduced],
    priors: Mapping[tuple[str, str], Variance] | None,
    rules: Comparison,
) -> list[Number]:
    """Every published number of an experiment with its verdict.

    `priors` are what is known of the noise of one run at each point (`Noise.prior`), or None if the settings are not
    the paper's. The verdict is on the accuracy selected as in the paper's code. A number agrees if the difference is at
    most the tolerance.
    """
    judged = []
    for (line, column), value in published.points.items():
        ours = found.get((line, column))
        bound = None
        if ours is None:
            verdict = "not run"
        elif priors is None:
            verdict = "not comparable"
        else:
            bound = tolerance(ours, priors[line, column], published.precision, rules)
            # A billionth of a point: a difference equal to the tolerance agrees despite rounding.
            verdict = "agrees" if abs(ours.test_selected - value) <= bound + 1e-9 else "differs"
        source, precision = published.source, published.precision
        also = published.also_at(line, column)
        judged.append(Number(experiment, line, column, value, source, precision, ours, bound, verdict, also))
    return judged


def tolerance(ours: Reproduced, prior: Variance, precision: float, rules: Comparison) -> float:
    """Points by which a reproduced number may differ from a published one, which comes from a single run."""
    sem, seeds = ours.test_selected_sem, ours.seeds
    own = UNKNOWN if sem is None else Variance(seeds * sem**2, seeds - 1)
    ours_squared = moderated(own, prior, ours.n_test).value / seeds
    return rules.standard_errors * math.sqrt(ours_squared + prior.value) + precision
