"""A schedule runs every job once, one at a time on a GPU, and ends within the known bounds of the best one."""

import random
from itertools import combinations, product

import pytest

from issl.planning.budget import Job
from issl.planning.schedule import makespan, schedule


def drawn(draw, most):
    return [Job(f"job{i}", draw.choice([0, 1, 2, 3, 5, 7, 8.5, 11])) for i in range(draw.randint(1, most))]


def shortest(jobs, gpus):
    """The least makespan of all assignments of whole jobs."""
    return min(
        max(sum(job.hours for job, gpu in zip(jobs, where) if gpu == each) for each in range(gpus))
        for where in product(range(gpus), repeat=len(jobs))
    )


def check(parts, jobs, gpus, slot=None):
    """Nothing is lost, no part is longer than a slot, and neither a GPU nor a job has two parts at once."""
    for job in jobs:
        own = [part for part in parts if part.job == job.name]
        assert sum(part.end - part.start for part in own) == pytest.approx(job.hours)
        assert [part.number for part in own] == list(range(1, len(own) + 1))
        assert not own or len(own) == own[0].parts
    assert all(part.gpu in range(gpus) and 0 <= part.start < part.end for part in parts)
    assert slot is None or all(part.end - part.start <= slot + 1e-6 for part in parts)
    for one, other in combinations(parts, 2):
        if one.gpu == other.gpu or one.job == other.job:
            assert one.end <= other.start or other.end <= one.start


def test_whole_jobs_end_within_grahams_bound_of_the_best_schedule():
    draw, worst = random.Random(0), 1.0
    for _ in range(100):
        jobs, gpus = drawn(draw, 7), draw.randint(1, 3)
        parts = schedule(jobs, gpus)
        check(parts, jobs, gpus)
        best = shortest(jobs, gpus)
        assert best <= makespan(parts) <= (4 / 3 - 1 / (3 * gpus)) * best
        worst = max(worst, makespan(parts) / best if best else 1.0)
    assert worst > 1  # the instances are hard enough to show it


def test_the_classic_worst_case_of_longest_first():
    """Graham 1969: 5, 5, 4, 4, 3, 3, 3 on three machines take 11 instead of 9."""
    jobs = [Job(str(place), hours) for place, hours in enumerate((5, 5, 4, 4, 3, 3, 3))]
    assert (makespan(schedule(jobs, 3)), shortest(jobs, 3)) == (11, 9)


def test_split_jobs_end_within_the_bound_of_list_schedules():
    """At least the longest job and an equal share; at most the share and the longest chain on what is left of it."""
    draw = random.Random(1)
    for _ in range(300):
        jobs, gpus, slot = drawn(draw, 9), draw.randint(1, 4), draw.choice([0.7, 2, 3.5, 20])
        parts = schedule(jobs, gpus, slot)
        check(parts, jobs, gpus, slot)
        share, longest = sum(job.hours for job in jobs) / gpus, max(job.hours for job in jobs)
        assert max(share, longest) - 1e-6 <= makespan(parts) <= share + (1 - 1 / gpus) * longest + 1e-6


def test_a_split_balances_what_whole_runs_cannot():
    jobs = [Job(name, 6) for name in "abc"]
    assert makespan(schedule(jobs, 2)) == 12
    assert makespan(schedule(jobs, 2, slot=3)) == 9


def test_equal_slots_leave_no_empty_part():
    parts = schedule([Job("a", 0.9)], 1, slot=0.3)
    assert [part.number for part in parts] == [1, 2, 3]
    assert makespan(parts) == pytest.approx(0.9)


def test_nothing_to_run_takes_no_time():
    assert schedule([Job("done", 0)], 2) == []
    assert makespan([]) == 0
