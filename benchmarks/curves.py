"""The plot of all costs that were measured at several sizes."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks import scaling, stages, workflow

LABELS = {  # with what a cost grows, and the cost
    scaling.BATCH.name: ("batch size", "step (s)"),
    scaling.DIM.name: ("dimension of the representation", "step (s)"),
    scaling.CLASSES.name: ("classes of DISSL", "step (s)"),
    scaling.IMAGES.name: ("images of the data set", "epoch (s)"),
    stages.PREPARE.name: ("images", "preparing (s)"),
    stages.FEATURIZE.name: ("images", "features (s)"),
    stages.PROBE.name: ("training images", "epoch of a probe (s)"),
    scaling.HEADS.name: ("probes side by side", "training (s)"),
    stages.AGGREGATE.name: ("runs of a table", "points from scores (s)"),
    workflow.RUNS.name: ("runs of a table", "planning (s)"),
    workflow.SEEDS.name: ("seeds of the paper", "planning (s)"),
}
COLUMNS = 4
MANY = 1.6  # decades: more have a tick each, fewer three


def plot(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draws the curves among the records side by side into `path`; grey is a cost that grows as its work."""
    found = {record["name"]: record for record in records if record["name"] in LABELS and record["details"]}
    lines = math.ceil(len(LABELS) / COLUMNS)
    figure = Figure(figsize=(2.8 * COLUMNS, 2.6 * lines), layout="constrained")
    panels = figure.subplots(lines, COLUMNS).flat
    for (name, (work, cost)), axes in zip(LABELS.items(), panels):
        axes.set(xlabel=work, ylabel=cost)
        axes.spines[["top", "right"]].set_visible(False)
        if name not in found:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
            continue
        sizes, figures = (np.array(found[name]["details"][key], float) for key in ("sizes", "figures"))
        axes.set(xscale="log", yscale="log", title=f"slope {found[name]['details']['slope']:.2f}")
        # Through the first point: what grows faster than its work rises above the line.
        axes.plot(sizes, figures[0] * sizes / sizes[0], color="0.7", label="as its work")
        axes.plot(sizes, figures, marker="o", color="#0173b2", label="measured")
        ticks = sizes[:: -2 if len(sizes) > 4 else -1]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _short(size)))
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if math.log10(high / low) > MANY else (1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.grid(axis="y", color="0.92")
    for axes in panels:  # those that are left
        axes.remove()
    handles, names = next((axes.get_legend_handles_labels() for axes in figure.axes if axes.lines), ([], []))
    if handles:
        figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def _short(size: float) -> str:
    """With k or M where that leaves a whole number."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if size >= unit and size % unit == 0:
            return f"{size / unit:g}{letter}"
    return f"{size:g}"
