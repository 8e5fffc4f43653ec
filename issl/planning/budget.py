"""What to run within a budget, as an integer programme: which jobs make most published numbers and claims comparable.

Values are plain, so that hours may be any cost, and jobs anything that is run once and used by several results.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import pulp

from issl.errors import UserError

ENOUGH = 1e-5  # is equal: solvers have tolerances of their own, of 1e-6


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
    goals = [[(each.needs, each.weight)] for each in numbers]
    goals += [[(trial.needs, trial.worth) for trial in of_claim] for of_claim in _by_claim(trials)]
    return shown(jobs, _solution(jobs, goals, hours), numbers, trials)


def cheapest(jobs: Sequence[Job], trials: Sequence[Trial], power: float) -> Choice | None:
    """The jobs of fewest hours with which every claim has a trial of at least this power; None if one cannot have it.

    Equal choices are decided as by `choose`.
    """
    strong = [[trial for trial in of_claim if trial.power >= power] for of_claim in _by_claim(trials)]
    goals = [[(trial.needs, 0.0) for trial in of_claim] for of_claim in strong]
    return shown(jobs, _solution(jobs, goals), (), trials) if all(strong) else None


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


def _solution(
    jobs: Sequence[Job], goals: Sequence[Sequence[tuple[frozenset[str], float]]], hours: float | None = None
) -> set[str]:
    """Names of the jobs to run, by the least of several objectives in order of importance.

    A goal is the jobs that it needs, and its worth. Of each list of goals, at most one counts, within so many hours; or
    if there is no such limit, one must be reached.
    """
    problem = pulp.LpProblem("budget", pulp.LpMinimize)
    is_run = {job.name: pulp.LpVariable(f"job{place}", cat="Binary") for place, job in enumerate(jobs) if job.hours}
    worth = []
    for nth, alternatives in enumerate(goals):
        # Real numbers, which are whole because jobs are.
        reached = [pulp.LpVariable(f"goal{nth}_{place}", 0, 1) for place in range(len(alternatives))]
        worth += [value * is_reached for (_, value), is_reached in zip(alternatives, reached)]
        for name in sorted(frozenset().union(*(needs for needs, _ in alternatives)) & is_run.keys()):
            # As at most one is reached. One constraint for each of them would allow more fractions, and take longer.
            problem += (
                pulp.lpSum(each for (needs, _), each in zip(alternatives, reached) if name in needs) <= is_run[name]
            )
        problem += pulp.lpSum(reached) <= 1 if hours is not None else pulp.lpSum(reached) >= 1
    cost = pulp.lpSum(job.hours * is_run[job.name] for job in jobs if job.hours)
    places = pulp.lpSum(place * variable for place, variable in enumerate(is_run.values(), 1))
    if hours is not None:
        problem += cost <= hours
    solver, chosen = _solver(), None
    for objective in (-pulp.lpSum(worth), cost, places):
        if not objective:  # without a term, solvers refuse it
            continue
        problem.setObjective(objective)
        problem.solve(solver)
        if problem.status != pulp.LpStatusOptimal:
            if chosen is None:
                raise RuntimeError(f"the solver found no optimum: {pulp.LpStatus[problem.status]}")
            break  # a solver may fail to decide between equal choices, by rounding; the last one is as good
        problem += objective <= pulp.value(objective) + ENOUGH
        chosen = {name for name, variable in is_run.items() if (variable.value() or 0) > 0.5}
    return chosen or set()


def _solver() -> pulp.LpSolver:
    """CBC, which PuLP brings for most processors, else HiGHS (`pip install highspy`). Raises UserError without either.

    Not HiGHS first, though it is faster, because it prints its licence to standard output.
    """
    solvers = pulp.PULP_CBC_CMD(msg=False, warmStart=True), pulp.HiGHS(msg=False, gapRel=0.0)
    found = next((solver for solver in solvers if solver.available()), None)
    if found is None:
        raise UserError("PuLP has no solver for this processor: pip install highspy")
    return found
