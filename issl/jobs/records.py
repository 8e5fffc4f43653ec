"""The JSON record of a result: what it was made from."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from issl.errors import UserError


def read_record(path: Path, remedy: str = "delete it and make it again", keys: Iterable[str] = ()) -> dict[str, Any]:
    """A record, which has at least these keys. Raises UserError if it cannot be read, or lacks one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {remedy}") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: cannot be read (not a mapping); {remedy}")
    if missing := [key for key in keys if key not in record]:
        raise UserError(f"{path}: lacks '{missing[0]}'; {remedy}")
    return record


def refuse_other(path: Path, what: str, made_from: Mapping[str, Any]) -> None:
    """Raises UserError if there is a result with this record that was made from something else.

    Jobs of the workflow never meet one, for the path of a result names its settings; a call by hand may.
    """
    if not path.exists():
        return
    if other := differing(read_record(path), made_from):
        raise UserError(f"{path}: {what} with another {' and '.join(other)}: choose another --out, or delete it")


def differing(record: Mapping[str, Any], made_from: Mapping[str, Any]) -> list[str]:
    """The keys of `made_from` of which the record says something else, or nothing."""
    return [key for key, value in made_from.items() if record.get(key) != value]


def finished_runs(root: Path) -> list[Path]:
    """The folders below a results folder that have the record of a run, in order."""
    return sorted(record.parent for record in root.glob("runs/*/s*/run.json"))
