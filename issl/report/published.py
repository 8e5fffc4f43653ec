"""Compares published numbers with reproduced ones, each with a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from issl.config.evidence import Comparison, Published
from issl.report.results import SELECTIONS

Verdict = Literal["agrees", "differs", "not run", "not comparable"]


@dataclass(frozen=True)
class Reproduced:
    """One point of a figure or table in per cent: both accuracies, their standard errors (None for one seed)."""

    test_selected: float
    test_selected_sem: float | None
    val_selected: float
    val_selected_sem: float | None
    seeds: int
    n_test: int


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


def reproduced(summary: pd.DataFrame) -> dict[tuple[str, str], Reproduced]:
    """The points of `results.over_seeds(..., ["line", "column"])` by line and column."""

    def points(value: float) -> float | None:
        return None if pd.isna(value) else 100 * float(value)

    return {
        (row["line"], row["column"]): Reproduced(
            *(points(row[f"{name}{part}"]) for name in SELECTIONS for part in ("", "_sem")),
            int(row["seeds"]),
            int(row["n_test"]),
        )
        for row in summary.to_dict("records")
    }


def numbers(
    experiment: str,
    published: Published,
    found: Mapping[tuple[str, str], Reproduced],
    rules: Comparison,
    comparable: bool,
) -> list[Number]:
    """Every published number of an experiment with its verdict; `comparable` says whether the settings are the paper's.

    The verdict is on the accuracy selected as in the paper's code. A number agrees if the difference is at most the
    tolerance.
    """
    judged = []
    for (line, column), value in published.points.items():
        ours = found.get((line, column))
        bound = tolerance(ours, published.precision, rules) if ours else None
        if ours is None:
            verdict = "not run"
        elif not comparable:
            verdict = "not comparable"
        else:
            # A billionth of a point: a difference equal to the tolerance agrees despite rounding.
            verdict = "agrees" if abs(ours.test_selected - value) <= bound + 1e-9 else "differs"
        source, precision = published.source, published.precision
        judged.append(Number(experiment, line, column, value, source, precision, ours, bound, verdict))
    return judged


def run_deviation(n_test: int, rules: Comparison) -> float:
    """Standard deviation of the accuracy of one run, in points, from a repeated run in the released results.

    Two runs of one configuration differ by `rules.repeat`, used as the standard deviation of a difference. It comes
    from test images on which the runs disagree, and so falls with the square root of the number of test images.
    """
    return rules.repeat / math.sqrt(2) * math.sqrt(rules.repeat_images / n_test)


def standard_error(sem: float | None, seeds: int, n_test: int, rules: Comparison) -> float:
    """Standard error of a mean over seeds, in points: that of the seeds, but at least the one from `run_deviation`.

    Few seeds may agree by chance, and a single one has no spread.
    """
    return max(sem or 0.0, run_deviation(n_test, rules) / math.sqrt(seeds))


def tolerance(ours: Reproduced, precision: float, rules: Comparison) -> float:
    """Points by which a reproduced number may differ from a published one, which comes from a single run."""
    own = standard_error(ours.test_selected_sem, ours.seeds, ours.n_test, rules)
    theirs = run_deviation(rules.repeat_images, rules)
    return rules.standard_errors * math.hypot(own, theirs) + precision
