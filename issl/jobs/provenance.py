"""Where a result comes from: commit, code, versions, machine."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from issl import __version__
from issl.jobs import fingerprint

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy")


def describe(stage: str) -> dict[str, Any]:
    """Commit, fingerprint of the stage's code, versions and host of the job that calls it: to be asked when it starts.

    Files may change while a job runs; what it runs does not.
    """
    return {
        "git": git_here(),
        "code": fingerprint.current(stage),
        "versions": {"python": platform.python_version(), "issl": __version__}
        | {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # not part of this rule's environment
        return None


def git_here() -> dict[str, Any] | None:
    """`git_state` of this package's own checkout."""
    return git_state(Path(__file__).parent.parent)


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked release
        return None
