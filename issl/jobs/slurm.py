"""Queries to Slurm."""

import re
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

from issl.errors import UserError

PATIENCE = 30  # seconds that a busy scheduler may need to answer
FIELDS = "%P|%a|%l"


class Answer(NamedTuple):
    """Output of a command, empty if it failed; `failed` is empty, or says why."""

    text: str
    failed: str


def ask(*command: str, patience: float = PATIENCE) -> Answer:
    """Runs a command of the scheduler."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except FileNotFoundError:
        return Answer("", f"no command {command[0]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer("", f"{command[0]} does not answer: {error}")
    if done.returncode:
        return Answer("", done.stderr.strip() or f"{command[0]} ended with status {done.returncode}")
    return Answer(done.stdout, "")


class Partition(NamedTuple):
    """A partition and its limits."""

    name: str
    default: bool
    up: bool
    minutes: float | None  # longest job; None for no limit


def partitions() -> list[Partition]:
    """Every partition. Raises UserError if Slurm does not answer."""
    answer = ask("sinfo", "--noheader", "--summarize", "--format", FIELDS)
    if answer.failed:
        raise UserError(f"Slurm does not answer ({answer.failed}): run this where you submit jobs")
    return [_partition(line) for line in answer.text.splitlines() if line.count("|") == FIELDS.count("|")]


def _partition(line: str) -> Partition:
    name, state, limit = (part.strip() for part in line.split("|"))
    seconds = duration(limit)
    return Partition(name.rstrip("*"), name.endswith("*"), state == "up", None if seconds is None else seconds / 60)


def duration(text: str) -> float | None:
    """Seconds in Slurm's [[days-]hours:]minutes:seconds; None for other text, such as UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds


def accounting() -> str:
    """Why `sacct` cannot tell how jobs ended; empty if it can."""
    if not shutil.which("sacct"):
        return "sacct is not installed"
    answer = ask("sacct", "--allocations", "--noheader", "--starttime", "now")
    return answer.failed


def ask_squeue_without_accounting(settings: Any) -> None:
    """Has Snakemake's Slurm plugin ask squeue how jobs ended where sacct does not know: it would wait forever.

    `settings` are those of Snakemake's executor; others than the plugin's have no such command.
    """
    if getattr(settings, "status_command", None) == "sacct" and (failed := accounting()):
        print(f"sacct cannot tell how jobs end ({failed}); using squeue", file=sys.stderr)
        settings.status_command = "squeue"


def remembers() -> float | None:
    """Seconds for which squeue still lists a finished job; None if Slurm does not say."""
    match = re.search(r"^MinJobAge\s*=\s*(\d+)", ask("scontrol", "show", "config").text, re.MULTILINE)
    return float(match[1]) if match else None
