"""The content of a run's files as it is published, and the proof that it is of that run."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from safetensors import SafetensorError, safe_open

from issl.config.validation import validate
from issl.errors import UserError
from issl.jobs.records import read_record
from issl.spec.probe import ProbeGrid, grid_id
from issl.spec.run import RunSpec, run_id

WEIGHTS, RECORD = "encoder.safetensors", "run.json"
PULLED = "pulled"  # in run.json: where the run came from
PRIVATE = ("host", PULLED)  # keys of records, and of the attempts in them, that are not published


def shareable(path: Path) -> bytes:
    """The content of a file without what is private: of a record, the names of machines and where it was pulled from.

    Raises UserError for a record that has a path of this machine.
    """
    if path.suffix != ".json":
        return path.read_bytes()
    record = _public(read_record(path))
    for key, text in _texts(record):
        if PurePath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~"):
            raise UserError(f"{path}: {key} is a path of this machine, {text}, which is not published")
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def _public(record: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in record.items() if key not in PRIVATE}
    attempts = {"attempts": [_public(attempt) for attempt in kept["attempts"]]} if "attempts" in kept else {}
    return kept | attempts


def _texts(content: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a record, by its dotted key."""
    if isinstance(content, str):
        yield above, content
    elif isinstance(content, list | dict):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _texts(value, f"{above}.{key}" if above else str(key))


def refuse_other_run(path: Path, name: str, run: str, seed: int, where: str) -> None:
    """Raises UserError if a file, the one called `name` of this run and seed, says that it is of another one.

    The settings in the record and in the weights must hash to the run's id, and those of probes to theirs. Nothing in a
    file is executed.
    """
    if name == WEIGHTS:
        notes = _notes(path, where)
        found, given = _json(notes.get("spec", ""), where), notes.get("seed")
    elif name == RECORD:
        record = read_record(path, "it is damaged at the source", ("spec", "seed", "data", "encoder_sha256"))
        found, given = record["spec"], record["seed"]
    elif name.startswith("probes/") and name.endswith(".json"):
        record = read_record(path, "it is damaged at the source", ("spec",))
        if grid_id(validate(ProbeGrid, record["spec"], f"{where}: spec")) != PurePath(name).stem.rpartition("-s")[0]:
            raise UserError(f"{where}: its settings are those of other probes")
        return
    else:
        return
    spec = validate(RunSpec, found, f"{where}: spec")
    if run_id(spec) != run:
        raise UserError(f"{where}: its settings are those of another run, {run_id(spec)}")
    if str(given) != str(seed):
        raise UserError(f"{where}: is of seed {given}, not {seed}")


def refuse_other_weights(record: Path, weights: str, where: str) -> None:
    """Raises UserError if a run.json is of other weights than those with this SHA-256."""
    if read_record(record, keys=("encoder_sha256",))["encoder_sha256"] != weights:
        raise UserError(f"{where}: {RECORD} is of other weights than {WEIGHTS}")


def _notes(path: Path, where: str) -> dict[str, str]:
    try:
        with safe_open(path, framework="numpy") as file:  # reads the header alone, and needs no torch
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{where}: not a file of safetensors ({error})") from None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: does not name its run") from None
