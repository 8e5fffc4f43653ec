"""How far each job of a plan is, by the files that it leaves."""

from pathlib import Path
from typing import NamedTuple

from issl.config.plan import Plan
from issl.jobs.locks import held
from issl.jobs.records import read_record
from issl.spec.probe import READS_IMAGES


class State(NamedTuple):
    """A pretraining with one seed: done, or the fraction that its newest checkpoint has, and whether it runs now."""

    done: bool
    saved: float
    runs: bool

    def words(self, epochs: int) -> str:
        """For people: "done", "running", "resumes at epoch 120 of 300" or "missing"."""
        if self.done:
            return "done"
        if self.runs:
            return "running"
        return f"resumes at epoch {int(self.saved * epochs)} of {epochs}" if self.saved else "missing"


def of_run(plan: Plan, run: str, seed: int) -> State:
    """The state of a pretraining. Raises UserError if its notes cannot be read."""
    folder = Path(plan.root, "runs", run, f"s{seed}")
    if all((folder / name).exists() for name in ("encoder.safetensors", "history.csv", "run.json")):
        return State(done=True, saved=1.0, runs=False)
    note, lock = folder / "checkpoints/saved.json", folder / ".run.lock"
    saved = read_record(note, keys=("step", "steps")) if note.exists() else {"step": 0, "steps": 1}
    return State(done=False, saved=saved["step"] / saved["steps"], runs=bool(lock.exists() and held(lock)))


def scored(plan: Plan, encoder: str, encoding: str, score: str) -> bool:
    """Whether a grid of probes with one seed, such as "linear-1a2b3c4d-s1", has been scored."""
    return Path(plan.root, encoder, "probes", encoding, f"{score}.csv").exists()


def reads_features(plan: Plan, score: str) -> bool:
    """Whether the probes of a score read features; others encode images themselves."""
    return plan.grids[score.rpartition("-s")[0]].kind not in READS_IMAGES
