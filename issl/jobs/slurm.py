"""What Slurm says of itself and of a job."""

import re
import shutil
import subprocess
from typing import NamedTuple

from issl.errors import UserError

PATIENCE = 30  # seconds that a busy scheduler may take to answer
FIELDS = "%P|%a|%l|%c|%m|%G|%f"


class Answer(NamedTuple):
    """What a command printed, nothing if it failed; `failed` is empty, or says why."""

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


class Nodes(NamedTuple):
    """One kind of node in one partition: what a single one has."""

    partition: str
    default: bool
    up: bool
    minutes: float | None  # longest job; None for no limit
    cores: int
    mem_mb: int
    gpus: dict[str, int]  # by type; the type of those without a name is ""
    features: frozenset[str]


def nodes() -> list[Nodes]:
    """Every kind of node of every partition. Raises UserError where Slurm does not answer."""
    answer = ask("sinfo", "--noheader", "--exact", "--format", FIELDS)
    if answer.failed:
        raise UserError(f"Slurm does not answer ({answer.failed}): run this where you submit jobs")
    return [_nodes(line) for line in answer.text.splitlines() if line.count("|") == FIELDS.count("|")]


def _nodes(line: str) -> Nodes:
    name, state, limit, cores, memory, gres, features = (part.strip() for part in line.split("|"))
    seconds = duration(limit)
    return Nodes(
        partition=name.rstrip("*"),
        default=name.endswith("*"),
        up=state == "up",
        minutes=None if seconds is None else seconds / 60,
        cores=int(re.match(r"\d+", cores)[0]),
        mem_mb=int(re.match(r"\d+", memory)[0]),
        gpus=gpus(gres),
        features=frozenset(features.split(",")) - {"(null)", ""},
    )


def gpus(gres: str) -> dict[str, int]:
    """GPUs in Slurm's words, by type: ``gpu:a100:4(S:0-1),gpu:2 -> {"a100": 4, "": 2}``."""
    found: dict[str, int] = {}
    for kind, number in re.findall(r"(?:^|,)\s*gpu(?::([A-Za-z][\w.-]*))?(?::(\d+))?", gres):
        found[kind] = found.get(kind, 0) + int(number or 1)
    return found


def duration(text: str) -> float | None:
    """Seconds of Slurm's [[days-]hours:]minutes:seconds; None for what is not a time, such as UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds


def accounting() -> str:
    """Why `sacct` cannot say how jobs ended; empty if it can."""
    if not shutil.which("sacct"):
        return "there is no sacct"
    answer = ask("sacct", "--allocations", "--noheader", "--starttime", "now")
    return answer.failed


def remembers() -> float | None:
    """Seconds for which squeue still knows a job that has ended; None if Slurm does not say."""
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", ask("scontrol", "show", "config").text, re.MULTILINE)
    return float(found[1]) if found else None
