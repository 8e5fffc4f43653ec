"""The time that a cluster gives to a job: how much is left of it, and how to ask for another slot."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from issl.errors import UserError

PATIENCE = 30  # seconds that a busy scheduler may take to answer


class Stopped(UserError):
    """A training that was told to stop has saved itself; `out_of_time` says that its slot ends."""

    def __init__(self, message: str, out_of_time: bool):
        super().__init__(message)
        self.out_of_time = out_of_time


def seconds_left() -> float | None:
    """Seconds until Slurm ends this job; None outside Slurm, without a limit, or where Slurm does not answer."""
    job = os.environ.get("SLURM_JOB_ID")
    answer = _ask("squeue", "--noheader", "--jobs", job, "--format", "%L") if job else None
    return duration(answer.stdout) if answer and answer.returncode == 0 else None


def duration(text: str) -> float | None:
    """Seconds of Slurm's [[days-]hours:]minutes:seconds; None for what is not a time, such as UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds


def requeue() -> str | None:
    """Puts this Slurm job back into the queue, which ends the process soon; says why where that is refused."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return "not a Slurm job"
    answer = _ask("scontrol", "requeue", job)
    if answer is None:
        return "scontrol does not answer"
    return answer.stderr.strip() or "refused" if answer.returncode else None


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None


class Wishes:
    """Whether a signal has asked this process to stop."""

    def __init__(self):
        self.signal: str | None = None

    def ask(self, number: int, _: object = None) -> None:
        self.signal = signal.Signals(number).name


@contextmanager
def listening(wishes: Wishes, *numbers: signal.Signals) -> Iterator[None]:
    """Notes these signals in `wishes` instead of ending the process; what was before comes back afterwards."""
    before = {number: signal.signal(number, wishes.ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
