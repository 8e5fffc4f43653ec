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


def powers(expected: Sequence[Expected], seeds: int, level: float, single: bool = True) -> list[float]:
    """The chances that a claim with these contrasts holds with 1, 2, ..., `seeds` seeds, at this level of the test.

    `single` says whether one seed can decide anything, as in a preset that is comparable with the paper. All claims get
    the same draws, so that their powers differ only by what is expected.
    """
    points = sorted({point for each in expected for point in each.contrast.weights})
    draws = np.random.default_rng(0).standard_normal((len(points), DRAWS, seeds))
    found = holds(expected, dict(zip(points, draws)), level).mean(axis=0).tolist()
    return found if single else [0.0, *found[1:]]


def holds(expected: Sequence[Expected], deviations: Mapping[Point, np.ndarray], level: float) -> np.ndarray:
    """Whether a claim holds in each draw with its first 1, 2, ... seeds: (draw, seed).

    Deviations are standard normal: (draw, seed) for each point.
    """
    decided = [_required(each, *_statistics(each, deviations, level)) for each in expected]
    return np.logical_and.reduce(decided)


def _required(each: Expected, statistics: np.ndarray, critical: np.ndarray) -> np.ndarray:
    """A contrast that the claim does not require must only not be shown to be negative."""
    return statistics > critical if each.contrast.required else statistics >= -critical


def _statistics(each: Expected, deviations: Mapping[Point, np.ndarray], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The value of t in each draw with the first 1, 2, ... seeds, and the ones that it must exceed."""
    weights = each.contrast.weights
    spread = math.sqrt(sum(weight**2 for weight in weights.values()))
    drawn = math.sqrt(each.of_one_run) * sum(weight * deviations[point] for point, weight in weights.items())
    numbers = np.arange(1, drawn.shape[1] + 1)
    means = drawn.cumsum(axis=1) / numbers
    squares = (drawn**2).cumsum(axis=1) - numbers * means**2  # around the mean
    found, critical = np.zeros_like(means), np.full(len(numbers), math.inf)
    for place, seeds in enumerate(numbers):
        own = Variance(squares[:, place] / (seeds - 1) / spread**2, seeds - 1) if seeds > 1 else UNKNOWN
        noise = moderated(own, each.prior, each.n_test)
        if noise.freedom:
            found[:, place] = (each.gap + means[:, place]) / (spread * np.sqrt(noise.value / seeds))
            critical[place] = stats.t(noise.freedom).isf(level)
    return found, critical
