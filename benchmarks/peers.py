"""The peers: other people's packages, installed beside the project and never a dependency of it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

VERSIONS = {"lightly": "1.6.0", "lightly_utils": "0.0.2", "kornia": "0.9.0", "kornia_rs": "0.2.0"}

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT / "benchmarks" / ".peers"


class Unavailable(Exception):
    """A peer cannot be installed here; the message is the reason, on one line."""


def install(*packages: str) -> Path:
    """Installs peers in their pinned versions, unless they are there, and gives the folder to import them from.

    Without their dependencies: they run with the torch that the project runs with.

    Raises Unavailable where pip fails, e.g. without a network, and KeyError for a package that has no pinned version.
    """
    wanted = {name: VERSIONS[name] for name in packages}
    there = installed()
    missing = [f"{name}=={version}" for name, version in wanted.items() if there.get(name) != version]
    if missing:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--retries", "1", "--upgrade", "--target", str(FOLDER), *missing]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"pip exited with status {done.returncode}"]
            raise Unavailable(f"cannot install {', '.join(missing)}: {lines[-1].removeprefix('ERROR: ')}")
    return FOLDER


def installed() -> dict[str, str]:
    """The versions of the peers that are there, by name."""
    return {
        found.metadata["Name"].replace("-", "_").lower(): found.version
        for found in metadata.distributions(path=[str(FOLDER)])
    }


def environment() -> Mapping[str, str]:
    """The environment of a subprocess that may import the peers, as well as this project."""
    paths = [str(PROJECT), str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
