"""The model of times finds what simulated jobs were made with, and its 90 % point is one."""

import math

import numpy as np
import pytest

from issl.planning.calibration import Measured, fit
from issl.planning.work import Work

RATES = (6.0, 0.02, 2e-11)  # seconds for a start, a step and an operation


def work(shape, steps, per_step):
    return Work("pretrain", str(shape), 1, steps, steps * per_step)


def seconds(job):
    return sum(rate * amount for rate, amount in zip(RATES, job.amounts))


def jobs(random, shapes=8, each=3, between=0.0, within=0.0):
    """Jobs of shapes whose steps differ, with log-normal factors of shapes and of jobs."""
    found = []
    for shape in range(shapes):
        factor = math.exp(between * random.normal())
        size = 10 ** random.uniform(8, 10)
        for _ in range(each):
            job = work(shape, int(random.integers(50, 5000)), size)
            found.append(Measured(job, seconds(job) * factor * math.exp(within * random.normal())))
    return found


def test_rates_are_found_exactly_where_nothing_disturbs():
    model = fit(jobs(np.random.default_rng(0)))
    new = work("new", 800, 3e9)
    assert model.estimate(new).median == pytest.approx(seconds(new), rel=0.01)
    assert model.rates == pytest.approx(RATES, rel=0.1)
    assert model.jobs == 24


def test_nine_of_ten_jobs_stay_below_the_90_percent_point():
    """Of shapes that were measured, and of shapes that were not."""
    random, below = np.random.default_rng(1), {"known": [], "new": []}
    for _ in range(150):
        every = jobs(random, shapes=9, each=3, between=0.25, within=0.15)
        held_out = {"known": every[0], "new": every[-1]}
        model = fit([job for job in every[1:] if job.work.shape != "8"])
        for kind, job in held_out.items():
            below[kind].append(job.seconds <= model.estimate(job.work).ninety)
    # Three standard errors of 150 trials around 0.9 are 0.07; spreads from so few shapes cost a little more.
    shares = {kind: np.mean(each) for kind, each in below.items()}
    assert all(0.8 < share < 0.98 for share in shares.values()), shares


def test_what_was_measured_of_a_shape_is_believed_the_more_the_more_often_it_was():
    """With one job the estimate lies between the model's and the job's; with many it is theirs."""
    others = jobs(np.random.default_rng(2), shapes=8, each=4, within=0.1)
    slow = work("slow", 1000, 1e9)
    medians = [
        fit([*others, *[Measured(slow, 2 * seconds(slow))] * number]).estimate(slow).median for number in (1, 3, 30)
    ]
    assert seconds(slow) < medians[0] < medians[1] < medians[2]
    assert medians[2] == pytest.approx(2 * seconds(slow), rel=0.05)


def test_one_job_is_enough_and_gives_its_own_time_back():
    job = Measured(work("only", 100, 1e9), 30.0)
    estimate = fit([job]).estimate(job.work)
    assert estimate.median == pytest.approx(30.0, rel=0.15)
    assert estimate.ninety > 1.1 * estimate.median


def test_far_from_what_was_measured_the_90_percent_point_is_further_away():
    model = fit(jobs(np.random.default_rng(3)))
    near, far = (model.estimate(work("new", 100, size)) for size in (1e9, 1e13))
    assert far.ninety / far.median > 2 * near.ninety / near.median


def test_a_job_without_steps_is_as_certain_as_others():
    """An untrained encoder is only written."""
    estimate = fit(jobs(np.random.default_rng(5))).estimate(Work("pretrain", "untrained", 1, 0, 0))
    assert estimate.median == pytest.approx(RATES[0], rel=0.1) and estimate.ninety < 2 * estimate.median


def test_the_rest_of_a_job_takes_its_part_of_the_steps():
    model = fit(jobs(np.random.default_rng(4)))
    whole = work("new", 1000, 1e9)
    start = RATES[0]
    half = model.estimate(whole.part(0.5)).median
    assert half == pytest.approx(start + (model.estimate(whole).median - start) / 2, rel=0.02)
