"""YAML files, read safely and without duplicate keys."""

import re
from pathlib import Path
from typing import Any

import yaml

from issl.errors import UserError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file safely. Raises UserError if it cannot be read or repeats a key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        refuse_surprises(yaml.compose(text, yaml.SafeLoader), path)
        return yaml.safe_load(text) or {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None  # names line and column


def refuse_mistakes(*paths: str | Path) -> None:
    """Reads the files that exist, to report mistakes that Snakemake ignores: repeated keys, bad YAML."""
    for path in dict.fromkeys(map(str, paths)):
        if Path(path).exists():
            read_yaml(path)


def refuse_surprises(node: yaml.Node | None, path: str | Path) -> None:
    """Raises UserError for keys of which YAML would drop one, and for values that YAML 1.1 reads as something else."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[Any, int] = {}
        for key, value in node.value:
            name, line = yaml.safe_load(yaml.serialize(key)), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in seen:
                raise UserError(
                    f"{path}: line {line}: duplicate key '{key.value}' (first defined on line {seen[name]})"
                )
            if isinstance(key, yaml.ScalarNode):
                seen[name] = line
            refuse_surprises(key, path)
            refuse_surprises(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_surprises(item, path)
    elif isinstance(node, yaml.ScalarNode) and node.style is None and (kind := _misread(node)):
        read = yaml.safe_load(yaml.serialize(node))
        raise UserError(
            f"{path}: line {node.start_mark.line + 1}: YAML reads {node.value} as {kind}, {read!s}: "
            "write that, or put it in quotes"
        )


def _misread(node: yaml.ScalarNode) -> str | None:
    """What YAML 1.1 takes a plain value for, where a person would not."""
    kind = node.tag.rpartition(":")[2]
    if kind in ("int", "float") and (":" in node.value or "_" in node.value):
        return "a number"
    if kind == "int" and re.match(r"[-+]?0[0-9]", node.value):
        return "an octal number"
    if kind == "bool" and node.value.lower() not in ("true", "false"):
        return "a truth value"
    return "a date" if kind == "timestamp" else None
