"""The environment of the jobs that Snakemake starts."""

import os
import sys
from pathlib import Path

from issl.errors import UserError

PROJECT = "ISSL_PROJECT"  # environment: the folder of the workflow whose jobs these are


def use_this_checkout(project: str) -> None:
    """Puts this project and this Python first on the paths that jobs inherit.

    `python -m issl` in a rule then uses both, regardless of the paths of the shell that started Snakemake. A rule's
    conda environment is activated later, and so still takes precedence. Raises UserError for a path that PYTHONPATH
    cannot hold: jobs would import another installed copy, or none.
    """
    if os.pathsep in project:
        raise UserError(f"{project}: the path of this project contains '{os.pathsep}'; move it to a path without one")
    os.environ[PROJECT] = project
    _prepend("PYTHONPATH", project)
    _prepend("PATH", str(Path(sys.executable).parent))


def refuse_other_checkout() -> None:
    """Raises UserError if a job has imported another copy of this package than its workflow's."""
    own, project = Path(__file__).parents[2].resolve(), os.environ.get(PROJECT)
    if project and own != Path(project).resolve():
        raise UserError(
            f"this job runs the code in {own}, but its workflow is in {project}: remove the other copy from PYTHONPATH "
            f"and from this environment, or unset {PROJECT} if this is intended"
        )


def _prepend(variable: str, folder: str) -> None:
    rest = [entry for entry in os.environ.get(variable, "").split(os.pathsep) if entry and entry != folder]
    os.environ[variable] = os.pathsep.join([folder, *rest])
