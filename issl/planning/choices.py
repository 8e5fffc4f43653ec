"""What can be chosen for a plan: its jobs, and the published numbers and claims that need them."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from issl.config.evidence import Claim, Points
from issl.config.plan import Plan
from issl.config.points import Point, shown
from issl.config.schema import Experiment
from issl.planning import state
from issl.planning.budget import Job, Number, Trial
from issl.planning.observed import sizes
from issl.planning.power import Expected, powers
from issl.report.claims import Contrast, contrasts, in_order, published_value
from issl.report.noise import Noise, published_pair
from issl.report.results import SELECTIONS, aggregate, points

GAP = 1.0  # points: what a claim is thought to be about if nothing is published; published gaps are 0.6 to 2.9

HoursLeft = Callable[[str, int], float]  # of a run with a seed
Filling = Mapping[tuple[str, str], Sequence[Point]]  # what fills each line and column


class Offer(NamedTuple):
    """What can be chosen; jobs are named by their folders, the first seed of every run before the second of any."""

    jobs: tuple[Job, ...]
    numbers: tuple[Number, ...]
    trials: tuple[Trial, ...]


def with_seeds(plan: Plan, number: int) -> Plan:
    """The plan with so many seeds everywhere: first those of the config, then the smallest others."""
    own = plan.config.seeds
    seeds = tuple(islice((*own, *islice((seed for seed in count(1) if seed not in own), number)), number))
    return replace(plan, rows={name: [replace(row, seeds=seeds) for row in rows] for name, rows in plan.rows.items()})


def offer(plan: Plan, experiments: Sequence[str], hours_left: HoursLeft) -> Offer:
    """The published numbers and claims of experiments, and the jobs that they need.

    A number needs each of its runs with the first seed; a trial needs them with its first seeds. Without numbers are
    presets that are not comparable with the paper. Left out are rows of released weights, which need no pretraining,
    and claims about a rank correlation, of which nothing published says how strong it is.
    """
    noise = measured(plan)
    numbers, trials = [], []
    for name in experiments:
        experiment = plan.config.experiments[name]
        if experiment.display is None:
            continue
        filling: dict[tuple[str, str], list[Point]] = {}
        for point in shown(plan.config, plan.rows[name], experiment.display):
            filling.setdefault((point.line, point.column), []).append(point)
        trained = {place: found for place, found in filling.items() if all(point.row.run for point in found)}
        numbers += _numbers(plan, name, experiment, trained)
        for text, claim in experiment.claims.items():
            trials += _trials(plan, f"{name}: {text}", experiment, claim, trained, noise)
    needed = frozenset().union(*(each.needs for each in (*numbers, *trials)))
    jobs = {f"runs/{run}/s{seed}": (run, seed) for run, seed in runs(plan, experiments)}
    left = tuple(Job(job, hours_left(*which)) for job, which in jobs.items() if job in needed)
    return Offer(left, tuple(numbers), tuple(trials))


def runs(plan: Plan, experiments: Iterable[str]) -> list[tuple[str, int]]:
    """The runs of experiments with their seeds: the first seed of all runs, then the second of all, ..."""
    found = [(row, seed) for name in experiments for row in plan.rows[name] if row.run for seed in row.seeds]
    found.sort(key=lambda each: each[0].seeds.index(each[1]))
    return list(dict.fromkeys((row.name, seed) for row, seed in found))


def _numbers(plan: Plan, name: str, experiment: Experiment, filling: Filling) -> list[Number]:
    if experiment.published is None or not plan.config.comparable:
        return []
    places = [place for place in experiment.published.points if place in filling]
    return [
        Number(": ".join((name, ", ".join(filter(None, place)))), _jobs([place], filling, 1), experiment.weight)
        for place in places
    ]


def _trials(plan: Plan, name: str, experiment: Experiment, claim: Claim, filling: Filling, noise: Noise) -> list[Trial]:
    """The claim with one seed, with two, ..."""
    columns = [{column for line, column in filling if line == each} for each in claim.lines]
    asked = contrasts(claim, in_order(set.intersection(*columns))) if claim.verb != "falls" else []
    if not asked:
        return []
    published = experiment.published.points if experiment.published else {}
    expected = [_expected(plan, contrast, published, filling, noise) for contrast in asked]
    places = {place for contrast in asked for place in contrast.weights}
    beside = {(claim.instead_of, column) for column in columns[-1]} if claim.instead_of else set()  # shown, not tested
    seeds = len(next(iter(filling.values()))[0].row.seeds)
    found = []
    for n, chance in enumerate(powers(expected, seeds, noise.rules.significance, noise.comparable), 1):
        needs = _jobs(places, filling, n) | _jobs(beside, filling, 1)
        found.append(Trial(name, n, needs, round(chance, 3), experiment.weight))  # more digits would be noise
    return found


def _expected(plan: Plan, contrast: Contrast, published: Points, filling: Filling, noise: Noise) -> Expected:
    """A contrast at its published gap, with the noise that was measured or else that of the published pair."""
    gap = published_value(contrast, published)
    found = [point for place in contrast.weights for point in filling[place]]
    there = sizes(Path(plan.root), found[0].row.encoding.data)
    n_test = there.test if there else noise.rules.repeat_images
    known = noise.prior(pd.DataFrame(point.facts for point in found).assign(n_test=n_test), SELECTIONS[0])
    of_one_run = known.value if known.freedom else published_pair(n_test, noise.rules).value
    return Expected(contrast, GAP if gap is None else gap, float(of_one_run), known, n_test)


def _jobs(places: Iterable[tuple[str, str]], filling: Filling, seeds: int) -> frozenset[str]:
    rows = [point.row for place in places for point in filling[place]]
    return frozenset(row.encoder(seed) for row in rows for seed in row.seeds[:seeds])


def measured(plan: Plan) -> Noise:
    """The noise between the seeds of all results on disk."""
    existing = replace(plan, config=plan.config.model_copy(update={"existing_only": True}))
    shown_here = [name for name in (*plan.tables, *plan.figures) if plan.config.experiments[name].of is None]
    tables = []
    for name in shown_here:
        if rows := existing.rows_for(name):
            scores, histories = (list(map(Path, paths(name))) for paths in (existing.scores, existing.histories))
            tables.append(points(aggregate(rows, scores, histories), plan.config.experiments[name].display))
    return Noise.of(tables, plan.config.comparable, plan.config.comparison)


def epochs_left(plan: Plan, pulled: Container[tuple[str, int]] = ()) -> HoursLeft:
    """The cost in epochs, for want of hours: those that no checkpoint has; probes cost none, nor what is `pulled`."""

    def left(run: str, seed: int) -> float:
        found = state.of_run(plan, run, seed)
        return 0.0 if found.open and (run, seed) in pulled else plan.runs[run].epochs * (1 - found.saved)

    return left
