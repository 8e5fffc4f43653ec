"""The environment of the jobs that Snakemake starts."""

import os
import sys
from pathlib import Path


def use_this_checkout(project: str) -> None:
    """Puts this project and this Python first on the paths that jobs inherit.

    `python -m issl` in a rule then finds both, whatever the shell that started Snakemake had on its paths. A conda
    environment of a rule still comes before: it is activated later.
    """
    _prepend("PYTHONPATH", project)
    _prepend("PATH", str(Path(sys.executable).parent))


def _prepend(variable: str, folder: str) -> None:
    rest = [entry for entry in os.environ.get(variable, "").split(os.pathsep) if entry and entry != folder]
    os.environ[variable] = os.pathsep.join([folder, *rest])
