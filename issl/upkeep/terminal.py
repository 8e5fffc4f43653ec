"""Tables in a terminal."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDE = 1000  # characters: what is not a terminal has no edge to wrap at


def show(table: pd.DataFrame) -> None:
    """Prints a table of texts and numbers; missing values are blank, and numbers are aligned to the right."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in table:
        numeric = pd.api.types.is_numeric_dtype(table[name])
        shown.add_column(str(name), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in table.itertuples(index=False):
        shown.add_row(*(_text(value) for value in row))
    console.print(shown)


def _text(value: object) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
