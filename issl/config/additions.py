"""The files of experiments/: each adds entries to config.yaml, and changes nothing that is there already.

So no run of another experiment gets another id, whatever files are put there or taken away.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from issl.config.layers import EXPERIMENTS, PRESETS, Layer, Place, combined
from issl.errors import UserError, nearest

SECTIONS = ("data", "methods", "patches", EXPERIMENTS)  # whose entries they add
Entry = tuple[str, str]  # its section and name


def refuse_changes(layers: Sequence[Layer]) -> None:
    """Raises UserError unless each file of experiments/ has new entries only, and changes only these in presets."""
    others = [layer for layer in layers if not layer.adds]
    presets = _mapping(combined(layer.content for layer in others).get(PRESETS))
    config = next((layer for layer in others if not layer.under), None)  # those above it may change what was added
    taken = dict.fromkeys(_entries(config.content), config) if config else {}
    for layer in layers:
        if layer.adds:
            own = dict.fromkeys(_entries(layer.content), layer)
            _refuse_taken(layer, own, taken)
            _refuse_changes_of_presets(layer, own, presets)
            taken |= own


def _refuse_taken(layer: Layer, own: Mapping[Entry, Layer], taken: Mapping[Entry, Layer]) -> None:
    _refuse_other_sections(layer, layer.content, (*SECTIONS, PRESETS), (), "config.yaml")
    for entry in own:
        if entry in taken:
            line = taken[entry].find(entry).line
            _refuse(layer, entry, f"is in {taken[entry].name}:{line}, too; give one of them another name")


def _refuse_changes_of_presets(layer: Layer, own: Mapping[Entry, Layer], presets: Mapping[str, Any]) -> None:
    for preset, part in _mapping(layer.content.get(PRESETS)).items():
        if preset not in presets:
            _refuse(layer, (PRESETS, preset), f"unknown preset, {nearest(preset, presets)}")
        there, home = (PRESETS, preset), f"{PRESETS}/{preset}.yaml"
        _refuse_other_sections(layer, _mapping(part), SECTIONS, there, home)
        for entry in _entries(_mapping(part)):
            if entry not in own:
                _refuse(layer, (*there, *entry), f"this file adds no such entry; change others in {home}")


def _refuse_other_sections(
    layer: Layer, content: Mapping[str, Any], allowed: Sequence[str], keys: Sequence[str], home: str
) -> None:
    for key in content:
        if key not in allowed:
            names = ", ".join(allowed)
            _refuse(
                layer, (*keys, key), f"a file in {EXPERIMENTS}/ only adds; allowed: {names}; this belongs in {home}"
            )


def _refuse(layer: Layer, keys: Sequence[str], complaint: str) -> NoReturn:
    raise UserError(f"{Place((layer,)).at(*keys)}: {complaint}")


def _entries(content: Mapping[str, Any]) -> Iterator[Entry]:
    return ((section, str(name)) for section in SECTIONS for name in _mapping(content.get(section)))


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}  # the schema names the mistake
