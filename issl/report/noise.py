"""How much the accuracy of one run varies between seeds.

Few seeds can agree by chance, so the variance over a contrast's own seeds is *moderated*: averaged with the variance of
other points, weighted by degrees of freedom; the t distribution then has the sum of both. See Smyth, *Linear models and
empirical Bayes methods for assessing differential expression in microarray experiments*, 2004. Two departures from
it: the variance of other points counts for a fixed number of degrees of freedom, because the moment estimate declares
too many false claims when noise differs between points (docs/claims_power.md); and a contrast's own points are left out
of it, because a preset may have few.

Variances are of one run, in points² (a point is 1 % accuracy).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from issl.config.evidence import Comparison
from issl.report.results import SELECTIONS

ALIKE = ["data", "fraction", "metric"]  # points that share these have similar noise
POINT = ["encoder", "encoding", "kind", *ALIKE]


class Variance(NamedTuple):
    """A variance, or an array of variances, and its degrees of freedom; with none, it is unknown."""

    value: float | np.ndarray
    freedom: float


UNKNOWN = Variance(0.0, 0.0)


def average(one: Variance, other: Variance) -> Variance:
    """Both variances, weighted by their degrees of freedom."""
    freedom = one.freedom + other.freedom
    return Variance((one.freedom * one.value + other.freedom * other.value) / freedom, freedom) if freedom else UNKNOWN


def published_pair(n_test: int, rules: Comparison) -> Variance:
    """The variance of one run according to two published runs of one configuration, for `n_test` test images.

    The runs differ by `rules.repeat` points. Half the square of a difference is an unbiased estimate of the variance,
    but more often too small than too large; this is the median-unbiased one, 2.2 times as large. The noise comes from
    test images on which runs disagree, so its variance falls with their number.
    """
    observed = rules.repeat**2 / 2 * rules.repeat_images / n_test
    return Variance(observed / MEDIAN, rules.repeat_freedom)


MEDIAN = stats.chi2(1).median()  # of a squared difference, over its expectation


def prior_freedom(pair: float, measured: float, rules: Comparison) -> float:
    """Degrees of freedom for which the prior counts, from those of the published pair and of other points.

    The latter count half, because points differ in their noise.
    """
    return min(rules.prior_freedom, pair + measured / 2)


def prior(measured: Variance, pair: Variance, rules: Comparison) -> Variance:
    """What is known of a run's noise without its own seeds: from other points, and from the published pair."""
    known = average(measured, pair)
    return Variance(known.value, prior_freedom(pair.freedom, measured.freedom, rules))


def moderated(own: Variance, prior: Variance, n_test: int) -> Variance:
    """The variance over a contrast's own seeds averaged with the prior.

    Accuracies are multiples of 1 / `n_test`, so the variance is at least that of rounding to them.
    """
    value, freedom = average(own, prior)
    return Variance(np.maximum(value, (100 / n_test) ** 2 / 12), freedom) if freedom else UNKNOWN


def interval(accuracy: float, n_test: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy in per cent: the noise of `n_test` images, not of training."""
    found = stats.binomtest(round(accuracy / 100 * n_test), n_test).proportion_ci(0.95, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


@dataclass(frozen=True)
class Noise:
    """The points of a preset, a line for each seed, as evidence of the noise of its runs.

    The published pair counts only if the preset is `comparable`, that is, if its settings are the paper's.
    """

    points: pd.DataFrame
    comparable: bool
    rules: Comparison

    @classmethod
    def of(cls, tables: Iterable[pd.DataFrame], comparable: bool, rules: Comparison) -> "Noise":
        """From the `results.points` of all experiments; a point that several of them show counts once.

        Untrained encoders do not count, because they lack the noise of training.
        """
        found = [table[table["epochs"] > 0] for table in tables]
        points = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*POINT, "seed", *SELECTIONS])
        return cls(points.drop_duplicates([*POINT, "seed"]), comparable, rules)

    def of_one_run(self, own: Variance, here: pd.DataFrame, accuracy: str) -> Variance:
        """The moderated variance of the points `here`, whose own seeds vary by `own`.

        It is unknown if there is a single seed, unless the preset is comparable.
        """
        if own.freedom == 0 and not self.comparable:
            return UNKNOWN
        return moderated(own, self.prior(here, accuracy), _n_test(here))

    def prior(self, here: pd.DataFrame, accuracy: str) -> Variance:
        """From the published pair and all points like those `here`, without those of the same encoders."""
        return prior(_pooled(self._others(here), accuracy), self._pair(here), self.rules)

    def alike(self, here: pd.DataFrame) -> int:
        """The number of points behind `prior`, also of those with a single seed."""
        return len(self._others(here).drop_duplicates(POINT))

    def prior_freedom(self, alike: int, seeds: int) -> float:
        """Degrees of freedom of `prior` if it came from so many points, each with so many seeds."""
        return prior_freedom(self.rules.repeat_freedom if self.comparable else 0, alike * (seeds - 1), self.rules)

    def summary(self, accuracy: str) -> list[dict[str, Any]]:
        """Standard deviation of one run in points, for each kind of point with several seeds."""
        found = []
        for names, alike in self.points.groupby(ALIKE, sort=False):
            value, freedom = _pooled(alike, accuracy)
            if freedom:
                found.append(dict(zip(ALIKE, names)) | {"deviation": math.sqrt(value), "freedom": freedom})
        return found

    def published_deviation(self) -> float | None:
        """Standard deviation of one run in points according to the published pair; None if that does not count."""
        return math.sqrt(published_pair(self.rules.repeat_images, self.rules).value) if self.comparable else None

    def _others(self, here: pd.DataFrame) -> pd.DataFrame:
        kinds = pd.MultiIndex.from_frame(self.points[ALIKE])
        alike = kinds.isin(pd.MultiIndex.from_frame(here[ALIKE].drop_duplicates()))
        return self.points[alike & ~self.points["encoder"].isin(here["encoder"])]

    def _pair(self, here: pd.DataFrame) -> Variance:
        return published_pair(_n_test(here), self.rules) if self.comparable else UNKNOWN


def _n_test(here: pd.DataFrame) -> int:
    return int(here["n_test"].min())


def _pooled(points: pd.DataFrame, accuracy: str) -> Variance:
    """The variance between seeds, averaged over points."""
    groups = points.groupby(POINT)[accuracy]
    freedom = groups.count() - 1
    total = int(freedom.sum())
    return Variance(float((1e4 * groups.var() * freedom).sum() / total), total) if total else UNKNOWN
