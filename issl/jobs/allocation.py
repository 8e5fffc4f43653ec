"""The time that a cluster gives to a job: how much is left of it, and how to ask for another slot."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from issl.errors import UserError
from issl.jobs.slurm import ask, duration


class Stopped(UserError):
    """A training that was told to stop has saved itself; `walltime_over` says that its slot ends."""

    def __init__(self, message: str, walltime_over: bool):
        super().__init__(message)
        self.walltime_over = walltime_over


def seconds_left() -> float | None:
    """Seconds until Slurm ends this job; None outside Slurm, without a limit, or where Slurm does not answer."""
    job = os.environ.get("SLURM_JOB_ID")
    return duration(ask("squeue", "--noheader", "--jobs", job, "--format", "%L").text) if job else None


def requeue() -> str | None:
    """Puts this Slurm job back into the queue, which ends the process soon; says why where that is refused."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return "not a Slurm job"
    return ask("scontrol", "requeue", job).failed or None


class StopRequest:
    """Whether a signal has asked this process to stop."""

    def __init__(self):
        self.signal: str | None = None

    def ask(self, number: int, _: object = None) -> None:
        self.signal = signal.Signals(number).name


@contextmanager
def handling_signals(stop_requested: StopRequest, *numbers: signal.Signals) -> Iterator[None]:
    """Notes these signals in `stop_requested` instead of ending the process; what was before comes back afterwards."""
    before = {number: signal.signal(number, stop_requested.ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
