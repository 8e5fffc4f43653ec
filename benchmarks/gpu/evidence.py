"""The result file of a part, and the table of all parts."""

import json
import shlex
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from benchmarks import measure
from benchmarks.gpu.session import Line, Piece, Session
from benchmarks.markdown import line, made_on, number
from issl.errors import UserError
from issl.jobs import allocation, fingerprint, provenance
from issl.jobs.files import write_json

Result = dict[str, Any]


def read(path: Path, part: str) -> Result:
    """The result file of a part. Raises UserError if it is something else."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["part"] == part and {"limit", "finished", "calls", "pieces"} <= result.keys():
            return result
    except (ValueError, TypeError, KeyError):
        pass
    raise UserError(f"{path}: not the results of the part '{part}': move it away")


def begin(path: Path, part: str, limit: int | None) -> Result:
    """The result file of a part, or a new result. Raises UserError if the file was measured with another limit."""
    if not path.exists():
        return {"part": part, "limit": limit, "finished": False, "calls": [], "pieces": {}}
    result = read(path, part)
    if result["limit"] != limit:
        made = "at full size" if result["limit"] is None else f"with --limit {result['limit']}"
        raise UserError(f"{path}: was measured {made}: move it away, or give another folder with --out")
    return result


def collect(path: Path, result: Result, pieces: Iterable[Piece], session: Session, in_time: bool) -> list[str]:
    """Measures the pieces that the result lacks, while there is time, and writes the file after each.

    The first one starts in any case, so that every call gets further. The result is finished once all pieces are
    measured, or once the time is over if `in_time`, but not if one fails. Returns the names of those that failed, after
    showing why. Raises `allocation.Stopped` if a signal stops a training.
    """
    call, started = _call(), time.monotonic()
    failed: list[str] = []
    complete = True
    for piece in pieces:
        if piece.name in result["pieces"]:
            continue
        if (call["pieces"] or failed) and not session.budget.fits(piece.minutes):
            complete = in_time
            break
        click.echo(f"{result['part']}: {piece.name} ...", err=True)
        try:
            lines = piece.measure()
        except allocation.Stopped:
            raise
        except UserError as error:
            click.echo(f"error: {piece.name}: {error}", err=True)
            failed.append(piece.name)
        except Exception:
            traceback.print_exc()
            failed.append(piece.name)
        else:
            if not call["pieces"]:
                result["calls"].append(call)
            call["pieces"].append(piece.name)
            result["pieces"][piece.name] = lines
            call["seconds"] = round(time.monotonic() - started, 1)
            write_json(path, result)
    result["finished"] = complete and not failed
    write_json(path, result)
    return failed


def _call() -> dict[str, Any]:
    """What the pieces of this call hold for."""
    return {
        "machine": measure.machine(),
        "versions": measure.versions(),
        "git": provenance.git_here(),
        "code": fingerprint.of_package(),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "pieces": [],
    }


# --- table -----------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result], claims: Mapping[str, str]) -> str:
    """Markdown: for each part what it claims, what that holds for, and its lines; `claims` by part."""
    sections = ["# Measured on a GPU"]
    for result in results:
        part, lines = result["part"], [each for lines in result["pieces"].values() for each in lines]
        sections += [f"## {part}", "\n".join([f"**{claims[part]}**", "", *(f"- {each}" for each in _header(result))])]
        sections += _tables(lines)
    return "\n\n".join(sections) + "\n"


def _header(result: Result) -> Iterator[str]:
    """What the lines hold for: how often each was measured, and each machine."""
    repeats = sorted({each["n"] for lines in result["pieces"].values() for each in lines if each.get("n")})
    if repeats:
        yield f"n = {repeats[0]}" + (f" to {repeats[-1]}" if len(repeats) > 1 else "")
    if result["limit"] is not None:
        yield f"rehearsed with --limit {result['limit']}: the numbers mean nothing"
    if not result["finished"]:
        yield "not finished"
    for call in result["calls"]:
        git = call["git"]
        commit = f"commit {git['commit'][:12]}{', edited' if git['dirty'] else ''}" if git else f"code {call['code']}"
        which = f"{', '.join(call['pieces'])}: " if len(result["calls"]) > 1 else ""
        yield f"{which}{made_on(call)}; {commit}; {call['time']}; `{call['command']}`"


def _tables(lines: Iterable[Line]) -> Iterator[str]:
    """One table for each sequence of lines with the same columns, without the columns that are empty."""
    for columns, group in groupby(lines, key=lambda each: tuple(each)):
        same = list(group)
        shown = [name for name in columns if any(_cell(each[name]) for each in same)]
        cells = [[_cell(each[name]) for name in shown] for each in same]
        titles = [name.replace("_", " ") for name in shown]
        yield "\n".join([line(titles), line("---" for _ in shown), *map(line, cells)])


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else ""
