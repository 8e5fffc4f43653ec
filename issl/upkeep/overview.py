"""A preset on one page, for people without the results: what is on disk, in one file."""

import base64
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from issl.config.layers import PAPER
from issl.config.plan import Plan
from issl.errors import UserError
from issl.jobs.records import finished_runs
from issl.planning.page import counted
from issl.report.html import fragment
from issl.report.results import SELECTIONS
from issl.report.templates import render, text_of
from issl.upkeep import runs

MOST_BYTES = 5_000_000  # of the page: what mail servers pass; curves that would exceed it are left out
WIDE = '<div class="wide" tabindex="0" role="region" aria-label="Table"><table>'


class Part(NamedTuple):
    """A figure, a table or the curves of a run, from its file."""

    name: str
    caption: str
    data: str  # base64 of a PNG or of a compressed SVG; the HTML of a table


def overview(plan: Plan) -> str:
    """The page as HTML: verdicts, figures, tables, curves, runs and costs of a preset's results.

    Nothing is computed anew but the list of runs. The page names what has no file yet, with the command that makes it.
    Raises UserError if the preset has no result at all.
    """
    root = Path(plan.root)
    comparison = root / "reproduction.md"
    figures = [Part(name, plan.caption(name), _packed(path)) for name, path in _found(plan, plan.figures, "png")]
    tables = [Part(name, "", _html(path)) for name, path in _found(plan, plan.tables, "md")]
    listed = _listed(root)
    if not (comparison.exists() or figures or tables or len(listed)):
        raise UserError(f"{root}: has no results yet; make them with: {_command(plan)}")
    times = root / "times.csv"
    parts = {
        "verdicts": _html(comparison, below=1) if comparison.exists() else "",
        "figures": figures,
        "tables": tables,
        "runs": [[_text(cell) for cell in row] for row in listed.itertuples(index=False)],
        "costs": _costs(root, times) if len(listed) else "",
    }
    columns = [name.replace("_", " ") for name in listed]
    missing = [*_missing(plan)]
    room = MOST_BYTES - len(_page(plan, columns, [], missing, parts).encode())
    curves, left_out = _curves(root / "curves", room)
    if left_out:
        missing.append(
            (f"training curves of {counted(left_out, 'more run')}, left out to keep this file small", f"{root}/curves")
        )
    return _page(plan, columns, curves, missing, parts)


def _page(
    plan: Plan, columns: list[str], curves: list[Part], missing: list[tuple[str, str]], parts: dict[str, Any]
) -> str:
    titles = {"verdicts": "Verdicts", "figures": "Figures", "tables": "Tables", "curves": "Training curves"}
    titles |= {"runs": "Runs", "costs": "Costs"}
    shown = [(name, title) for name, title in titles.items() if (parts | {"curves": curves})[name]]
    about = ", ".join(title.lower() for _, title in shown)
    body = render(
        "report.html.j2",
        **parts,
        preset=plan.preset,
        about=about,
        sections=shown,
        curves=curves,
        missing=missing,
        columns=columns,
        script=text_of("report.js"),
    )
    style = "\n".join(map(text_of, ("page.css", "report.css")))
    return render("page.html.j2", title=f"Results: {plan.preset}", style=style, body=body)


def _found(plan: Plan, names: list[str], ending: str) -> Iterator[tuple[str, Path]]:
    paths = ((name, Path(plan.root, f"{name}.{ending}")) for name in names)
    return ((name, path) for name, path in paths if path.exists())


def _packed(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _html(path: Path, below: int = 2) -> str:
    """A Markdown file as part of the page."""
    return _wide(fragment(path.read_text(encoding="utf-8"), below))


def _wide(text: str) -> str:
    """HTML whose tables scroll by themselves, so that a phone shows the page."""
    return text.replace("<table>", WIDE).replace("</table>", "</table></div>")


def _curves(folder: Path, room: int) -> tuple[list[Part], int]:
    """The curves of each run, compressed, as far as there is room for them (bytes); and how many are left out."""
    taken: list[Part] = []
    paths = sorted(folder.glob("*.svg"))
    for path in paths:
        data = base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode()
        room -= len(data) + 4 * len(path.stem) + 300  # its elements and, once, the line on those left out
        if room < 0:
            break
        taken.append(Part(path.stem, "", data))
    return taken, len(paths) - len(taken)


def _text(cell: object) -> str:
    """As it is shown: four digits of a number, nothing for one that is not known."""
    if pd.isna(cell):
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _listed(root: Path) -> pd.DataFrame:
    """The finished runs as `issl runs` shows them, accuracies first, without columns that are empty."""
    if not finished_runs(root):
        return pd.DataFrame()
    table = runs.readable(runs.headlines(runs.results(runs.finished([root])))).dropna(axis="columns", how="all")
    first = [name for name in ("run", "seed", *SELECTIONS) if name in table]
    return table[[*first, *(name for name in table if name not in first)]]


def _costs(root: Path, times: Path) -> str:
    """Hours of pretraining by method; with times.csv, those of every stage."""
    table = runs.results(runs.finished([root])).drop_duplicates(["run", "seed"])
    spent = table.groupby("method")["hours"].agg(["size", "sum"])
    lines = ["| method | runs with their seeds | hours |", "|---|---:|---:|"]
    lines += [f"| {method} | {row['size']:.0f} | {row['sum']:.2f} |" for method, row in spent.iterrows()]
    lines += [f"| all | {spent['size'].sum()} | {spent['sum'].sum():.2f} |"]
    text = ["Pretraining, in hours of the device of each run:", "", *lines]
    if times.exists():
        stages = pd.read_csv(times).groupby("stage")["seconds"].agg(["size", "sum"])
        text += [
            "",
            "All jobs that were measured, their start included:",
            "",
            "| stage | jobs | hours |",
            "|---|---:|---:|",
        ]
        text += [f"| {stage} | {row['size']:.0f} | {row['sum'] / 3600:.2f} |" for stage, row in stages.iterrows()]
    return _wide(fragment("\n".join(text)))


def _missing(plan: Plan) -> Iterator[tuple[str, str]]:
    """What the preset makes and is not on disk, each with the command that makes it."""
    wanted = [path for path in plan.targets() if re.search(r"\.(png|md)$", path)]
    for path in [*wanted, *(path for path in plan.times if path.endswith(".csv"))]:
        if not Path(path).exists():
            yield Path(path).name, f"snakemake {path}"
    if not any(Path(plan.root, "curves").glob("*.svg")):
        yield "training curves", f"snakemake {plan.root}/curves"


def _command(plan: Plan) -> str:
    return f"snakemake {'all' if plan.preset == PAPER else plan.preset}"
