"""Provenance of a result: commit, code, versions, machine."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from issl import __version__
from issl.jobs import fingerprint, handover

SAME = ("code", "device", "precision", "processes")  # what should not change from attempt to attempt
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy", "timm")


def describe(stage: str, *used: Any) -> dict[str, Any]:
    """Commit, code fingerprint of the stage, versions and host of this job.

    Call it when the job starts: files may change while it runs. `used` are the classes and functions that the job takes
    from tables of alternatives, such as its objective.
    """
    return {
        "git": git_here(),
        "code": fingerprint.current(stage, *map(fingerprint.part, used)),
        "versions": {"python": platform.python_version(), "issl": __version__}
        | {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"warm": True} if handover.forked else {}),
    }


def attempt(made_by: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json and checkpoints say of one start of a training: its provenance, and what it computes on."""
    facts = {name: made_by[name] for name in ("versions", "host", "started")}
    return {"code": made_by["code"]["fingerprint"], **about, **facts}


def changes(attempts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was not the same in all attempts, such as "precision: 32, then bf16"."""
    flat = [{**attempt, **attempt.get("versions", {})} for attempt in attempts]
    values = {name: list(dict.fromkeys(str(each.get(name)) for each in flat)) for name in (*SAME, "python", *PACKAGES)}
    return [f"{name}: {', then '.join(found)}" for name, found in values.items() if len(found) > 1]


def listed(versions: Mapping[str, str | None]) -> str:
    """Versions on one line, without packages that were not there."""
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # not part of this rule's environment
        return None


def git_here() -> dict[str, Any] | None:
    """`git_state` of this package's own checkout."""
    return git_state(Path(__file__).parent.parent)


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, and whether tracked files differ from it; None outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked release
        return None
