"""What a workflow that runs, or was left, has done: each training, and how many results there are."""

import re
from collections import Counter
from collections.abc import Container, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from issl.config.plan import Plan
from issl.jobs import slurm
from issl.jobs.records import read_record
from issl.planning import state
from issl.planning.listing import PULLED, needed

COLUMNS = ("run", "seed", "state", "epoch", "loss", "images/s", "time left", "log")
WAITING = "not started"
TO_COME = (WAITING, PULLED)


class Training(NamedTuple):
    """A pretraining with one seed. What has not begun has no epoch, loss, pace or log."""

    run: str
    seed: int
    state: str
    epoch: str = ""
    loss: float | None = None
    images_per_second: int | None = None
    left: str = ""
    log: str = ""


def trainings(plan: Plan, experiments: Sequence[str], pulled: Container[tuple[str, int]] = ()) -> list[Training]:
    """Every training that experiments need: done, running, queued, failed, stopped or not started.

    One that has not started is to be pulled if it is in `pulled`, the runs and seeds that sources have.
    """
    queue = _queue()
    found = needed(plan, experiments)
    every = [_training(plan, run, seed, queue) for run in found if run in plan.runs for seed in found[run].seeds]
    return [
        each._replace(state=PULLED) if each.state == WAITING and (each.run, each.seed) in pulled else each
        for each in every
    ]


def summary(plan: Plan, experiments: Sequence[str], found: Sequence[Training]) -> str:
    """How many trainings are in each state, and how many of the scores exist."""
    number = Counter(each.state.partition(":")[0] for each in found)
    counts = ", ".join(f"{count} {words}" for words, count in number.items())
    scores = [score for each in needed(plan, experiments).values() for score in each.scores]
    done = sum(score.path.exists() for score in scores)
    return f"trainings: {counts or 'none'}; scores: {done} of {len(scores)}"


def _training(plan: Plan, run: str, seed: int, queue: dict[str, str]) -> Training:
    found, folder = state.of_run(plan, run, seed), Path(plan.root, "runs", run, f"s{seed}")
    log = _log(plan, run, seed)
    if found.done:
        return Training(run, seed, "done", log=log)
    progress = _progress(folder / "checkpoints/progress.json")
    job = queue.get(f"rule_pretrain_wildcards_{plan.root.replace('/', '_')}_{run}_{seed}", "")
    runs = found.runs or job == "running"
    words = "running" if runs else job or _ended(log, folder)
    if not progress:
        return Training(run, seed, words, log=log)
    pace = progress["seconds"] / progress["epoch"]
    left = str(timedelta(seconds=round(pace * (progress["epochs"] - progress["epoch"])))) if runs else ""
    epoch = f"{progress['epoch']}/{progress['epochs']}"
    return Training(run, seed, words, epoch, progress["loss"], round(progress["images_per_second"]), left, log)


def _progress(path: Path) -> dict[str, Any]:
    keys = ("epoch", "epochs", "seconds", "loss", "images_per_second")
    return read_record(path, keys=keys) if path.exists() else {}


def _log(plan: Plan, run: str, seed: int) -> str:
    """The log of the last attempt."""
    folder = Path(plan.root, "logs/pretrain")
    found = [path for path in folder.glob(f"{run}-s{seed}.*") if path.suffix == ".log"]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else ""


def _ended(log: str, folder: Path) -> str:
    """How a training that does not run ended: its log's last line, if that is an error; removed, it did not begin."""
    last = next(iter(reversed(Path(log).read_text(encoding="utf-8", errors="replace").splitlines())), "") if log else ""
    if match := re.search(r"error: (.*)", last):
        return f"failed: {match[1]}"
    return "stopped" if folder.exists() else WAITING


def _queue() -> dict[str, str]:
    """State in Slurm of my jobs, by the comment that Snakemake's plugin gives them; empty without Slurm."""
    lines = slurm.ask("squeue", "--me", "--noheader", "--format", "%T|%k", patience=5).text.splitlines()
    jobs = (line.partition("|") for line in lines)
    return {
        comment.strip(): "running" if words == "RUNNING" else f"queued: {words.lower()} in Slurm"
        for words, _, comment in jobs
    }
