"""Published numbers beside reproduced ones, each with a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from issl.config.evidence import Comparison, Published

Verdict = Literal["agrees", "differs", "not run", "not comparable"]


@dataclass(frozen=True)
class Reproduced:
    """One point of a figure or table in per cent: both accuracies, their standard errors (None for one seed)."""

    published: float
    published_sem: float | None
    honest: float
    honest_sem: float | None
    seeds: int
    n_test: int


@dataclass(frozen=True)
class Number:
    """A published number and what became of it; all values in per cent or points."""

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
            points(row["published"]),
            points(row["published_sem"]),
            points(row["honest"]),
            points(row["honest_sem"]),
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

    The verdict is on the accuracy that is chosen as the paper chooses it. A number agrees when the difference is at
    most the tolerance.
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
            # A billionth of a point: a difference equal to the tolerance agrees, however it was rounded.
            verdict = "agrees" if abs(ours.published - value) <= bound + 1e-9 else "differs"
        source, precision = published.source, published.precision
        judged.append(Number(experiment, line, column, value, source, precision, ours, bound, verdict))
    return judged


def run_deviation(n_test: int, rules: Comparison) -> float:
    """Standard deviation in points of the accuracy of one run, from the released results' own repeat.

    Two runs of one configuration differ by `rules.repeat`, taken as the standard deviation of a difference of two. It
    comes from test images on which the runs disagree, and so shrinks as the square root of their number.
    """
    return rules.repeat / math.sqrt(2) * math.sqrt(rules.repeat_images / n_test)


def standard_error(sem: float | None, seeds: int, n_test: int, rules: Comparison) -> float:
    """Of a mean over seeds, in points: that of the seeds, but never below what one run's deviation leads to expect.

    Few seeds may agree by chance; a single one says nothing of its own spread.
    """
    return max(sem or 0.0, run_deviation(n_test, rules) / math.sqrt(seeds))


def tolerance(ours: Reproduced, precision: float, rules: Comparison) -> float:
    """Points by which a reproduced number may differ from a published one, which comes from a single run."""
    own = standard_error(ours.published_sem, ours.seeds, ours.n_test, rules)
    theirs = run_deviation(rules.repeat_images, rules)
    return rules.standard_errors * math.hypot(own, theirs) + precision
