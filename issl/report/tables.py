"""Tables from tidy results: accuracies of each row, beside the published number."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from issl.config.display import Measure, Table
from issl.config.evidence import Published
from issl.report.results import SELECTIONS, measured, over_seeds, points
from issl.report.templates import plain, render

Cells = tuple[str, ...]

HEADER = dict(zip(SELECTIONS, ("selected on test", "selected on held-out train")))
ONE_SETTING = {SELECTIONS[0]: "accuracy"}  # where there is nothing to select, both would be the same number


@dataclass(frozen=True)
class Grid:
    """A table as text: the header, the rows in the order of the experiment, and a note on what the numbers mean."""

    header: Cells
    rows: list[Cells]
    meaning: str = ""


def grid(results: pd.DataFrame, table: Table, published: Published | None) -> Grid:
    """The accuracies of each row beside the published number, column by column, its measures, and its seeds."""
    shown = points(results, table)
    summary = over_seeds(shown, ["line", "column"])
    seeds = summary.groupby("line")["seeds"].min()
    found = summary.set_index(["line", "column"])
    settings = shown.groupby("column")["n_settings"].max()
    sources = {"published": published} if published else {}
    sources |= {f"published, {other.label}": other for other in published.also} if published else {}
    header, rows = [""], {line: [line] for line in dict.fromkeys(summary["line"])}
    for column in dict.fromkeys(summary["column"]):
        known = {name: each for name, each in sources.items() if any(point == column for _, point in each.points)}
        title, ours = _title(column, table), HEADER if settings[column] > 1 else ONE_SETTING
        header += [f"{title}{name}" for name in (*known, *ours.values())]
        for line, cells in rows.items():
            for each in known.values():
                value = each.points.get((line, column))
                cells.append(ABSENT if value is None else digits(value, each.precision))
            here = found.loc[line, column] if (line, column) in found.index else None
            cells += [ABSENT if here is None else percent(here[name], here[f"{name}_sem"]) for name in ours]
    for measure in table.measures:
        title, places, _ = MEASURES[measure]
        header.append(title)
        for (mean, sem), cells in zip(measured(shown, measure).loc[list(rows)].to_numpy(), rows.values()):
            cells.append(_number(mean, sem, places))
    body = [(*cells, str(seeds[line])) for line, cells in rows.items()]
    how = SELECTED if settings.max() > 1 else ""
    return Grid((*header, "seeds"), body, f"{ACCURACY}{how}{ERROR}{_metrics(results)}{_of(table.measures)}")


ACCURACY = "Accuracy in per cent on the test split. "
SELECTED = (
    "The setting of a probe (weight decay, rate, head, C) is selected on the test split, as in the paper's code, or on "
    "a held-out part of the training split; the first is optimistic. "
)
ERROR = "± is the standard error over seeds."


# Of a measure: its heading, its digits after the point, and what it is.
MEASURES: dict[Measure, tuple[str, int, str]] = {
    "rank_me": ("RankMe", 1, "the effective rank of the training images' representations; higher: more dimensions"),
    "alignment": (
        *("alignment", 3),
        "the mean squared distance of the unit-length representations of two views of a test image; lower: more alike",
    ),
    "uniformity": (
        *("uniformity", 2),
        "the logarithm of the mean Gaussian potential of pairs of test images; lower: more evenly spread",
    ),
}


def _of(measures: Sequence[Measure]) -> str:
    """Note on the columns that need no labels."""
    said = (f"{MEASURES[name][0]} is {MEASURES[name][2]}." for name in measures)
    return "".join(f" {sentence[0].upper()}{sentence[1:]}" for sentence in said)


def _metrics(results: pd.DataFrame) -> str:
    """Note on the metric of each row unless all are top-1, and on which of several metrics selects."""
    used = results.groupby("row", sort=False)["metric"].unique().map(", ".join)
    first, *others = results["metric"].unique()
    if used.nunique() > 1:
        rows = {metric: ", ".join(map(str, used.index[used == metric])) for metric in used.unique()}
        return "".join(f" By {metric} accuracy: {names}." for metric, names in rows.items())
    if others:
        return f" Only {first} accuracy selects."
    return "" if first == "top-1" else f" All numbers are {first} accuracies."


ABSENT = "–"


def digits(published: float, precision: float) -> str:
    """A published number with as many digits as its precision gives, at least one after the point."""
    return f"{published:.{max(1, math.ceil(-math.log10(2 * precision)))}f}"


def _title(column: str, table: Table) -> str:
    """Prefix of a column's headings; empty if there is only one column."""
    if table.columns == ("fraction",):
        return f"{100 * float(column):g} % of labels, "
    return f"{column}: " if column else ""


def percent(mean: float, sem: float) -> str:
    """A fraction in per cent, with its standard error if there is one."""
    return _number(100 * mean, 100 * sem, 1)


def _number(mean: float, sem: float, places: int) -> str:
    """A mean with its standard error if there is one; a dash if it is missing."""
    if pd.isna(mean):
        return ABSENT
    return f"{mean:.{places}f}" + ("" if pd.isna(sem) else f" ± {sem:.{places}f}")


def markdown(grid: Grid, caption: str = "") -> str:
    """GitHub-flavoured Markdown: the caption in bold, the table, and its note."""
    return f"**{plain(caption)}**\n\n{markdown_table(grid)}\n\n{plain(grid.meaning)}\n"


def markdown_table(grid: Grid, left: Collection[int] = (0,)) -> str:
    """Only the table: columns in `left` are left-aligned, the others, which hold numbers, right-aligned."""
    rule = tuple("---" if number in left else "---:" for number in range(len(grid.header)))
    body = [grid.header, rule, *grid.rows]
    return "\n".join("| " + " | ".join(plain(cell) for cell in cells) + " |" for cells in body)


def latex(grid: Grid, caption: str) -> str:
    """A floating table for the booktabs package."""
    rows = [[_tex(cell) for cell in cells] for cells in grid.rows]
    header = [_tex(cell) for cell in grid.header]
    return render("table.tex.j2", caption=f"{_tex(caption)} {_tex(grid.meaning)}", header=header, rows=rows)


def _tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "–": "--",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in " ".join(text.split()))
