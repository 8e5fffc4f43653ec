"""Tests the paper's claims on the reproduced results.

A claim is one or several contrasts: weighted sums of accuracies that the claim expects to be positive. A contrast is
tested by a one-sided t-test over its values per seed, paired because each value takes all its accuracies from one seed;
the variance is moderated (`issl.report.noise`). Where noise cannot be known, the claim is undecided.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from issl.config.evidence import Claim
from issl.report.noise import UNKNOWN, Noise, Variance
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

    `p` is the probability of a value at least this high if the true value were zero, `p_fails` of one at most this
    high. `freedom` are the degrees of freedom of the error. All of them are None where noise is unknown.
    """

    what: str
    value: float | None
    error: float | None
    n: int
    p: float | None
    verdict: Verdict
    p_fails: float | None = None
    freedom: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A claim tested on one of the two accuracies.

    `p` and `p_fails` are those of the claim, and None if it was not tested; `corrected` is the verdict after Holm's
    correction. `deciding` says what would decide an undecided claim, `seeds_needed` with how many seeds.
    """

    verdict: Verdict
    tests: tuple[Test, ...] = ()
    remark: str = ""
    p: float | None = None
    p_fails: float | None = None
    corrected: Verdict | None = None
    deciding: str = ""
    seeds_needed: int | None = None


MOST_SEEDS = 10  # more are not worth suggesting


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


def outcomes(claim: Claim, points: pd.DataFrame, noise: Noise) -> dict[str, Outcome]:
    """The claim tested on both accuracies of `results.points`, by name of the selection."""
    return {accuracy: _outcome(claim, points, accuracy, noise) for accuracy in SELECTIONS}


def _outcome(claim: Claim, points: pd.DataFrame, accuracy: str, noise: Noise) -> Outcome:
    if not set(claim.lines) <= set(points["line"]):
        return Outcome("not run")
    if claim.verb == "falls":
        test = _falls(points[points["line"] == claim.line], accuracy, noise.rules.significance)
        more_runs = "a rank test needs more runs; more seeds of the same runs do not add to it"
        deciding = more_runs if test.verdict == "undecided" else ""
        return Outcome(test.verdict, (test,), p=test.p, p_fails=test.p_fails, deciding=deciding)
    by_seed = 100 * points.pivot(index="seed", columns=["line", "column"], values=accuracy)
    asked = _asked(claim, by_seed)
    samples = [_sample(contrast, by_seed, points, accuracy, noise) for contrast in asked]
    if not asked:
        return Outcome("not run")
    found = [_test(sample, sample.noise, sample.n, noise.rules.significance) if sample else None for sample in samples]
    verdict = _together(asked, found)
    outcome = Outcome(verdict, tuple(filter(None, found)), _left(claim, by_seed), *_claim_p(asked, found))
    return _with_deciding(outcome, asked, samples, len(by_seed), noise) if verdict == "undecided" else outcome


def _asked(claim: Claim, by_seed: pd.DataFrame) -> list[Contrast]:
    shared = set.intersection(*({column for name, column in by_seed.columns if name == line} for line in claim.lines))
    return contrasts(claim, in_order(shared))


class _Sample(NamedTuple):
    """A contrast over `n` seeds: its mean, the variance of one run, and the number of points like those of it."""

    contrast: Contrast
    mean: float
    n: int
    noise: Variance
    alike: int


def _sample(
    contrast: Contrast, by_seed: pd.DataFrame, points: pd.DataFrame, accuracy: str, noise: Noise
) -> _Sample | None:
    """None if no seed has all points."""
    values = sum(weight * by_seed[point] for point, weight in contrast.weights.items()).dropna()
    n = len(values)
    if n == 0:
        return None
    own = Variance(float(values.var()) / _spread(contrast) ** 2, n - 1) if n > 1 else UNKNOWN
    here = points[[point in contrast.weights for point in zip(points["line"], points["column"])]]
    return _Sample(contrast, float(values.mean()), n, noise.of_one_run(own, here, accuracy), noise.alike(here))


def _spread(contrast: Contrast) -> float:
    """Deviation of the contrast of independent runs, each with deviation 1."""
    return math.sqrt(sum(weight**2 for weight in contrast.weights.values()))


def _test(sample: _Sample, noise: Variance, seeds: int, level: float) -> Test:
    """The test if the mean were one of this many seeds, and one run had this variance."""
    if noise.freedom == 0:
        return Test(sample.contrast.what, sample.mean, None, seeds, None, "undecided")
    error = _spread(sample.contrast) * math.sqrt(noise.value / seeds)
    found = stats.t(noise.freedom)
    p, p_fails = float(found.sf(sample.mean / error)), float(found.cdf(sample.mean / error))
    return Test(sample.contrast.what, sample.mean, error, seeds, p, _verdict(p, p_fails, level), p_fails, noise.freedom)


def _verdict(p: float, p_fails: float, level: float) -> Verdict:
    if p < level:
        return "holds"
    return "fails" if p_fails < level else "undecided"


def _together(asked: list[Contrast], found: Sequence[Test | None]) -> Verdict:
    """A claim fails if one contrast fails, and holds if all required contrasts hold."""
    if any(test and test.verdict == "fails" for test in found):
        return "fails"
    required = [test for contrast, test in zip(asked, found) if contrast.required]
    return "holds" if all(test and test.verdict == "holds" for test in required) else "undecided"


def _claim_p(asked: list[Contrast], found: Sequence[Test | None]) -> tuple[float | None, float | None]:
    """Of a claim: it holds if all required contrasts do, so the largest p; one that fails refutes it, so Bonferroni."""
    tested = [test for test in found if test and test.p is not None]
    if not tested:
        return None, None
    required = [test for contrast, test in zip(asked, found) if contrast.required]
    p = max(1.0 if test is None or test.p is None else test.p for test in required)
    return p, min(1.0, len(tested) * min(test.p_fails for test in tested))


def _with_deciding(
    outcome: Outcome, asked: list[Contrast], samples: list[_Sample | None], seeds: int, noise: Noise
) -> Outcome:
    """An undecided claim with the smallest number of seeds that would decide it, if differences and noise stay."""
    if None in samples:
        missing = asked[samples.index(None)].what
        return replace(outcome, deciding=f"no seed has all its points{f' at {missing}' if missing else ''}")
    there = min(sample.n for sample in samples)
    few = f"only {there} of {seeds} seeds has all its points; " if there < seeds else ""
    if any(sample.noise.freedom == 0 for sample in samples):
        return replace(outcome, deciding=f"{few or 'one seed; '}a second would show the noise")
    stay = "if the difference stays" if len(samples) == 1 else "if the differences stay"
    for n in range(max(sample.n for sample in samples) + 1, MOST_SEEDS + 1):
        tests = [_test(sample, _later(sample, n, noise), n, noise.rules.significance) for sample in samples]
        if (verdict := _together(asked, tests)) != "undecided":
            would = {"holds": "hold", "fails": "fail"}[verdict]
            return replace(outcome, deciding=f"{few}it would {would} with {n} seeds, {stay}", seeds_needed=n)
    return replace(outcome, deciding=f"{few}{MOST_SEEDS} seeds would not decide it, {stay}")


def _later(sample: _Sample, seeds: int, noise: Noise) -> Variance:
    """The present variance, with the degrees of freedom that it has if every point has this many seeds."""
    known = sample.noise.freedom - (sample.n - 1)
    return Variance(sample.noise.value, max(known, noise.prior_freedom(sample.alike, seeds)) + seeds - 1)


def corrected(outcomes: Sequence[Outcome], level: float) -> list[Outcome]:
    """The outcomes with their verdicts after Holm's correction for all claims that were tested.

    A verdict that the correction does not confirm becomes undecided. The probability that any claim holds by chance is
    then at most `level`, and that any fails likewise.
    """
    tested = [outcome for outcome in outcomes if outcome.p is not None]
    holds, fails = (iter(holm(ps)) for ps in ([each.p for each in tested], [each.p_fails for each in tested]))
    after = []
    for outcome in outcomes:
        adjusted = {} if outcome.p is None else {"holds": next(holds), "fails": next(fails)}
        lost = adjusted.get(outcome.verdict, 0) >= level
        after.append(replace(outcome, corrected="undecided" if lost else outcome.verdict))
    return after


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm, A simple sequentially rejective multiple test procedure, 1979)."""
    values, n = np.array(ps, dtype=float), len(ps)
    order = values.argsort()
    values[order] = np.maximum.accumulate(np.minimum(1, values[order] * np.arange(n, 0, -1)))
    return values.tolist()


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


def _falls(line: pd.DataFrame, accuracy: str, level: float) -> Test:
    """Kendall's rank correlation between log loss and accuracy over runs, each the mean of its seeds.

    Its sign is reversed, so positive values support the claim; the probabilities are exact for few runs.
    """
    runs = line.dropna(subset="log_loss").groupby("encoder")[["log_loss", accuracy]].mean()
    what = "rank correlation, sign reversed"
    if runs.nunique().min() < 2:
        return Test(what, None, None, len(runs), None, "undecided")
    found, against = (stats.kendalltau(runs["log_loss"], runs[accuracy], alternative=side) for side in SIDES)
    p, p_fails = float(found.pvalue), float(against.pvalue)
    return Test(what, -float(found.statistic), None, len(runs), p, _verdict(p, p_fails, level), p_fails)


SIDES = ("less", "greater")  # of a correlation: those that support the claim, and those that contradict it


def published_value(contrast: Contrast, published: Mapping[Point, float]) -> float | None:
    """A contrast of the published numbers, in points; None if one of them is unknown."""
    if not set(contrast.weights) <= set(published):
        return None
    return sum(weight * published[point] for point, weight in contrast.weights.items())
