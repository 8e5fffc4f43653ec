"""The time limit of a Slurm job: how much of it is left, and how to requeue the job."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from issl.errors import UserError
from issl.jobs.slurm import ask, duration


class Stopped(UserError):
    """Training was interrupted and has saved a checkpoint; `walltime_over` if only the time limit was the reason."""

    def __init__(self, message: str, walltime_over: bool):
        super().__init__(message)
        self.walltime_over = walltime_over


def seconds_left() -> float | None:
    """Seconds until Slurm ends this job; None outside Slurm, without a limit, or if Slurm does not answer."""
    job = os.environ.get("SLURM_JOB_ID")
    return duration(ask("squeue", "--noheader", "--jobs", job, "--format", "%L").text) if job else None


def requeue() -> str | None:
    """Requeues this Slurm job, after which Slurm ends the process; returns the reason if that is refused."""
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
    """Records these signals in `stop_requested` instead of ending the process; restores the old handlers at exit."""
    before = {number: signal.signal(number, stop_requested.ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
