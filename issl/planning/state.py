"""How far each job of a plan is, by the files that it leaves."""

from pathlib import Path
from typing import NamedTuple

from issl.config.plan import RUN_FILES, Plan
from issl.jobs.locks import held
from issl.jobs.records import read_record


class State(NamedTuple):
    """A pretraining with one seed: done, or the fraction that its newest checkpoint has, and whether it runs now."""

    done: bool
    saved: float
    runs: bool

    @property
    def open(self) -> bool:
        """Whether a workflow that starts now would train it, or pull it where a source has it."""
        return not self.done and not self.runs

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
    if all((folder / name).exists() for name in RUN_FILES if not name.endswith("/")):
        return State(done=True, saved=1.0, runs=False)
    note, lock = folder / "checkpoints/saved.json", folder / ".run.lock"
    saved = read_record(note, keys=("step", "steps")) if note.exists() else {"step": 0, "steps": 1}
    return State(done=False, saved=saved["step"] / saved["steps"], runs=bool(lock.exists() and held(lock)))
