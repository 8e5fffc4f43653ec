"""Tests the paper's claims on the reproduced results.

A claim is one or several contrasts: weighted sums of accuracies that the claim expects to be positive. With several
seeds, a contrast is tested by a one-sided t-test over its values per seed, paired because each value takes all its
accuracies from one seed; with a single seed, against the deviation of a single run (`published.run_deviation`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import pandas as pd
from scipy import stats

from issl.config.evidence import Claim, Comparison
from issl.report.published import standard_error
from issl.report.results import SELECTIONS

Verdict = Literal["holds", "fails", "undecided", "not run"]
Point = tuple[str, str]  # line, column


class Contrast(NamedTuple):
    """A weighted sum of accuracies, which must be positive if `required`, and otherwise not negative."""

    what: str
    weights: dict[Point, float]
    required: bool = True


@dataclass(frozen=True)
class Test:
    """A contrast in points (or a rank correlation), its standard error, the number of seeds (or runs), and a verdict.

    `p` is the probability of a value at least this high if the true value were zero.
    """

    what: str
    value: float | None
    error: float | None
    n: int
    p: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """A claim tested on one of the two accuracies."""

    verdict: Verdict
    tests: tuple[Test, ...]
    remark: str = ""


def contrasts(claim: Claim, columns: list[str]) -> list[Contrast]:
    """The contrasts of a claim over the columns of its lines, from first to last. Too few columns give none."""
    a, b = claim.line, claim.than
    steps = list(pairwise(columns))
    if claim.verb == "better":
        return [Contrast(column, {(a, column): 1, (b, column): -1}) for column in columns]
    if not steps:
        return []
    first, last = columns[0], columns[-1]
    if claim.verb == "rises":
        whole = Contrast(f"{first} to {last}", {(a, last): 1, (a, first): -1})
        each = [Contrast(f"{x} to {y}", {(a, y): 1, (a, x): -1}, required=False) for x, y in steps]
        return [whole, *(each if len(each) > 1 else [])]
    if claim.verb == "narrows":
        return [
            Contrast(
                f"lead at {first} less lead at {last}", {(a, first): 1, (b, first): -1, (a, last): -1, (b, last): 1}
            )
        ]
    if len(steps) < 2:
        return []
    saturating: dict[Point, float] = {}  # first step less last step; neighbours may share a point
    for column, weight in zip((*steps[0], *steps[-1]), (-1, 1, 1, -1)):
        saturating[a, column] = saturating.get((a, column), 0) + weight
    return [Contrast("first step less last step", saturating)]


def in_order(columns: Iterable[str]) -> list[str]:
    """Columns in numeric order, then those with names (of evaluations) in alphabetical order."""

    def place(column: str) -> tuple[float, str]:
        try:
            return float(column or 0), ""
        except ValueError:
            return math.inf, column

    return sorted(columns, key=place)


def outcomes(claim: Claim, points: pd.DataFrame, rules: Comparison) -> dict[str, Outcome]:
    """The claim tested on both accuracies of `results.points`, by name of the selection."""
    return {accuracy: _outcome(claim, points, accuracy, rules) for accuracy in SELECTIONS}


def _outcome(claim: Claim, points: pd.DataFrame, accuracy: str, rules: Comparison) -> Outcome:
    if not set(claim.lines) <= set(points["line"]):
        return Outcome("not run", ())
    if claim.verb == "falls":
        test = _falls(points[points["line"] == claim.line], accuracy, rules)
        return Outcome(test.verdict, (test,))
    by_seed = 100 * points.pivot(index="seed", columns=["line", "column"], values=accuracy)
    found = [(contrast, _test(contrast, by_seed, points["n_test"].min(), rules)) for contrast in _asked(claim, by_seed)]
    tests = tuple(test for _, test in found if test)
    if not tests:
        return Outcome("undecided" if found else "not run", ())
    return Outcome(_together(found), tests, _left(claim, by_seed))


def _asked(claim: Claim, by_seed: pd.DataFrame) -> list[Contrast]:
    shared = set.intersection(*({column for name, column in by_seed.columns if name == line} for line in claim.lines))
    return contrasts(claim, in_order(shared))


def _test(contrast: Contrast, by_seed: pd.DataFrame, n_test: int, rules: Comparison) -> Test | None:
    values = sum(weight * by_seed[point] for point, weight in contrast.weights.items()).dropna()
    n = len(values)
    if n == 0:  # no seed has all points
        return None
    spread = math.sqrt(sum(weight**2 for weight in contrast.weights.values()))  # of a sum of independent runs
    sem = values.sem() / spread if n > 1 else None
    error = spread * standard_error(sem, n, n_test, rules)
    ratio = values.mean() / error
    p = float(stats.t.sf(ratio, n - 1) if n > 1 else stats.norm.sf(ratio))
    return Test(contrast.what, float(values.mean()), error, n, p, _verdict(p, rules))


def _verdict(p: float, rules: Comparison) -> Verdict:
    if p < rules.significance:
        return "holds"
    return "fails" if 1 - p < rules.significance else "undecided"


def _together(found: list[tuple[Contrast, Test | None]]) -> Verdict:
    """A claim fails if one contrast fails, and holds if all required contrasts hold."""
    if any(test and test.verdict == "fails" for _, test in found):
        return "fails"
    required = [test for contrast, test in found if contrast.required]
    return "holds" if all(test and test.verdict == "holds" for test in required) else "undecided"


def _left(claim: Claim, by_seed: pd.DataFrame) -> str:
    """How much of the lead over `instead_of` is left against `than`, averaged over columns and seeds."""
    if claim.instead_of is None:
        return ""
    mean = by_seed.T.groupby(level="line").mean().mean(axis=1)
    before, after = mean[claim.line] - mean[claim.instead_of], mean[claim.line] - mean[claim.than]
    if before <= 0:
        left = "there is no lead to lose"
    elif after >= before:
        left = "all of it is left"
    else:
        left = f"{max(after / before, 0):.0%} of it is left"
    return f"the lead is {before:+.1f} points over {claim.instead_of} and {after:+.1f} over {claim.than}: {left}"


def _falls(line: pd.DataFrame, accuracy: str, rules: Comparison) -> Test:
    """Kendall's rank correlation between log loss and accuracy over runs, each the mean of its seeds.

    Its sign is reversed, so positive values support the claim; the probability is exact for few runs.
    """
    runs = line.dropna(subset="log_loss").groupby("encoder")[["log_loss", accuracy]].mean()
    what = "rank correlation, sign reversed"
    if runs.nunique().min() < 2:
        return Test(what, None, None, len(runs), None, "undecided")
    found = stats.kendalltau(runs["log_loss"], runs[accuracy], alternative="less")
    p = float(found.pvalue)
    return Test(what, -float(found.statistic), None, len(runs), p, _verdict(p, rules))


def published_value(contrast: Contrast, published: Mapping[Point, float]) -> float | None:
    """A contrast of the published numbers, in points; None if one of them is unknown."""
    if not set(contrast.weights) <= set(published):
        return None
    return sum(weight * published[point] for point, weight in contrast.weights.items())
