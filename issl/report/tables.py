"""Tables from tidy results: both accuracies of each row, beside the published number."""

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from issl.config.display import EvaluationTable, Table
from issl.config.evidence import Published
from issl.report.results import over_seeds, points

MEANING = (
    "Accuracy in per cent on the test split. The weight decay of the probe is chosen on the test split, as the paper's "
    "code does, or on a held-out part of the training split; the gap is what the first choice flatters. ± is the "
    "standard error over seeds."
)

EVALUATION_MEANS = (
    "Accuracy in per cent on the test split. Settings of a protocol (rate, weight decay, batch norm, head, C) are "
    "chosen by what is best on the test split, as the authors' scripts do, or on a held-out part of the training "
    "split; the first flatters. ± is the standard error over seeds."
)

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A table, already text: the header, the rows below it in the order of the experiment, and what numbers mean."""

    header: Cells
    rows: list[Cells]
    meaning: str = MEANING


def grid(results: pd.DataFrame, table: Table | EvaluationTable, published: Published | None) -> Grid:
    """Both accuracies of each row and the published number, column by column; the gap and the seeds of experiments."""
    if isinstance(table, EvaluationTable):
        return _evaluation(results, table, published)
    summary = over_seeds(points(results, table), ["line", "column"]).set_index(["line", "column"])
    columns = sorted(
        set(summary.index.get_level_values("column")), key=lambda part: -float(part or 1)
    )  # all labels first
    numbers = published.points if published else {}
    head = ("published",) if numbers else ()
    head += ("chosen on test", "chosen on held-out train", "gap", "seeds")
    header = ("", *(f"{_title(column)}{name}" for column in columns for name in head))
    rows = []
    for line in dict.fromkeys(summary.index.get_level_values("line")):
        cells = [line]
        for column in columns:
            if numbers:
                cells.append(f"{numbers[line, column]:.1f}" if (line, column) in numbers else ABSENT)
            cells += _reproduced(summary.loc[line, column]) if (line, column) in summary.index else [ABSENT] * 4
        rows.append(tuple(cells))
    return Grid(header, rows)


def _evaluation(results: pd.DataFrame, table: EvaluationTable, published: Published | None) -> Grid:
    """Both accuracies of each row beside the published number, for each protocol and metric in order."""
    found = over_seeds(points(results, table), ["line", "column"]).set_index(["line", "column"])
    columns = list(dict.fromkeys(found.index.get_level_values("column")))
    numbers = published.points if published else {}
    header, rows = [""], {line: [line] for line in dict.fromkeys(found.index.get_level_values("line"))}
    for column in columns:
        judged = any(point == column for _, point in numbers)
        header += [
            f"{column}: {name}" for name in (*(("published",) if judged else ()), "best on test", "best on held-out")
        ]
        for line, cells in rows.items():
            if judged:
                cells.append(f"{numbers[line, column]:.1f}" if (line, column) in numbers else ABSENT)
            here = found.loc[line, column] if (line, column) in found.index else None
            both = ("published", "honest")
            cells += [ABSENT if here is None else percent(here[name], here[f"{name}_sem"]) for name in both]
    means = EVALUATION_MEANS + _metrics(results)
    return Grid(tuple(header), [tuple(cells) for cells in rows.values()], means)


def _metrics(results: pd.DataFrame) -> str:
    """Says which rows are judged by what, where that differs from row to row, and which of several metrics chooses."""
    used = results.groupby("row", sort=False)["metric"].unique().map(", ".join)
    if used.nunique() < 2:
        first, *others = results["metric"].unique()
        return f" It is {first} accuracy alone that chooses." if others else f" All numbers are {first} accuracies."
    return "".join(f" By {metric} accuracy: {', '.join(used.index[used == metric])}." for metric in used.unique())


ABSENT = "–"


def _title(column: str) -> str:
    return f"{100 * float(column):g} % of labels, " if column else ""


def _reproduced(cell: pd.Series) -> list[str]:
    return [
        percent(cell["published"], cell["published_sem"]),
        percent(cell["honest"], cell["honest_sem"]),
        f"{100 * (cell['published'] - cell['honest']):.1f}",
        str(cell["seeds"].astype(int)),
    ]


def percent(mean: float, sem: float) -> str:
    """A fraction in per cent, with its standard error where there is one."""
    return f"{100 * mean:.1f}" + ("" if pd.isna(sem) else f" ± {100 * sem:.1f}")


def markdown(grid: Grid, caption: str = "") -> str:
    """GitHub-flavoured Markdown: the caption in bold, the table, and what its numbers mean."""
    return f"**{caption}**\n\n{markdown_table(grid)}\n\n{grid.meaning}\n"


def markdown_table(grid: Grid, left: Collection[int] = (0,)) -> str:
    """The table alone: the columns in `left` to the left, the others, which hold numbers, to the right."""
    rule = tuple("---" if number in left else "---:" for number in range(len(grid.header)))
    body = [grid.header, rule, *grid.rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in cells) + " |" for cells in body)


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|")


def latex(grid: Grid, caption: str) -> str:
    """A floating table for the booktabs package."""
    header = grid.header
    body = "\n".join("    " + " & ".join(_tex(cell) for cell in cells) + r" \\" for cells in grid.rows)
    return (
        "\\begin{table}\n  \\centering\n"
        f"  \\caption{{{_tex(caption)} {_tex(grid.meaning)}}}\n"
        f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n    \\toprule\n"
        f"    {' & '.join(_tex(cell) for cell in header)} \\\\\n    \\midrule\n{body}\n"
        "    \\bottomrule\n  \\end{tabular}\n\\end{table}\n"
    )


def _tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "–": "--",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)
