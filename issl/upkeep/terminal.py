"""Tables in a terminal."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from numbers import Number
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

WIDE = 1000  # characters: what is not a terminal has no edge to wrap at


def show(table: "pd.DataFrame") -> None:
    """Prints a table of texts and numbers; missing values are blank, and numbers are aligned to the right."""
    known = table.astype(object).where(table.notna(), None)
    show_rows(list(map(str, table)), list(known.itertuples(index=False)))


def show_rows(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """`show`, of the names of columns and of rows."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    console.print(_table(names, rows))


def watch(content: Callable[[], tuple[Sequence[str], Sequence[Sequence[object]], str]], seconds: float) -> None:
    """Shows the names and rows of a table and a line below it, anew every few seconds until Ctrl-C."""
    console = Console(highlight=False, markup=False)

    def now() -> Group:
        names, rows, line = content()
        return Group(_table(names, rows), line)

    with suppress(KeyboardInterrupt), Live(now(), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(seconds)
            live.update(now(), refresh=True)


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, values in zip(names, zip(*rows) if rows else [()] * len(names)):
        numeric = all(value is None or isinstance(value, Number) for value in values)
        whole = numeric or name == "run"  # to copy
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        shown.add_row(*map(_text, row))
    return shown


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
