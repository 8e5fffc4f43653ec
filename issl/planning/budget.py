"""What to run within a budget, as an integer programme: which jobs make most published numbers and claims comparable.

Values are plain, so that hours may be any cost, and jobs anything that is run once and used by several results.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import pulp

ENOUGH = 1e-6  # what solvers take for equal


class Job(NamedTuple):
    """A run with one seed; `hours` are what is left of it, 0 if it is done."""

    name: str
    hours: float


class Number(NamedTuple):
    """A published number, which can be compared when all jobs that it needs are done."""

    name: str
    needs: frozenset[str]
    weight: float = 1.0


class Trial(NamedTuple):
    """A claim tested with so many seeds: it is worth `weight` times its power, the chance that it holds if true."""

    claim: str
    seeds: int
    needs: frozenset[str]
    power: float
    weight: float = 1.0

    @property
    def worth(self) -> float:
        return self.weight * self.power


class Choice(NamedTuple):
    """Jobs to run, in the order given, and what can then be shown, also from what is done already."""

    jobs: tuple[str, ...]
    hours: float
    value: float
    numbers: tuple[Number, ...]
    trials: tuple[Trial, ...]  # of each claim, the one that is worth most

    @property
    def needs(self) -> frozenset[str]:
        """Every job of what can be shown, also those that are done."""
        return frozenset().union(*(each.needs for each in (*self.numbers, *self.trials)))


def choose(jobs: Sequence[Job], numbers: Sequence[Number], trials: Sequence[Trial], hours: float) -> Choice:
    """The jobs of at most so many hours that are worth most; a claim counts once, with its strongest trial.

    Of equal choices, the one with fewest hours, then the one whose jobs come first (least sum of places in `jobs`).
    """
    problem = _Problem(jobs)
    worth = [each.weight * problem.made(each.needs) for each in numbers]
    for of_claim in _by_claim(trials):
        made = [problem.made(trial.needs) for trial in of_claim]
        problem.require(pulp.lpSum(made) <= 1)
        worth += [trial.worth * is_made for trial, is_made in zip(of_claim, made)]
    problem.require(problem.hours <= hours)
    problem.minimise(-pulp.lpSum(worth))
    return shown(jobs, problem.solution(), numbers, trials)


def cheapest(jobs: Sequence[Job], trials: Sequence[Trial], power: float) -> Choice | None:
    """The jobs of fewest hours with which every claim has a trial of at least this power; None if one cannot have it.

    Equal choices are decided as by `choose`.
    """
    problem = _Problem(jobs)
    for of_claim in _by_claim(trials):
        strong = [trial for trial in of_claim if trial.power >= power]
        if not strong:
            return None
        problem.require(pulp.lpSum(problem.made(trial.needs) for trial in strong) >= 1)
    return shown(jobs, problem.solution(), (), trials)


def least(jobs: Sequence[Job], numbers: Sequence[Number], trials: Sequence[Trial]) -> float | None:
    """The hours of the cheapest number or trial that is worth anything and is not there yet; None if all are there."""
    left = {job.name: job.hours for job in jobs}
    worthy = [each.needs for each in numbers if each.weight > 0]
    worthy += [each.needs for each in trials if each.worth > 0]
    return min(filter(None, (sum(left[name] for name in needs) for needs in worthy)), default=None)


def curve(
    jobs: Sequence[Job], numbers: Sequence[Number], trials: Sequence[Trial], steps: int = 16
) -> list[tuple[float, Choice]]:
    """The best choices for budgets from nothing to what everything takes; small ones, which matter most, are dense."""
    everything = choose(jobs, numbers, trials, sum(job.hours for job in jobs))
    budgets = [everything.hours * (step / steps) ** 2 for step in range(steps)]
    return [*((each, choose(jobs, numbers, trials, each)) for each in budgets), (everything.hours, everything)]


def _by_claim(trials: Iterable[Trial]) -> list[list[Trial]]:
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.claim, []).append(trial)
    return list(found.values())


def shown(jobs: Sequence[Job], run: Collection[str], numbers: Sequence[Number], trials: Sequence[Trial]) -> Choice:
    """The choice of these jobs, with everything that they and the finished ones make."""
    there = {*run} | {job.name for job in jobs if not job.hours}
    made = tuple(each for each in numbers if each.needs <= there)
    tested = [[trial for trial in of_claim if trial.needs <= there] for of_claim in _by_claim(trials)]
    best = tuple(max(possible, key=lambda trial: trial.worth) for possible in tested if possible)
    hours = sum(job.hours for job in jobs if job.name in run)
    value = sum(each.weight for each in made) + sum(each.worth for each in best)
    return Choice(tuple(job.name for job in jobs if job.name in run), hours, value, made, best)


class _Problem:
    """A programme over the jobs that are left, with objectives in order of importance."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = [job for job in jobs if job.hours]
        self.done = {job.name for job in jobs if not job.hours}
        self.is_run = {job.name: pulp.LpVariable(f"job{place}", cat="Binary") for place, job in enumerate(self.jobs)}
        self.hours = pulp.lpSum(job.hours * self.is_run[job.name] for job in self.jobs)
        places = pulp.lpSum(place * self.is_run[job.name] for place, job in enumerate(self.jobs, 1))
        self.objectives = [self.hours, places]
        self.problem = pulp.LpProblem("budget", pulp.LpMinimize)
        self.goals = 0

    def require(self, constraint: pulp.LpConstraint) -> None:
        self.problem += constraint

    def minimise(self, objective: pulp.LpAffineExpression) -> None:
        self.objectives.insert(0, objective)

    def made(self, needs: frozenset[str]) -> pulp.LpVariable:
        """At most 1, and 0 unless all these jobs are run or done. Whole because jobs are, so it is declared as real."""
        goal = pulp.LpVariable(f"goal{self.goals}", 0, 1)
        self.goals += 1
        for name in sorted(needs - self.done):
            self.problem += goal <= self.is_run[name]
        return goal

    def solution(self) -> set[str]:
        """Names of the jobs to run. The problem's own objective comes first, then hours, then places."""
        for objective in filter(None, self.objectives):  # solvers refuse an empty one
            self.problem.setObjective(objective)
            self.problem.solve(_solver())
            if self.problem.status != pulp.LpStatusOptimal:
                raise RuntimeError(f"the solver found no optimum: {pulp.LpStatus[self.problem.status]}")
            self.problem += objective <= pulp.value(objective) + ENOUGH
        return {name for name, variable in self.is_run.items() if (variable.value() or 0) > 0.5}


def _solver() -> pulp.LpSolver:
    """HiGHS where its package is installed, else CBC, which pulp brings."""
    highs = pulp.HiGHS(msg=False)
    return highs if highs.available() else pulp.PULP_CBC_CMD(msg=False)
