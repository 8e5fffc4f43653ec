"""The files of a config, one on top of another, and where in them a setting is written."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from issl.config.display import word
from issl.config.yaml import Document, parse, read_document
from issl.errors import UserError

PAPER = "paper"
PRESETS = "presets"  # the folder beside config.yaml with a file for each preset, and the key that overlays them
EXPERIMENTS = "experiments"  # the folder beside config.yaml with files that add experiments, and the key of all of them
OPTION = "--config"
OF_MODULE = "the module's config"  # of the workflow that uses this one as a module


class Layer(NamedTuple):
    """A file of the config, or the settings of its command line."""

    name: str
    document: Document
    under: tuple[str, ...] = ()  # the keys of the config that a preset's file is the content of
    adds: bool = False  # whether it is a file of experiments/, which may only add: `additions.py`

    @property
    def content(self) -> dict[str, Any]:
        """What it adds to the config."""
        content = self.document.content
        for key in reversed(self.under):
            content = {key: content}
        return content

    def find(self, keys: Sequence[str]) -> "Found":
        """How far the keys lead in this layer, and to which line."""
        above = len(self.under)
        if self.document.node is None or self.under != tuple(keys[:above]):
            return Found(0, False, None)
        found = _found(self.document.node, keys[above:])
        return found._replace(depth=above + found.depth)


class Found(NamedTuple):
    """The number of keys that a layer has, whether it alone decides what is at the end of them, and its line."""

    depth: int
    decides: bool
    line: int | None


def read_layers(files: Iterable[str | Path], settings: Mapping[str, Any], name: str = OPTION) -> tuple[Layer, ...]:
    """The files, the first of which is config.yaml, with what is found beside it and the settings on top.

    Presets lie below config.yaml, and experiments between it and the other files. Where there is no config.yaml, the
    next file takes its place, as in Snakemake. `name` says where the settings are from. Raises UserError if a file
    cannot be read.
    """
    base, *overlays = _from_base(map(_near, files))
    presets, experiments = (sorted((base.parent / folder).glob("*.yaml")) for folder in (PRESETS, EXPERIMENTS))
    return (
        *(Layer(str(path), read_document(path), (PRESETS, path.stem)) for path in presets),
        Layer(str(base), read_document(base)),
        *(Layer(str(path), read_document(path), adds=True) for path in experiments),
        *(Layer(str(path), read_document(path)) for path in overlays),
        *([Layer(name, parse(yaml.safe_dump(dict(settings)), name))] if settings else ()),
    )


def _from_base(files: Iterable[Path]) -> list[Path]:
    base, *others = files
    if base.exists() or others:
        return [base, *others] if base.exists() else others
    raise UserError(
        f"no {base} in {Path.cwd()}: run this in the workflow's folder, or add --configfile FOLDER/config.yaml"
    )


def _near(path: str | Path) -> Path:
    """The path from here, if it leads below."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def setting(text: str) -> dict[str, Any]:
    """KEY=VALUE of a command line, read as Snakemake reads it. Raises UserError for anything else."""
    key, given, value = text.partition("=")
    if not given or not re.fullmatch(r"[a-zA-Z_][\w-]*\w", key):
        raise UserError(f"{OPTION} {text}: must be KEY=VALUE, as in 'seeds=[1, 2]' or 'execution={{device: cpu}}'")
    return {key: _typed(value)}


def _typed(text: str) -> Any:
    if text == "":
        return None
    for read in (int, float, {"True": True, "False": False}.__getitem__):
        try:
            return read(text)
        except (ValueError, KeyError):
            continue
    try:
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        return text


def stacked(lower: Any, upper: Any) -> Any:
    """Merges two overlays: like `merge`, but nulls stay, to remove keys from the config below."""
    if not isinstance(lower, Mapping) or not isinstance(upper, Mapping):
        return upper
    return {**lower, **{key: stacked(lower.get(key), value) for key, value in upper.items()}}


def combined(contents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Contents of layers, or settings, one on top of another."""
    return reduce(stacked, contents, {})


@dataclass(frozen=True)
class Place:
    """A place in a preset's config. Its text names the file and the line, as far as `layers` tell, and the keys."""

    layers: tuple[Layer, ...] = ()
    preset: str = ""  # none: the config below all presets
    keys: tuple[str, ...] = ()
    text: str = ""
    joint: str = ": "  # between the text and further keys

    def at(self, *keys: object, shown: str | None = None) -> "Place":
        """The place that these keys lead to from here; `shown` stands for them in the text, or if empty hides them."""
        names = tuple(map(str, keys))
        there = replace(self, keys=(*self.keys, *names))
        if shown is not None:
            return replace(there, text=f"{self.text}: {shown}", joint=": ") if shown else there
        return replace(there, text=f"{self.text}{self.joint}{'.'.join(names)}", joint=".") if names else there

    def __str__(self) -> str:
        return self._file() + self.text

    def _file(self) -> str:
        """The topmost layer that decides about the keys, or else the one that has most of them."""
        of_preset = f" (preset {self.preset})" if self.preset not in ("", PAPER) else ""
        nearest, title = 0, f"config{of_preset}"
        for start, suffix in (((PRESETS, self.preset), ""), ((), of_preset)):
            for layer in reversed(self.layers) if self.keys else ():
                found = layer.find((*start, *self.keys))
                depth = found.depth - len(start)
                decides = found.decides and depth >= 0
                if decides or depth > nearest:
                    line = "" if found.line is None or layer.name in (OPTION, OF_MODULE) else f":{found.line}"
                    nearest, title = depth, f"{layer.name}{line}{suffix}"
                if decides:
                    return title
        return title


def _found(node: yaml.Node | None, keys: Sequence[str]) -> Found:
    """Follows keys through nodes. A grid's keys have dots; a list or a word decides about everything below it."""
    depth, line = 0, None
    while depth < len(keys):
        if isinstance(node, yaml.MappingNode):
            rest = {word(".".join(keys[depth:end])): end for end in range(len(keys), depth, -1)}
            entries = [entry for entry in node.value if _text(entry[0]) in rest]
            if not entries:
                return Found(depth, False, line)
            [(key, node), *_] = entries
            depth, line = rest[_text(key)], key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and keys[depth].isdecimal() and int(keys[depth]) < len(node.value):
            node = node.value[int(keys[depth])]
            depth, line = depth + 1, node.start_mark.line + 1
        else:
            break
    return Found(depth, True, line)


def _text(key: yaml.Node) -> str | None:
    return word(key.value) if isinstance(key, yaml.ScalarNode) else None
