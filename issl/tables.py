"""Tables from tidy results: one accuracy a row, chosen as published and honestly, beside the published number."""

from dataclasses import dataclass

import pandas as pd

from issl.config import Table
from issl.results import chosen, over_seeds

HEADER = ("", "published", "reproduced, chosen on test", "reproduced, chosen on held-out train", "seeds")
WITHOUT_PUBLISHED = ("", "chosen on test", "chosen on held-out train", "seeds")
MEANING = (
    "Accuracy in per cent on the test split. The weight decay of the probe is chosen on the test split, as the paper's "
    "code does, or on a held-out part of the training split; ± is the standard error over seeds."
)


@dataclass(frozen=True)
class Line:
    """One row of a table, already text; without `published` where the table has no published numbers at all."""

    label: str
    published: str | None
    reproduced: str
    honest: str
    seeds: str

    def cells(self) -> tuple[str, ...]:
        cells = (self.label, self.published, self.reproduced, self.honest, self.seeds)
        return tuple(cell for cell in cells if cell is not None)


def lines(results: pd.DataFrame, table: Table) -> list[Line]:
    """The rows of the table, in the order of the experiment."""
    summary = over_seeds(chosen(results), ["row"])
    return [
        Line(
            label=row["row"],
            published=_published(table, row["row"]),
            reproduced=_percent(row["published"], row["published_sem"]),
            honest=_percent(row["honest"], row["honest_sem"]),
            seeds=str(row["seeds"]),
        )
        for row in summary.to_dict("records")
    ]


def _published(table: Table, row: str) -> str | None:
    if not table.published:
        return None
    return f"{table.published[row]:.1f}" if row in table.published else "–"


def _percent(mean: float, sem: float) -> str:
    return f"{100 * mean:.1f}" + ("" if pd.isna(sem) else f" ± {100 * sem:.1f}")


def _header(table: Table) -> tuple[str, ...]:
    return HEADER if table.published else WITHOUT_PUBLISHED


def markdown(rows: list[Line], table: Table) -> str:
    """GitHub-flavoured Markdown."""
    header = _header(table)
    body = [header, ("---",) + ("---:",) * (len(header) - 1), *(row.cells() for row in rows)]
    text = "\n".join("| " + " | ".join(_plain(cell) for cell in cells) + " |" for cells in body)
    return f"**{table.caption}**\n\n{text}\n\n{MEANING}\n"


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|")


def latex(rows: list[Line], table: Table) -> str:
    """A floating table for the booktabs package."""
    header = _header(table)
    body = "\n".join("    " + " & ".join(_tex(cell) for cell in row.cells()) + r" \\" for row in rows)
    return (
        "\\begin{table}\n  \\centering\n"
        f"  \\caption{{{_tex(table.caption)} {_tex(MEANING)}}}\n"
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
