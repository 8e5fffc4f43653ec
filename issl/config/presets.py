"""Presets: overlays on config.yaml and the experiments beside it, one file each in the folder beside it.

The file paper.yaml overlays the paper's own settings; the other presets do not see it.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from issl.config.additions import refuse_changes
from issl.config.layers import PAPER, PRESETS, Layer, Place, combined, read_layers
from issl.config.schema import Config
from issl.config.validation import validate
from issl.errors import UserError

RESERVED = (  # rules, and folders in results/
    *("all", "prepare", "pretrain", "featurize", "probe", "aggregate", "plot", "tabulate"),
    *("compare", "curves", "times"),
    *("runs", "weights", "data", "logs", "benchmarks", "reproduction"),
)


def read_config(path: str | Path = "config.yaml") -> dict[str, Any]:
    """A config file and what is beside it: presets, which are its `presets`, and experiments.

    Raises UserError if one cannot be read.
    """
    return combined(layer.content for layer in read_layers([path], {}))


def presets(raw: Mapping[str, Any], layers: Sequence[Layer] = ()) -> dict[str, Config]:
    """Validates config.yaml and returns each preset: an overlay on that file, which for *paper* may be empty.

    `layers` are what `raw` is stacked from; files of presets and experiments may be among them alone. Raises UserError:
    one line with the place, the key, the value and what is allowed.
    """
    below = [layer.content for layer in layers if layer.under]
    added = [layer.content for layer in layers if layer.adds]
    here = Place(tuple(layers))
    refuse_changes(layers)
    raw = combined([*below, raw, *added, raw])  # after what they add to, and below what overlays change in them
    overlays = {} if raw.get(PRESETS) is None else raw[PRESETS]
    if not isinstance(overlays, Mapping):
        raise UserError(f"{here.at(PRESETS)}: must be a mapping of names to presets, not {overlays!r}")
    overlays = {name: overlay for name, overlay in overlays.items() if overlay is not None}  # null removes
    for name, overlay in overlays.items():
        place = here.at(PRESETS, name)
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{place}: a preset needs a plain name")
        if name in RESERVED:
            raise UserError(f"{place}: the workflow uses this name itself; choose another")
        if not isinstance(overlay, Mapping):
            raise UserError(f"{place}: must be a mapping of changes, not {overlay!r}")
    _refuse_unshowable(raw, here)
    base = {key: value for key, value in raw.items() if key != PRESETS}
    others = {name: overlay for name, overlay in overlays.items() if name != PAPER}
    merged = {PAPER: merge(base, overlays.get(PAPER, {}))}
    merged |= {name: merge(_below(base, overlay), overlay) for name, overlay in others.items()}
    validate(Config, base, here)  # before its overlays, which could be blamed for its mistakes
    return {name: validate(Config, content, Place(here.layers, name)) for name, content in merged.items()}


def _refuse_unshowable(content: Any, place: Place, keys: tuple[str, ...] = ()) -> None:
    """Rejects text that some result could not show, or would show as something else.

    Snakemake's report has captions and names inside a script, which '</script' would end.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            _refuse_unshowable(str(key), place.at(*keys).at(key, shown="a key"))
            _refuse_unshowable(value, place, (*keys, str(key)))
    elif isinstance(content, list | tuple):
        for value in content:
            _refuse_unshowable(value, place, keys)
    elif isinstance(content, str):
        where = place.at(*keys)
        if "</script" in content.lower():
            raise UserError(
                f"{where}: {content!r} contains '</script', which would break Snakemake's report: remove it"
            )
        if invisible := [c for c in content if unicodedata.category(c) in INVISIBLE and c not in "\n\t"]:
            raise UserError(f"{where}: {content!r} contains {invisible[0]!a}, which cannot be shown: remove it")


INVISIBLE = ("Cc", "Cf", "Cs")  # Unicode's categories of control, format and surrogate characters


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
