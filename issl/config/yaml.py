"""YAML files, read safely and without duplicate keys."""

from pathlib import Path
from typing import Any

import yaml

from issl.errors import UserError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file safely. Raises UserError where it cannot be read or says one key twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        refuse_duplicates(yaml.compose(text, yaml.SafeLoader), path)
        return yaml.safe_load(text) or {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None  # names line and column


def refuse_mistakes(*paths: str | Path) -> None:
    """Reads the files that exist, for the mistakes that Snakemake passes over: a key that stands twice, bad YAML."""
    for path in dict.fromkeys(map(str, paths)):
        if Path(path).exists():
            read_yaml(path)


def refuse_duplicates(node: yaml.Node | None, path: str | Path) -> None:
    """YAML lets the last of two equal keys win in silence: a row would vanish. Raises UserError instead."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise UserError(f"{path}: line {line}: '{key.value}' stands twice (first in line {seen[key.value]})")
            seen[key.value] = line
        for _, value in node.value:
            refuse_duplicates(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_duplicates(item, path)
