"""How long work takes on a device: a model of measured jobs, with its uncertainty.

    seconds = (a jobs + b steps + c operations) x a factor of the shape x noise

a, b and c >= 0 are those with the least relative errors, with weak priors that matter only where few jobs were
measured. The logarithm of a shape's factor is normal around 0, and what was measured of a shape is shrunk towards 0 by
how much shapes differ, compared with how much equal jobs do (empirical Bayes: Efron & Morris, JASA 1975). A step that
does more or fewer operations than any measured one is less certain, by a quarter for each factor of e.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from issl.planning.work import Work

PRIOR = (5.0, 5e-3, 1e-11)  # seconds for a job's start, for a step, and for an operation
PRIOR_WEIGHT = 0.01  # of a prior, compared with a measured job
SPREAD, SHAPES = 0.1, 0.3  # standard deviations of log seconds before anything is measured: of equal jobs, of shapes
DEGREES = 4  # of freedom that these two count for
BEYOND = 0.25  # standard deviation of log seconds for each factor of e beyond the measured operations of a step
NINETY = 1.2816  # the normal distribution's 90 % point


class Measured(NamedTuple):
    """A job that ran: its work, and its seconds."""

    work: Work
    seconds: float
    name: str = ""  # the path of its record
    benchmark: Path | None = None  # Snakemake's record of its process, whose time this is


class Estimate(NamedTuple):
    """Seconds that a job will take: the median, and what it exceeds once in ten times."""

    median: float
    ninety: float


class Calibration(NamedTuple):
    """A fitted model of one stage on one device."""

    rates: tuple[float, ...]  # seconds for a job, a step and an operation
    shapes: dict[str, tuple[float, int]]  # mean log factor of each measured shape, and the number of its jobs
    between: float  # standard deviation of log factors between shapes
    within: float  # and of jobs of one shape
    sizes: tuple[float, float]  # logarithms of the fewest and the most operations of a measured step

    @property
    def jobs(self) -> int:
        """The number of jobs that it is fitted to."""
        return sum(number for _, number in self.shapes.values())

    def estimate(self, work: Work) -> Estimate:
        """The time of a job."""
        mean, number = self.shapes.get(work.shape, (0.0, 0))
        own = number * self.between**2 / (number * self.between**2 + self.within**2)
        low, high = self.sizes
        beyond = BEYOND * max(0.0, low - _size(work), _size(work) - high) if work.steps else 0.0
        spread = math.sqrt(self.within**2 + (1 - own) * self.between**2 + beyond**2)
        middle = _seconds(self.rates, work) * math.exp(own * mean)
        # Student's t by its first-order expansion: the spreads were themselves estimated from few shapes.
        ninety = NINETY * (1 + (NINETY**2 + 1) / (4 * (DEGREES + len(self.shapes))))
        return Estimate(middle, middle * math.exp(ninety * spread))


def fit(jobs: Sequence[Measured]) -> Calibration:
    """The model of jobs of one stage on one device, at least one."""
    rates = _rates(jobs)
    factors: dict[str, list[float]] = {}
    for job in jobs:
        factors.setdefault(job.work.shape, []).append(math.log(job.seconds / _seconds(rates, job.work)))
    means = {shape: (fmean(logs), len(logs)) for shape, logs in factors.items()}
    residuals = [log - means[shape][0] for shape, logs in factors.items() for log in logs]
    within = _variance(residuals, len(residuals) - len(means), SPREAD)
    # What shapes differ by, less what the noise of their jobs explains.
    signal = max(0.0, sum(mean**2 - within / number for mean, number in means.values()))
    between = (signal + DEGREES * SHAPES**2) / (max(len(means) - len(PRIOR), 0) + DEGREES)
    sizes = [_size(job.work) for job in jobs if job.work.steps]
    return Calibration(
        rates, means, math.sqrt(between), math.sqrt(within), (min(sizes, default=0.0), max(sizes, default=math.inf))
    )


def _size(work: Work) -> float:
    return math.log(max(work.flops / work.steps, 1.0))


def _rates(jobs: Sequence[Measured]) -> tuple[float, ...]:
    from scipy.optimize import nnls  # takes a third of a second to import

    prior = _prior(jobs)
    # Each row says that a job's relative time is 1, the last ones that a rate is that of the prior.
    rows = [[rate * amount / job.seconds for rate, amount in zip(prior, job.work.amounts)] for job in jobs]
    weight = math.sqrt(PRIOR_WEIGHT)
    rows += [[weight * (i == j) for j in range(len(prior))] for i in range(len(prior))]
    factors, _ = nnls(rows, [1.0] * len(jobs) + [weight] * len(prior))
    return tuple(float(factor) * rate for factor, rate in zip(factors, prior))


def _prior(jobs: Sequence[Measured]) -> tuple[float, ...]:
    """`PRIOR`, for a device of the speed that these jobs show."""
    start, *rates = PRIOR
    usual = [_seconds((0, *rates), job.work) for job in jobs]
    speeds = [job.seconds / seconds for job, seconds in zip(jobs, usual) if seconds]
    return start, *(rate * (median(speeds) if speeds else 1) for rate in rates)


def _seconds(rates: Sequence[float], work: Work) -> float:
    return sum(rate * amount for rate, amount in zip(rates, work.amounts))


def _variance(residuals: Iterable[float], degrees: int, prior: float) -> float:
    return (sum(each**2 for each in residuals) + DEGREES * prior**2) / (degrees + DEGREES)
