"""The answers of `issl plan --budget` and `--decide`: which runs and seeds, what they show, and their schedule."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from issl.config.plan import Plan
from issl.errors import UserError, nearest
from issl.planning.budget import Choice, Trial, cheapest, choose, least, shown
from issl.planning.choices import Offer, epochs_left, offer, runs, with_seeds
from issl.planning.cost import Costs
from issl.planning.listing import hours_left, words
from issl.planning.page import MEASURE, shortened
from issl.planning.schedule import Part, makespan, schedule

HOURS = {"h": 1.0, "m": 1 / 60, "d": 24.0}
POWER = 0.9  # that decides a claim


@dataclass(frozen=True)
class Limits:
    """What the command line allows, as it is written there."""

    budget: str | None = None
    decide: tuple[str, ...] = ()
    seeds_up_to: int = 5
    gpus: int = 1
    slot: str | None = None


@dataclass(frozen=True)
class Advice:
    """A choice among what a plan offers, and its schedule; `unit` is that of all costs, hours or epochs."""

    plan: Plan
    experiments: tuple[str, ...]
    offer: Offer
    choice: Choice
    parts: list[Part]
    gpus: int
    unit: str

    def runs(self) -> pd.DataFrame:
        """A line for each run to start or continue, with its seeds and what is left of them."""
        left = {job.name: job.hours for job in self.offer.jobs}
        found: dict[str, list[str]] = {}
        for job in self.choice.jobs:
            found.setdefault(Path(job).parts[1], []).append(job)
        differs = words({run: self.plan.runs[run] for run, _ in runs(self.plan, self.experiments)})
        return pd.DataFrame(
            {
                "run": run,
                "differs in": shortened(differs[run]),
                "seeds": ", ".join(Path(job).name[1:] for job in jobs),
                f"{self.unit} left": round(sum(left[job] for job in jobs), None if self.unit == "epochs" else 2),
                "for": ", ".join(name for name in self.plan.experiments_of(run) if name in self.experiments),
            }
            for run, jobs in found.items()
        )

    def claims(self) -> pd.DataFrame:
        """A line for each claim that can then be tested."""
        return pd.DataFrame(
            {"claim": each.claim, "seeds": each.seeds, "power": round(each.power, 2)} for each in self.choice.trials
        )

    def summary(self) -> str:
        """What it costs and what it shows, in a sentence each."""
        several = f", on {self.gpus} GPUs {plain(makespan(self.parts))} from start to end" if self.gpus > 1 else ""
        cost = f"{len(self.choice.jobs)} trainings, {plain(self.choice.hours)} {self.unit}{several}."
        claims = len({trial.claim for trial in self.offer.trials})
        shows = [f"{len(self.choice.numbers)} of {len(self.offer.numbers)} published numbers can be compared"]
        shows = [*shows * bool(self.offer.numbers), f"{len(self.choice.trials)} of {claims} claims can be tested"]
        holding = sum(trial.power for trial in self.choice.trials)
        return f"{cost} Then {' and '.join(shows)}, of which {holding:.1f} hold on average if the paper is right."

    def names(self) -> dict[str, tuple[str, str]]:
        """For the chart, by job: its method, and what tells it from others of the method."""
        rows = {row.name: row for rows in self.plan.rows.values() for row in rows if row.run and row.method}
        found = {}
        for job in self.choice.jobs:
            _, run, seed = Path(job).parts
            method = self.plan.config.methods[rows[run].method].label
            found[job] = method, f"z{rows[run].run.encoder.dim} e{rows[run].run.epochs} {seed}"
        return found


def advise(plan: Plan, experiments: Sequence[str], limits: Limits, costs: Costs | None = None) -> Advice:
    """The best choice within a budget, or the cheapest one that decides claims.

    `experiments` are the results that count. Costs are hours as calibrated, or epochs without a calibration or where
    the limits are in epochs. Raises UserError for what cannot be chosen.
    """
    plan = with_seeds(plan, limits.seeds_up_to)
    (budget, budget_unit), (slot, slot_unit) = amount(limits.budget, "--budget"), amount(limits.slot, "--slot")
    known = costs and hours_left(plan, experiments, costs)
    hours = known and {which: known(*which) for which in runs(plan, experiments)}
    measured = bool(hours) and None not in hours.values()
    unit = "epochs" if not measured or "epochs" in (budget_unit, slot_unit) else "hours"
    for option, its in (("--budget", budget_unit), ("--slot", slot_unit)):
        if its not in (unit, None):
            why = "the other limit is" if measured else "not everything was measured on such a device"
            raise UserError(f"{option}: must be in epochs, as in 6000epochs, because {why}; {MEASURE} measures")
    offered = offer(plan, experiments, (lambda *run: hours[run]) if unit == "hours" else epochs_left(plan))
    choice = _decided(plan, experiments, offered, limits.decide) if limits.decide else _spent(offered, budget, unit)
    if budget is not None and choice.hours > budget:
        raise UserError(f"--budget: {plain(budget)} {unit} is too little: to decide this takes {plain(choice.hours)}")
    chosen = [job for job in offered.jobs if job.name in choice.jobs]
    parts = schedule(chosen, limits.gpus, slot)
    return Advice(plan, tuple(experiments), offered, choice, parts, limits.gpus, unit)


def amount(text: str | None, option: str) -> tuple[float, str] | tuple[None, None]:
    """A limit and its unit, hours or epochs: ``40h``, ``90m``, ``2d``, ``6000epochs``. Raises UserError."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d+(?:\.\d*)?) ?(h|m|d|epochs)", text)
    if not found or not float(found[1]):
        raise UserError(f"{option} {text}: must be a time such as 40h, 90m or 2d, or else epochs, as in 6000epochs")
    number, unit = float(found[1]), found[2]
    return (number, "epochs") if unit == "epochs" else (number * HOURS[unit], "hours")


def plain(hours: float) -> str:
    """A cost with three digits at least, and no exponent."""
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.3g}"


def _spent(offered: Offer, most: float, unit: str) -> Choice:
    cheapest_use = least(*offered)
    if cheapest_use is None:
        raise UserError("nothing is left to run: no published number or claim of these results needs a training")
    if cheapest_use > most:
        raise UserError(
            f"--budget: {plain(most)} {unit} is too little: the cheapest useful runs take {plain(cheapest_use)}"
        )
    return choose(*offered, most)


def _decided(plan: Plan, experiments: Sequence[str], offered: Offer, claims: Sequence[str]) -> Choice:
    """The cheapest choice that decides claims, with everything else that it shows."""
    trials = [trial for claim in claims for trial in _of_claim(claim, plan, experiments, offered.trials)]
    for trial in trials:
        most = max(each.power for each in trials if each.claim == trial.claim)
        if most < POWER:
            seeds = max(each.seeds for each in trials)
            advice = f"{seeds} seeds give it a power of {most:.2f}, not {POWER}: try --seeds-up-to {2 * seeds}"
            raise UserError(f"--decide '{trial.claim}': {advice}")
    choice = cheapest(offered.jobs, trials, POWER)
    if not choice.jobs:
        raise UserError("nothing is left to run: what is there decides these claims")
    return shown(offered.jobs, choice.jobs, offered.numbers, offered.trials)


def _of_claim(claim: str, plan: Plan, experiments: Sequence[str], trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the claim with this text, which begins with its result if several make it."""
    every = [(name, text) for name in experiments for text in plan.config.experiments[name].claims]
    found = [f"{name}: {text}" for name, text in every if claim in (text, f"{name}: {text}")]
    if not found:
        raise UserError(f"--decide: unknown claim '{claim}', {nearest(claim, (text for _, text in every))}")
    if len(found) > 1:
        raise UserError(f"--decide: several results claim this; say {' or '.join(map(repr, found))}")
    of_claim = [trial for trial in trials if trial.claim == found[0]]
    if not of_claim:
        raise UserError(
            f"--decide '{claim}': seeds cannot decide it, as it is about a rank correlation or released weights"
        )
    return of_claim
