"""The answers of `issl plan --budget` and `--decide`: which runs and seeds, what they show, and their schedule."""

import math
import re
from collections import Counter
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from issl.config.plan import Plan
from issl.errors import UserError, nearest
from issl.planning import state
from issl.planning.budget import Choice, Trial, cheapest, choose, curve, least, shown
from issl.planning.choices import Offer, epochs_left, offer, runs, with_seeds
from issl.planning.cost import Costs
from issl.planning.listing import hours_left, words
from issl.planning.page import MEASURE, shortened
from issl.planning.schedule import Part, makespan, schedule

HOURS = {"h": 1.0, "m": 1 / 60, "d": 24.0}
POWER = 0.9  # that decides a claim
SEEDS, MOST_SEEDS = 5, 100  # of a run, unless the command line allows more, and at most
HASH = 4  # letters of a run's id, where its method and size stand for several
SHORT = 2.0  # hours: shorter plans are shown in minutes
UNMEASURED = f"Nothing was measured on such a device, so hours are unknown; {MEASURE} measures."
IN_EPOCHS = "Costs are epochs of pretraining, without probes: nothing was measured here, or a limit is in epochs."


@dataclass(frozen=True)
class Limits:
    """What the command line allows, as it is written there."""

    budget: str | None = None
    decide: tuple[str, ...] = ()
    seeds_up_to: int = SEEDS
    gpus: int = 1
    slot: str | None = None


@dataclass(frozen=True)
class Advice:
    """A choice among what a plan offers, and its schedule; `unit` is that of all costs, hours or epochs.

    `pulled` are the jobs of the choice whose training a source has.
    """

    plan: Plan
    experiments: tuple[str, ...]
    offer: Offer
    choice: Choice
    parts: list[Part]
    gpus: int
    unit: str
    pulled: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, float]:
        """The unit of costs for people, and what a cost is multiplied with."""
        return readable(self.unit, self.choice.hours)

    def runs(self) -> pd.DataFrame:
        """A line for each run to start or continue, with its seeds and what is left of them."""
        unit, factor = self.shown
        left = {job.name: factor * job.hours for job in self.offer.jobs}
        found: dict[str, list[str]] = {}
        for job in self.choice.jobs:
            found.setdefault(Path(job).parts[1], []).append(job)
        differs = words({run: self.plan.runs[run] for run, _ in runs(self.plan, self.experiments)})
        return pd.DataFrame(
            {
                "run": run,
                "differs in": shortened(differs[run]),
                "seeds": ", ".join(Path(job).name[1:] for job in jobs),
                f"{unit} left": float(plain(sum(left[job] for job in jobs))),
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
        unit, factor = self.shown
        whole = plain(factor * makespan(self.parts))
        several = f", on {self.gpus} GPUs {whole} from start to end" if self.gpus > 1 else ""
        trainings = len(set(self.choice.jobs) - set(self.pulled))
        pulled = f" and {len(self.pulled)} to be pulled" if self.pulled else ""
        cost = f"{trainings} trainings{pulled}, {plain(factor * self.choice.hours)} {unit}{several}."
        claims = len({trial.claim for trial in self.offer.trials})
        shows = [f"{len(self.choice.numbers)} of {len(self.offer.numbers)} published numbers can be compared"]
        shows = [*shows * bool(self.offer.numbers), f"{len(self.choice.trials)} of {claims} claims can be tested"]
        holding = sum(trial.power for trial in self.choice.trials)
        return f"{cost} Then {' and '.join(shows)}, of which {holding:.1f} hold on average if the paper is right."

    def names(self) -> dict[str, tuple[str, str]]:
        """For the chart, by job: its method, and what tells it from others of the method."""
        rows = {row.name: row for rows in self.plan.rows.values() for row in rows if row.run and row.method}
        chosen = {job: rows[Path(job).parts[1]] for job in self.choice.jobs}
        methods = {job: self.plan.config.methods[row.method].label for job, row in chosen.items()}
        sizes = {job: f"z{row.run.encoder.dim} e{row.run.epochs}" for job, row in chosen.items()}
        runs = {(methods[job], sizes[job], Path(job).parts[1]) for job in chosen}
        number = Counter((method, size) for method, size, _ in runs)
        hashes = {
            job: f" {row.name[-HASH:]}" if number[methods[job], sizes[job]] > 1 else "" for job, row in chosen.items()
        }
        return {job: (methods[job], f"{sizes[job]}{hashes[job]} {Path(job).name}") for job in chosen}

    def timetable(self) -> pd.DataFrame:
        """A line for each part of a training, in the order in which they start; times in `unit`."""
        return pd.DataFrame(
            {
                "gpu": part.gpu + 1,
                "start": round(part.start, 4),
                "end": round(part.end, 4),
                "run": Path(part.job).parts[1],
                "seed": int(Path(part.job).name[1:]),
                "part": part.number,
                "parts": part.parts,
                "unit": self.unit,
            }
            for part in self.parts
        )

    def as_json(self, commands: Sequence[str]) -> dict[str, Any]:
        """The same for programs; costs in `unit`."""
        return {
            "preset": self.plan.preset,
            "unit": self.unit,
            "cost": self.choice.hours,
            "trainings": self.timetable().to_dict("records"),
            "pulled": list(self.pulled),
            "numbers": [number.name for number in self.choice.numbers],
            "claims": [{"claim": each.claim, "seeds": each.seeds, "power": each.power} for each in self.choice.trials],
            "commands": [command.replace("\\\n    ", "") for command in commands],
        }


def advise(
    plan: Plan,
    experiments: Sequence[str],
    limits: Limits,
    costs: Costs | None = None,
    pulled: Collection[tuple[str, int]] = (),
) -> Advice | None:
    """The best choice within a budget, or the cheapest one that decides claims.

    `experiments` are the results that count; `pulled` are runs and seeds that sources have, whose training costs
    nothing. Costs are hours as calibrated, or epochs without a calibration or where the limits are in epochs. None if a
    budget is in hours and these are not known: `outlook` then has the choices. Raises UserError for what cannot be
    chosen.
    """
    plan = with_seeds(plan, limits.seeds_up_to)
    (budget, budget_unit), (slot, slot_unit) = amount(limits.budget, "--budget"), amount(limits.slot, "--slot")
    known = costs and hours_left(plan, experiments, costs, pulled)
    hours = known and {which: known(*which) for which in runs(plan, experiments)}
    measured = bool(hours) and None not in hours.values()
    if budget_unit == "hours" and not measured and not limits.decide:
        return None
    unit = "epochs" if not measured or "epochs" in (budget_unit, slot_unit) else "hours"
    for option, its in (("--budget", budget_unit), ("--slot", slot_unit)):
        if its not in (unit, None):
            why = "the other limit is" if measured else "not everything was measured on such a device"
            raise UserError(f"{option}: must be in epochs, as in 6000epochs, because {why}; {MEASURE} measures")
    offered = offer(plan, experiments, (lambda *run: hours[run]) if unit == "hours" else epochs_left(plan, pulled))
    choice = _decided(plan, experiments, offered, limits) if limits.decide else _spent(offered, budget, unit)
    if budget is not None and choice.hours > budget:
        raise UserError(f"--budget: {plain(budget)} {unit} is too little: to decide this takes {plain(choice.hours)}")
    chosen = [job for job in offered.jobs if job.name in choice.jobs]
    parts = schedule(chosen, limits.gpus, slot)
    return Advice(plan, tuple(experiments), offered, choice, parts, limits.gpus, unit, _pulled(plan, choice, pulled))


def _pulled(plan: Plan, choice: Choice, pulled: Container[tuple[str, int]]) -> tuple[str, ...]:
    """The jobs of a choice that a workflow pulls."""
    jobs = {job: (Path(job).parts[1], int(Path(job).name[1:])) for job in sorted(choice.needs)}
    return tuple(job for job, which in jobs.items() if which in pulled and state.of_run(plan, *which).open)


def outlook(
    plan: Plan, experiments: Sequence[str], limits: Limits, pulled: Container[tuple[str, int]] = ()
) -> pd.DataFrame:
    """A line for each of some budgets, in epochs: what the best choice within it shows."""
    plan = with_seeds(plan, limits.seeds_up_to)
    choices = {choice.jobs: choice for _, choice in curve(*offer(plan, experiments, epochs_left(plan, pulled)))}
    return pd.DataFrame(
        {
            "epochs": math.ceil(choice.hours),
            "trainings": len(choice.jobs),
            "published numbers": len(choice.numbers),
            "claims": len(choice.trials),
            "expected to hold": round(sum(trial.power for trial in choice.trials), 1),
        }
        for choice in choices.values()
        if choice.jobs
    )


def amount(text: str | None, option: str) -> tuple[float, str] | tuple[None, None]:
    """A limit and its unit, hours or epochs: ``40h``, ``90m``, ``2d``, ``6000epochs``. Raises UserError."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d+(?:\.\d*)?) ?(h|m|d|epochs)", text)
    if not found or not float(found[1]):
        raise UserError(f"{option} {text}: must be a time such as 40h, 90m or 2d, or else epochs, as in 6000epochs")
    number, unit = float(found[1]), found[2]
    return (number, "epochs") if unit == "epochs" else (number * HOURS[unit], "hours")


def readable(unit: str, most: float) -> tuple[str, float]:
    """The unit in which people read costs up to `most`, and what a cost is multiplied with."""
    return ("minutes", 60.0) if unit == "hours" and most < SHORT else (unit, 1.0)


def plain(hours: float) -> str:
    """A cost with three digits at least, and no exponent."""
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.3g}"


def _spent(offered: Offer, most: float, unit: str) -> Choice:
    cheapest_use = least(*offered)
    if cheapest_use is None:
        raise UserError("nothing is left to run: no published number or claim of these results needs a training here")
    if cheapest_use > most:
        raise UserError(
            f"--budget: {plain(most)} {unit} is too little: the cheapest useful runs take {plain(cheapest_use)}"
        )
    return choose(*offered, most)


def _decided(plan: Plan, experiments: Sequence[str], offered: Offer, limits: Limits) -> Choice:
    """The cheapest choice that decides claims, with everything else that it shows."""
    names = [_full_name(claim, plan, experiments, offered.trials) for claim in limits.decide]
    trials = [trial for trial in offered.trials if trial.claim in names]
    for name in names:
        most = max(trial.power for trial in trials if trial.claim == name)
        if most < POWER:
            seeds = f"{limits.seeds_up_to} seeds give it a power of {most:.2f}, not {POWER}"
            raise UserError(f"--decide '{name}': {seeds}: {_more_seeds(plan, name)}")
    choice = cheapest(offered.jobs, trials, POWER)
    if not choice.jobs:
        raise UserError("nothing is left to train: what is there, or to be pulled, decides these claims")
    return shown(offered.jobs, choice.jobs, offered.numbers, offered.trials)


def _more_seeds(plan: Plan, name: str) -> str:
    """What to do about a claim that so few seeds cannot decide."""
    many = with_seeds(plan, MOST_SEEDS)
    trials = [
        trial for trial in offer(many, [name.partition(": ")[0]], epochs_left(many)).trials if trial.claim == name
    ]
    enough = min((trial.seeds for trial in trials if trial.power >= POWER), default=None)
    if enough is None:
        return f"{MOST_SEEDS} would give it {max(trial.power for trial in trials):.2f}, so seeds alone do not decide it"
    return f"it needs --seeds-up-to {enough}"


def _full_name(claim: str, plan: Plan, experiments: Sequence[str], trials: Sequence[Trial]) -> str:
    """The claim with this text, which begins with its result if several make it, as trials name it."""
    every = [(name, text) for name in experiments for text in plan.config.experiments[name].claims]
    found = [f"{name}: {text}" for name, text in every if claim in (text, f"{name}: {text}")]
    can_be_decided = {trial.claim for trial in trials}
    if not found:
        known = dict.fromkeys(text for name, text in every if f"{name}: {text}" in can_be_decided)
        raise UserError(f"--decide: unknown claim '{claim}', {nearest(claim, known)}")
    if len(found) > 1:
        raise UserError(f"--decide: several results claim this; say {' or '.join(map(repr, found))}")
    if found[0] not in can_be_decided:
        raise UserError(
            f"--decide '{claim}': seeds cannot decide it, as it is about a rank correlation or released weights"
        )
    return found[0]
