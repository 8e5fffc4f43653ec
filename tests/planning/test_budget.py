"""The choice within a budget is the best of all subsets of the jobs, and a tie is broken as documented."""

import random
from itertools import product

import pulp
import pytest

from issl.errors import UserError
from issl.planning.budget import Job, Number, Trial, cheapest, choose, curve, least

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4:DeprecationWarning")  # Snakemake keeps it below that


def instance(draw):
    """A few jobs, some of them done, with numbers and claims that share them."""
    jobs = [Job(f"job{i}", draw.choice([0, 1, 2, 2.5, 3, 4, 5])) for i in range(draw.randint(1, 9))]
    names = [job.name for job in jobs]

    def some():
        return frozenset(draw.sample(names, draw.randint(1, min(4, len(names)))))

    numbers = [Number(f"number{i}", some(), draw.choice([0, 0.5, 1, 1, 2])) for i in range(draw.randint(0, 5))]
    claims = [(f"claim{i}", draw.choice([0.5, 1, 1, 3])) for i in range(draw.randint(0, 4))]
    trials = [
        Trial(claim, seeds, some(), round(draw.random(), 2), weight)
        for claim, weight in claims
        for seeds in range(1, draw.randint(2, 4))
    ]
    return jobs, numbers, trials


def subsets(jobs):
    """(hours, sum of places, every job that is then done) of each way to run what is left."""
    left = [job for job in jobs if job.hours]
    for chosen in product((False, True), repeat=len(left)):
        run = [(place, job) for place, (job, is_run) in enumerate(zip(left, chosen), 1) if is_run]
        there = {job.name for job in jobs if not job.hours} | {job.name for _, job in run}
        yield sum(job.hours for _, job in run), sum(place for place, _ in run), there


def worth(there, numbers, trials):
    claims = {trial.claim: 0.0 for trial in trials}
    for trial in trials:
        if trial.needs <= there:
            claims[trial.claim] = max(claims[trial.claim], trial.weight * trial.power)
    return round(sum(each.weight for each in numbers if each.needs <= there) + sum(claims.values()), 6)


def seen(choice, jobs):
    left = [job.name for job in jobs if job.hours]
    return choice.hours, sum(left.index(name) + 1 for name in choice.jobs)


@pytest.fixture(params=["PULP_CBC_CMD", "HiGHS"])
def solver(request, monkeypatch):
    """Each solver where it is the only one."""
    other = {"PULP_CBC_CMD": pulp.HiGHS, "HiGHS": pulp.PULP_CBC_CMD}[request.param]
    monkeypatch.setattr(other, "available", lambda self: False)


def test_without_a_solver_its_package_is_named(monkeypatch):
    for solver in (pulp.PULP_CBC_CMD, pulp.HiGHS):
        monkeypatch.setattr(solver, "available", lambda self: False)
    with pytest.raises(UserError, match="no solver for this processor: pip install highspy"):
        choose([Job("job", 1.0)], [Number("number", frozenset({"job"}))], [], 2.0)


@pytest.mark.usefixtures("solver")
def test_no_subset_of_the_jobs_is_better():
    draw = random.Random(0)
    for _ in range(200):
        jobs, numbers, trials = instance(draw)
        budget = draw.uniform(0, 20)
        choice = choose(jobs, numbers, trials, budget)
        best = min(
            (-worth(there, numbers, trials), hours, places) for hours, places, there in subsets(jobs) if hours <= budget
        )
        assert (-round(choice.value, 6), *seen(choice, jobs)) == best


@pytest.mark.usefixtures("solver")
def test_no_subset_decides_claims_for_less():
    draw = random.Random(1)
    impossible = 0
    for _ in range(200):
        jobs, _, trials = instance(draw)
        claims = {trial.claim for trial in trials}
        decided = [
            (hours, places)
            for hours, places, there in subsets(jobs)
            if claims == {each.claim for each in trials if each.needs <= there and each.power >= 0.5}
        ]
        choice = cheapest(jobs, trials, 0.5)
        assert (choice is None) == (not decided)
        if choice:
            assert seen(choice, jobs) == min(decided)
        impossible += choice is None
    assert 0 < impossible < 150


def test_a_shared_job_is_paid_once():
    jobs = [Job("shared", 6), Job("a", 2), Job("b", 2)]
    numbers = [Number("A", frozenset({"shared", "a"})), Number("B", frozenset({"shared", "b"}))]
    choice = choose(jobs, numbers, [], 10)
    assert (choice.hours, choice.value) == (10, 2)
    assert choice.needs == {"shared", "a", "b"}


def test_what_is_done_costs_nothing_and_is_not_run_again():
    jobs = [Job("done", 0), Job("left", 3)]
    numbers = [Number("there", frozenset({"done"})), Number("rest", frozenset({"done", "left"}))]
    assert choose(jobs, numbers, [], 2.9) == ((), 0, 1, (numbers[0],), ())
    assert choose(jobs, numbers, [], 3).jobs == ("left",)
    assert least(jobs, numbers, []) == 3


def test_nothing_to_choose_from_is_an_empty_choice():
    assert choose([], [], [], 10) == ((), 0, 0, (), ())
    assert choose([Job("useless", 1)], [], [], 10).jobs == ()
    assert least([Job("useless", 1)], [], []) is None
    assert {choice.value for _, choice in curve([], [], [])} == {0}


def test_a_claim_counts_once_however_many_seeds_it_has():
    jobs = [Job(f"s{seed}", 1) for seed in (1, 2, 3)]
    needs = [frozenset(f"s{seed}" for seed in range(1, n + 1)) for n in (1, 2, 3)]
    trials = [Trial("claim", n, needs[n - 1], power) for n, power in ((1, 0.2), (2, 0.7), (3, 0.7))]
    choice = choose(jobs, [], trials, 3)
    assert (choice.jobs, choice.value, choice.trials) == (("s1", "s2"), 0.7, (trials[1],))


def test_the_curve_never_falls_and_ends_with_everything():
    jobs, numbers, trials = instance(random.Random(5))
    points = curve(jobs, numbers, trials, steps=6)
    values = [choice.value for _, choice in points]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(worth({job.name for job in jobs}, numbers, trials))
    assert all(choice.hours <= budget + 1e-6 for budget, choice in points)


def test_a_solver_that_cannot_decide_between_equal_choices_still_gives_the_best(monkeypatch):
    """As CBC does now and then: it calls the second problem impossible, although the first solution solves it."""
    solve, calls = pulp.LpProblem.solve, []

    def failing(problem, solver):
        calls.append(problem)
        solve(problem, solver)
        if len(calls) > 1:
            problem.status = pulp.LpStatusInfeasible

    monkeypatch.setattr(pulp.LpProblem, "solve", failing)
    jobs = [Job("a", 1.0), Job("b", 2.0), Job("c", 2.0)]
    numbers = [Number("one", frozenset({"a"}), 1.0), Number("two", frozenset({"b", "c"}), 5.0)]
    assert choose(jobs, numbers, [], 4.0).jobs == ("b", "c") and len(calls) == 2
