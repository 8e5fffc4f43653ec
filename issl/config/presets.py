"""Presets: overlays on config.yaml, one file each in the folder beside it.

The file paper.yaml overlays the paper's own settings; the other presets do not see it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from issl.config.schema import Config
from issl.config.validation import validate
from issl.config.yaml import read_yaml
from issl.errors import UserError

PAPER = "paper"
RESERVED = (  # rules, and folders in results/
    *("all", "prepare", "pretrain", "featurize", "probe", "aggregate", "plot", "tabulate", "compare", "curves"),
    *("runs", "weights", "data", "logs", "benchmarks", "reproduction"),
)
FOLDER = "presets"  # beside config.yaml: a file for each preset


def read_config(
    path: str | Path = "config.yaml", overlays: Iterable[str | Path] = (), settings: Iterable[str] = ()
) -> dict[str, Any]:
    """A config file, overlays and KEY=VALUE settings on top as Snakemake adds them, and the presets beside it.

    Raises UserError if a file cannot be read, or a setting is not KEY=VALUE.
    """
    raw: dict[str, Any] = read_yaml(path)
    for overlay in overlays:
        raw = _stacked(raw, read_yaml(overlay))
    for setting in settings:
        key, given, value = setting.partition("=")
        if not given:
            raise UserError(f"--config {setting}: must be KEY=VALUE")
        raw = _stacked(raw, {key: yaml.safe_load(value)})
    return with_presets(raw, Path(path).parent / FOLDER)


def with_presets(raw: Mapping[str, Any], folder: Path = Path(FOLDER)) -> dict[str, Any]:
    """The config and, as its `presets`, the folder's files, each overlaid with the config's own entry for that preset.

    Raises UserError if a file cannot be read.
    """
    files = {path.stem: read_yaml(path) for path in sorted(folder.glob("*.yaml"))}
    return {**raw, "presets": _stacked(files, raw.get("presets") or {})}


def _stacked(lower: Any, upper: Any) -> Any:
    """Merges two overlays: like `merge`, but nulls stay, to remove keys from the config below."""
    if not isinstance(lower, Mapping) or not isinstance(upper, Mapping):
        return upper
    return {**lower, **{key: _stacked(lower.get(key), value) for key, value in upper.items()}}


def presets(raw: Mapping[str, Any]) -> dict[str, Config]:
    """Validates config.yaml and returns each preset: an overlay on that file, which for *paper* may be empty.

    Raises UserError: one line with the key, the value and what is allowed.
    """
    base = {key: value for key, value in raw.items() if key != "presets"}
    overlays = raw.get("presets") or {}
    if not isinstance(overlays, Mapping) or not all(isinstance(o, Mapping) for o in overlays.values()):
        raise UserError("config: presets: each preset must be a mapping of changes")
    for name in overlays:
        if not str(name).isidentifier():
            raise UserError(f"config: presets.{name}: a preset needs a plain name")
        if name in RESERVED:
            raise UserError(f"config: presets.{name}: the workflow uses this name itself; choose another")
    _refuse_ends_of_scripts(raw)
    others = {name: overlay for name, overlay in overlays.items() if name != PAPER}
    layers = {PAPER: merge(base, overlays.get(PAPER, {}))}
    layers |= {name: merge(_below(base, overlay), overlay) for name, overlay in others.items()}
    validate(Config, base, "config")  # before its overlays, which could be blamed for its mistakes
    return {
        name: validate(Config, layer, f"config (preset {name})" if name in overlays else "config")
        for name, layer in layers.items()
    }


def _refuse_ends_of_scripts(content: Any, place: str = "config") -> None:
    """Rejects '</script': Snakemake's report has captions and names inside a script, which it would end."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            _refuse_ends_of_scripts(str(key), f"{place}: a key")
            _refuse_ends_of_scripts(value, f"{place}: {key}" if place == "config" else f"{place}.{key}")
    elif isinstance(content, list | tuple):
        for value in content:
            _refuse_ends_of_scripts(value, place)
    elif isinstance(content, str) and "</script" in content.lower():
        raise UserError(f"{place}: {content!r} contains '</script', which would break Snakemake's report: remove it")


def _below(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The config below a preset, without experiments on request that it does not name: they have no smaller settings.

    With `inherit: named`, without any that it does not name. Presets are comparable with the paper only if they say so.
    """
    named, experiments = overlay.get("experiments") or {}, base.get("experiments") or {}
    if not isinstance(named, Mapping) or not isinstance(experiments, Mapping):
        return {**base, "comparable": False}  # the schema names the mistake

    def inherited(experiment: Any) -> bool:
        on_request = isinstance(experiment, Mapping) and experiment.get("on_request")
        return overlay.get("inherit") != "named" and not on_request

    kept = {name: experiment for name, experiment in experiments.items() if name in named or inherited(experiment)}
    return {**base, "comparable": False, "experiments": kept}


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlays one nested mapping on another: mappings merge, other values replace, null removes."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged
