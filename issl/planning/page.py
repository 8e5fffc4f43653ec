"""A plan as people and programs read it: a table of runs, what is left, and the command that starts it."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from issl.config.layers import PAPER
from issl.config.plan import Plan
from issl.planning.asked import by_default, of_path
from issl.planning.calibration import Estimate
from issl.planning.cost import Costs, total
from issl.planning.listing import PULLED, Entry

MEASURE = "issl plan --measure"
MOST = 3  # settings of a run that the table shows


def columns(costs: Costs | None) -> list[str]:
    """Names of the table's columns."""
    return ["run", "differs in", "seeds", "state", "for", "hours left" if costs else "epochs left"]


def rows(entries: Sequence[Entry], costs: Costs | None) -> list[tuple[object, ...]]:
    """Of each entry the values of `columns`."""
    return [
        (
            entry.name,
            shortened(entry.differs),
            ", ".join(map(str, entry.states)),
            entry.state,
            ", ".join(entry.users),
            hours(entry.left) if costs else round(entry.epochs_left),
        )
        for entry in entries
    ]


def shortened(words: str) -> str:
    """The first settings of many; `issl show` has the others."""
    every = words.split(", ")
    more = f" and {len(every) - MOST} more" if len(every) > MOST else ""
    return ", ".join(every[:MOST]) + more


def hours(estimate: Estimate | None) -> float | None:
    """The median in hours, for a table."""
    return None if estimate is None else float(f"{estimate.median / 3600:.3g}")


def summary(plan: Plan, entries: Sequence[Entry], costs: Costs | None) -> str:
    """What is needed, what is shared, and what is left, in one line."""
    n_jobs = sum(len(entry.states) for entry in entries)
    done = sum(words == "done" for entry in entries for words in entry.states.values())
    shared = sum(len(plan.experiments_of(entry.name)) > 1 for entry in entries)
    pulled = sum(words == PULLED for entry in entries for words in entry.states.values())
    state = f"{done} done" + f", {pulled} to be pulled" * bool(pulled)
    serve = f"{counted(shared, 'run')} serve{'s' * (shared == 1)} several results"
    what = f"{counted(len(entries), 'run')}, {n_jobs} with their seeds: {state}; {serve}"
    return f"{what}. Left: {left(plan, entries, costs)}"


def complete(entries: Sequence[Entry]) -> bool:
    """Whether nothing is left to train or to score."""
    return all(words == "done" for entry in entries for words in entry.states.values())


def nothing_left(entries: Sequence[Entry], command: str) -> str:
    """What there is to say of a plan that is complete, in one line."""
    n_jobs = sum(len(entry.states) for entry in entries)
    what = f"{counted(len(entries), 'run')}, {n_jobs} with their seeds, trained and scored (issl runs lists them)"
    return f"nothing is left: {what}; figures and tables: {command}"


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as "1 run" or "2 runs"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def left(plan: Plan, entries: Sequence[Entry], costs: Costs | None) -> str:
    """The time that is left, or without a calibration the epochs."""
    if costs is None:
        epochs = sum(entry.epochs_left for entry in entries)
        return f"{epochs:,.0f} epochs; hours are unknown, as nothing was measured on such a device: {MEASURE}"
    rest, whole = (
        total(time for time in times if time) for times in zip(*[(entry.left, entry.whole) for entry in entries])
    )
    of = f", {1 - rest.median / whole.median:.0%} is done" if 0 < rest.median < whole.median else ""
    unknown = sum(entry.unknown for entry in entries)
    return f"{amount(rest, unit(plan))} on {costs.name}{of}{without(unknown)}"


def without(jobs: int) -> str:
    """What a total leaves out."""
    return f", without {counted(jobs, 'job')} of which none was measured" if jobs else ""


def amount(time: Estimate, unit: str) -> str:
    """A time for people: "1.2 GPU-hours (1.5 in one of ten cases)", or in minutes if it is short."""
    if not time.median:
        return f"0 {unit}-hours"
    per, name = (3600, "hours") if time.median >= 3600 else (60, "minutes")
    median, ninety = (f"{seconds / per:,.3g}" for seconds in time)
    return f"{median} {unit}-{name} ({ninety} in one of ten cases)"


def unit(plan: Plan) -> str:
    """Whose hours a plan costs: a GPU's, or on a CPU those of jobs, of which several may run at once."""
    return "job" if plan.config.execution.device == "cpu" else "GPU"


def start(
    plan: Plan,
    experiments: Sequence[str],
    configfiles: Sequence[object],
    settings: Sequence[str],
    asked: Sequence[str] = (),
) -> str:
    """The command that makes these experiments; `asked` are the targets of the command line, of every preset."""
    paths = [path for path in map(os.path.normpath, asked) if of_path(plan, path)]
    if paths and {name for path in paths for name in of_path(plan, path)} == {*experiments}:
        targets = paths
    elif list(experiments) == by_default(plan):
        targets = ["all" if plan.preset == PAPER else plan.preset]
    else:
        targets = [target for name in experiments for target in plan.files(name)[:1] or _records(plan, name)]
    return shlex.join(["snakemake", *targets, *options(plan, configfiles, settings)])


def options(plan: Plan, configfiles: Sequence[object], settings: Sequence[str]) -> list[str]:
    """Of a command that starts jobs of a plan: where they run, and the config."""
    clone = _elsewhere(configfiles)
    program = ["-s", str(clone / "Snakefile")] if clone else []
    profile = str(clone / "profiles/slurm") if clone else "slurm"
    where = ["--cores", "all"] if plan.config.execution.device == "cpu" else ["--profile", profile]
    files = ["--configfile", *map(str, configfiles)] if configfiles else []
    return [*program, *where, *files, *(["--config", *settings] if settings else [])]


def _elsewhere(configfiles: Sequence[object]) -> Path | None:
    """The folder of the workflow, if it is not the current one: that of the first config."""
    folder = Path(str(configfiles[0])).parent if configfiles else Path()
    return folder if not Path("Snakefile").exists() and (folder / "Snakefile").exists() else None


def _records(plan: Plan, experiment: str) -> list[str]:
    """Of an experiment without a figure or table, the records of its runs."""
    return [f"{plan.root}/{row.encoder(seed)}/run.json" for row in plan.rows[experiment] for seed in row.seeds]


def as_json(plan: Plan, entries: Sequence[Entry], costs: Costs | None, command: str) -> dict[str, Any]:
    """The same for programs; times in seconds."""

    def time(estimate: Estimate | None) -> dict[str, float] | None:
        return None if estimate is None else estimate._asdict()

    return {
        "preset": plan.preset,
        "device": costs and costs.device,
        "runs": [
            {
                "root": entry.root,
                "run": entry.name,
                "differs": entry.differs,
                "epochs": entry.epochs,
                "states": {str(seed): words for seed, words in entry.states.items()},
                "results": list(entry.users),
                "epochs_left": entry.epochs_left,
                "seconds_left": time(entry.left),
                "seconds": time(entry.whole),
                "jobs_unknown": entry.unknown,
            }
            for entry in entries
        ],
        "start": command,
    }
