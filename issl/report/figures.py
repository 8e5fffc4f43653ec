"""Figures from tidy results: vector PDF and PNG, in the paper's style."""

import logging
from itertools import cycle
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import FuncFormatter, LogLocator

from issl.config.display import Lines, Scatter
from issl.jobs.files import whole
from issl.report.results import SELECTIONS, over_seeds, points

log = logging.getLogger(__name__)

# From seaborn's "colorblind" palette: distinct with every common colour blindness.
CATEGORICAL = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9")
# Even steps of lightness, light to dark, as in the published figure: distinct in grey too.
SEQUENTIAL = LinearSegmentedColormap.from_list("sequential", ("#e6b3b3", "#a8658d", "#2d1e3e"))
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (3, 1.25, 1.5, 1.25)), (0, (5, 1, 1, 1)), (0, (2, 2)))
MARKERS = ("o", "X", "s", "P", "D", "^", "v", "*")

STYLE = {
    "font.size": 17.25,  # seaborn's context "talk" at font scale 1.15, as in the published figures
    "axes.labelsize": 20.7,
    "xtick.labelsize": 19,
    "ytick.labelsize": 19,
    "legend.fontsize": 17,
    "legend.title_fontsize": 18,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.9,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 300,
}


OTHER = dict(zip(SELECTIONS, reversed(SELECTIONS)))
SHORT = dict(zip(SELECTIONS, ("selected on test", "selected on held-out")))


def draw(results: pd.DataFrame, display: Lines | Scatter) -> Figure:
    """The figure that the config describes. Raises UserError for results that it cannot show."""
    return {"lines": draw_lines, "scatter": draw_scatter}[display.kind](results, display)


def draw_lines(results: pd.DataFrame, lines: Lines) -> Figure:
    """Accuracy against one column, with a line for each value of another, and error bars for several seeds.

    If the two selections of the weight decay differ, faint lines show the other one.
    """
    summary = over_seeds(points(results, lines), list(dict.fromkeys([lines.hue, lines.x])))
    with rc_context(STYLE):
        figure = Figure(figsize=lines.size)
        axes = figure.add_axes((0, 0, 1, 1))  # labels and legend are outside; the saved box includes them
        groups = summary.groupby(lines.hue, sort=False)
        differ = not np.allclose(*(summary[name] for name in SELECTIONS), rtol=0, atol=1e-9)
        for number, ((value, line), color) in enumerate(zip(groups, _colors(lines.palette, groups.ngroups))):
            line = line.sort_values(lines.x)
            sem = line[f"{lines.accuracy}_sem"]
            axes.errorbar(
                line[lines.x],
                line[lines.accuracy],
                yerr=None if sem.isna().all() else sem,
                label=literal(value),
                color=color,
                linestyle=DASHES[number % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)],
                linewidth=lines.line_width,
                markersize=3 * lines.line_width,
                markeredgecolor="white",
                capsize=lines.line_width,
                elinewidth=lines.line_width / 2,
            )
            if differ:
                axes.plot(line[lines.x], line[OTHER[lines.accuracy]], **_faint(color, lines.line_width))
        _scale(axes, lines.xscale)
        axes.set(xlabel=formula(lines.xlabel), ylabel=formula(lines.ylabel))
        _legend(axes, lines, SHORT[OTHER[lines.accuracy]] if differ else None)
    return figure


def draw_scatter(results: pd.DataFrame, scatter: Scatter) -> Figure:
    """Accuracy against a quantity of the encoder: a point per encoder and seed, a colour and marker for each hue.

    Released weights, whose quantity is not known, are horizontal lines with their names. Runs without it, because
    their method does not log it, are only named in the legend.
    """
    drawn = points(results, scatter)
    with rc_context(STYLE):
        figure = Figure(figsize=scatter.size)
        axes = figure.add_axes((0, 0, 1, 1))
        known = drawn[scatter.x].notna()
        groups = drawn[known].groupby(scatter.hue, sort=False)
        levels = drawn[~known & drawn["released"]].groupby("encoder", sort=False)[scatter.accuracy].mean()
        colors = _colors("categorical", groups.ngroups + len(levels))
        for (value, encoders), color, marker in zip(groups, colors, cycle(MARKERS)):
            axes.plot(
                encoders[scatter.x],
                encoders[scatter.accuracy],
                label=literal(value),
                color=color,
                linestyle="",
                marker=marker,
                markersize=11,
                markeredgecolor="white",
            )
        for (name, level), color, dash in zip(levels.items(), colors[groups.ngroups :], cycle(DASHES[1:])):
            axes.axhline(level, label=literal(name), color=color, linestyle=dash, linewidth=2)
        for value in drawn.loc[~known & ~drawn["released"], scatter.hue].map(str).unique():
            axes.plot([], [], linestyle="", label=f"{literal(value)}: no {scatter.x.replace('_', ' ')}")
        axes.set(xlabel=formula(scatter.xlabel), ylabel=formula(scatter.ylabel))
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def literal(name: object) -> str:
    """A name as matplotlib draws it: dollar signs do not begin a formula."""
    return " ".join(str(name).split()).replace("$", r"\$")


def formula(label: str) -> str:
    """A label that may hold formulas between dollar signs; one that matplotlib cannot read is drawn as it is."""
    try:
        MathTextParser("path").parse(label)
    except ValueError as error:
        log.warning("drawn without formulas: %r: %s", label, str(error).splitlines()[0])
        return literal(label)
    return label


def save(figure: Figure, pdf: Path, png: Path) -> None:
    """Writes both files atomically; the same results give the same bytes."""
    with rc_context(STYLE):
        for path, metadata in ((pdf, {"CreationDate": None}), (png, {})):
            with whole(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, bbox_inches="tight")


def _colors(palette: str, n: int) -> list[str]:
    if palette == "sequential":
        return [to_hex(SEQUENTIAL(part)) for part in np.linspace(0, 1, n)]
    return [CATEGORICAL[number % len(CATEGORICAL)] for number in range(n)]


def _scale(axes, xscale: str) -> None:
    if xscale == "log2":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(base=4))  # 2^8, 2^10, 2^12
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"$2^{{{round(log2(x))}}}$"))
        axes.xaxis.set_minor_locator(LogLocator(base=2))
        axes.xaxis.set_minor_formatter("")
    elif xscale == "log10":
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")


def _faint(color: str, line_width: float) -> dict[str, Any]:
    return {"color": color, "linewidth": line_width / 3, "alpha": 0.6, "zorder": 1}


def _legend(axes, lines: Lines, faint: str | None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    handles = [bars[0] for bars in handles]  # the line without its error bars
    if faint:
        handles, labels = [*handles, Line2D([], [], **_faint("#555555", lines.line_width))], [*labels, faint]
    place = {"loc": "lower right"} if lines.legend == "inside" else {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(handles, labels, title=formula(lines.legend_title or ""), frameon=False, **place)
