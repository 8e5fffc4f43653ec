"""Measurements as Markdown: numbers, lines of a table, and what machine and versions they hold for."""

from collections.abc import Iterable, Mapping
from typing import Any


def line(cells: Iterable[str]) -> str:
    """A line of a table."""
    escaped = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def number(value: float | None) -> str:
    """Three digits that count, and never a power of ten."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def made_on(record: Mapping[str, Any]) -> str:
    """Hardware and versions, of a record with `machine` and `versions` as `benchmarks.measure` gives them."""
    machine = record["machine"]
    hardware = [machine["cpu"], f"{machine['cores']} cores", f"{machine['memory_gib']} GiB", *machine["gpus"]]
    return f"{', '.join(hardware)}; {', '.join(f'{name} {version}' for name, version in record['versions'].items())}"
