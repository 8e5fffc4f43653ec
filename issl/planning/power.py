"""The power of a claim: how often it holds if the gaps between its lines are what they are thought to be.

The rule of `issl.report.claims` is applied to drawn accuracies, which deviate normally, and independently between seeds
and points.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from issl.report.claims import Contrast, Point
from issl.report.noise import UNKNOWN, Variance, moderated

DRAWS = 10_000  # the standard error of a power is then at most 0.005


class Expected(NamedTuple):
    """A contrast with the gap that it is thought to have, in points.

    One run has the variance `of_one_run`, in points². `prior` is what the test will know of it besides the seeds.
    """

    contrast: Contrast
    gap: float
    of_one_run: float
    prior: Variance
    n_test: int


def power(expected: Sequence[Expected], seeds: int, level: float, single: bool = True) -> float:
    """The chance that a claim with these contrasts holds with so many seeds, at this level of the test.

    `single` says whether one seed can decide anything, as in a preset that is comparable with the paper. All claims get
    the same draws, so that their powers differ only by what is expected.
    """
    if seeds == 1 and not single:
        return 0.0
    points = sorted({point for each in expected for point in each.contrast.weights})
    draws = np.random.default_rng(0).standard_normal((len(points), DRAWS, seeds))
    return float(holds(expected, dict(zip(points, draws)), level).mean())


def holds(expected: Sequence[Expected], deviations: Mapping[Point, np.ndarray], level: float) -> np.ndarray:
    """Whether a claim holds in each draw. Deviations are standard normal: (draw, seed) for each point."""
    decided = [_required(each, *_statistic(each, deviations, level)) for each in expected]
    return np.logical_and.reduce(decided)


def _required(each: Expected, statistic: np.ndarray, critical: float) -> np.ndarray:
    """A contrast that the claim does not require must only not be shown to be negative."""
    return statistic > critical if each.contrast.required else statistic >= -critical


def _statistic(each: Expected, deviations: Mapping[Point, np.ndarray], level: float) -> tuple[np.ndarray, float]:
    """The value of t in each draw, and the one that it must exceed."""
    weights = each.contrast.weights
    spread = math.sqrt(sum(weight**2 for weight in weights.values()))
    drawn = sum(weight * deviations[point] for point, weight in weights.items())
    values = each.gap + math.sqrt(each.of_one_run) * drawn
    seeds = values.shape[1]
    own = Variance(values.var(axis=1, ddof=1) / spread**2, seeds - 1) if seeds > 1 else UNKNOWN
    noise = moderated(own, each.prior, each.n_test)
    if not noise.freedom:
        return np.zeros(len(values)), math.inf
    statistic = values.mean(axis=1) / (spread * np.sqrt(noise.value / seeds))
    return statistic, float(stats.t(noise.freedom).isf(level))
