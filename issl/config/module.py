"""The workflow as a module of another Snakemake workflow."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from issl.errors import UserError


def folder_of_module(source: Any, path_modifier: Any) -> Path:
    """The workflow's folder. Raises UserError for what a module cannot have: files elsewhere, or other paths.

    `source` is Snakemake's source of that folder, and `path_modifier` the module's change of paths.
    """
    folder = source.get_path_or_uri(secret_free=True)
    if not (Path(folder) / "config.yaml").exists():
        raise UserError(
            f"module: {folder} is no folder here: clone the workflow, and let `snakefile` be the clone's path"
        )
    if path_modifier.prefix or path_modifier.modifies_prefixes:
        raise UserError(
            "module: prefix and replace_prefix cannot be used, because paths of results are part of the settings of "
            "jobs; results are in results/ of the working directory, which `snakemake --directory` sets"
        )
    return Path(folder)


def own_names(settings: Any, named: Callable[[str], str], rules: tuple[str, ...] = ("pretrain",)) -> Any:
    """What Snakemake's DAG settings force, with our own names for `rules`, whose jobs look for themselves in it.

    `named` gives the name that the other workflow has for one of our rules.
    """
    forced = {rule for rule in rules if named(rule) in settings.forcerun}
    return SimpleNamespace(
        targets=settings.targets,
        forcetargets=settings.forcetargets,
        forceall=settings.forceall,
        forcerun={*settings.forcerun, *forced},
    )
