"""YAML files, read safely and without duplicate keys."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from issl.errors import UserError

# Of the two, libyaml's is ten times as fast, and some systems lack it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Document(NamedTuple):
    """The content of a YAML file, and the nodes that know the lines of its keys; None for an empty file."""

    content: dict[str, Any]
    node: yaml.Node | None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file safely. Raises UserError if it cannot be read or repeats a key."""
    return read_document(path).content


def read_document(path: str | Path) -> Document:
    """Reads a YAML file of keys and values, as `read_yaml` does, with its lines."""
    try:
        document = parse(Path(path).read_text(encoding="utf-8"), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason}") from None
    if not isinstance(document.content, dict):
        raise UserError(f"{path}: must be keys with values, not {document.content!r:.80}")
    return document


def parse(text: str, path: str | Path) -> Document:
    """The content of a YAML text, in which mistakes are said to be in `path`. Raises UserError for bad YAML."""
    try:
        node = yaml.compose(text, LOADER)
        refuse_surprises(node, path)
        return Document(_value(node) if node else {}, node)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None  # names line and column
    except RecursionError:
        raise UserError(f"{path}: not valid YAML: a value that contains itself") from None


def refuse_surprises(node: yaml.Node | None, path: str | Path) -> None:
    """Raises UserError for keys of which YAML would drop one, and for values that YAML 1.1 reads as something else."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[Any, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = _value(key), key.start_mark.line + 1
                if name in seen:
                    raise UserError(f"{path}:{line}: duplicate key '{key.value}' (first defined on line {seen[name]})")
                seen[name] = line
            refuse_surprises(key, path)
            refuse_surprises(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_surprises(item, path)
    elif isinstance(node, yaml.ScalarNode) and (kind := _misread(node)):
        raise UserError(
            f"{path}:{node.start_mark.line + 1}: YAML reads {node.value} as {kind}, {_value(node)!s}: "
            "write that, or put it in quotes"
        )


def _value(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _misread(node: yaml.ScalarNode) -> str | None:
    """What YAML 1.1, or a tag such as !!int, takes a value for, where a person would not."""
    kind = node.tag.rpartition(":")[2]
    if kind in ("int", "float") and (":" in node.value or "_" in node.value):
        return "a number"
    if kind == "int" and re.match(r"[-+]?0[0-9]", node.value):
        return "an octal number"
    if kind == "bool" and node.value.lower() not in ("true", "false"):
        return "a truth value"
    return "a date" if kind == "timestamp" else None
