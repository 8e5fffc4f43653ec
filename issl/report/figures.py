"""Figures from tidy results: vector PDF and PNG, in the style of the paper's."""

from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from issl.config.display import Lines, Scatter
from issl.jobs.files import whole
from issl.report.results import over_seeds, points

# Okabe and Ito's palette as seaborn orders it: told apart with every common colour blindness.
CATEGORICAL = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9")
# Even steps of lightness, light to dark, as the published figure: also told apart in grey.
SEQUENTIAL = LinearSegmentedColormap.from_list("sequential", ("#e6b3b3", "#a8658d", "#2d1e3e"))
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (3, 1.25, 1.5, 1.25)), (0, (5, 1, 1, 1)), (0, (2, 2)))
MARKERS = ("o", "X", "s", "P", "D", "^", "v", "*")

STYLE = {
    "font.size": 17.25,  # seaborn's context "talk" at font scale 1.15, as the published figures
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


OTHER = {"published": "honest", "honest": "published"}
CHOICE = {"published": "chosen on test", "honest": "chosen on held-out"}


def draw(results: pd.DataFrame, shown: Lines | Scatter) -> Figure:
    """The figure that the config describes. Raises UserError for results that cannot be shown in this way."""
    return {"lines": draw_lines, "scatter": draw_scatter}[shown.kind](results, shown)


def draw_lines(results: pd.DataFrame, lines: Lines) -> Figure:
    """Accuracy against one column, a line for each value of another, error bars where there are several seeds.

    A faint line shows the accuracy of the other choice of weight decay, where it differs.
    """
    summary = over_seeds(points(results, lines), list(dict.fromkeys([lines.hue, lines.x])))
    with rc_context(STYLE):
        figure = Figure(figsize=lines.size)
        axes = figure.add_axes((0, 0, 1, 1))  # labels and legend stand outside; the saved box grows to hold them
        groups = summary.groupby(lines.hue, sort=False)
        differ = not np.allclose(summary["published"], summary["honest"], rtol=0, atol=1e-9)
        for number, ((value, line), color) in enumerate(zip(groups, _colors(lines.palette, groups.ngroups))):
            line = line.sort_values(lines.x)
            sem = line[f"{lines.accuracy}_sem"]
            axes.errorbar(
                line[lines.x],
                line[lines.accuracy],
                yerr=None if sem.isna().all() else sem,
                label=str(value),
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
        axes.set(xlabel=lines.xlabel, ylabel=lines.ylabel)
        _legend(axes, lines, CHOICE[OTHER[lines.accuracy]] if differ else None)
    return figure


def draw_scatter(results: pd.DataFrame, scatter: Scatter) -> Figure:
    """Accuracy against a number of the run itself: a point a run and seed, a colour and marker for each hue.

    Raises UserError for a run that lacks this number.
    """
    shown = points(results, scatter)
    with rc_context(STYLE):
        figure = Figure(figsize=scatter.size)
        axes = figure.add_axes((0, 0, 1, 1))
        groups = shown.groupby(scatter.hue, sort=False)
        for number, ((value, runs), color) in enumerate(zip(groups, _colors("categorical", groups.ngroups))):
            axes.plot(
                runs[scatter.x],
                runs[scatter.accuracy],
                label=str(value),
                color=color,
                linestyle="",
                marker=MARKERS[number % len(MARKERS)],
                markersize=11,
                markeredgecolor="white",
            )
        axes.set(xlabel=scatter.xlabel, ylabel=scatter.ylabel)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def save(figure: Figure, pdf: Path, png: Path) -> None:
    """Writes both files, whole or not at all; the same results give the same bytes."""
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
    axes.legend(handles, labels, title=lines.legend_title, frameon=False, **place)
