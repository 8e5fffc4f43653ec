"""Figures from tidy results: vector PDF and PNG, in the paper's style. Accuracies are in per cent."""

import logging
from collections.abc import Hashable, Iterable, Mapping
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser

from issl.config.display import Lines, Scatter, word
from issl.errors import UserError
from issl.jobs.files import whole
from issl.report.layout import accuracy_axis, number, place_legend, tick_labels, value_axis, wrapped
from issl.report.results import SELECTIONS, over_seeds, points

log = logging.getLogger(__name__)

# From seaborn's "colorblind" palette: distinct with every common colour blindness.
CATEGORICAL = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9")
# Even steps of lightness, light to dark, as in the published figure: distinct in grey too.
SEQUENTIAL = LinearSegmentedColormap.from_list("sequential", ("#e6b3b3", "#a8658d", "#2d1e3e"))
GREY = "#555555"
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
NOTE_SIZE = 11  # points
LIGHT = 0.55  # opacity of bars that only know the test images of one seed


OTHER = dict(zip(SELECTIONS, reversed(SELECTIONS)))
SHORT = dict(zip(SELECTIONS, ("selected on test", "selected on held-out")))


def draw(results: pd.DataFrame, display: Lines | Scatter) -> Figure:
    """The figure that the config describes. Raises UserError for results that it cannot show."""
    return {"lines": draw_lines, "scatter": draw_scatter}[display.kind](results, display)


def draw_lines(results: pd.DataFrame, lines: Lines) -> Figure:
    """Accuracy against one column, with a line and error bars for each value of another.

    If the two selections of the weight decay differ, faint lines show the other one. References are thin, grey and
    behind the others: a level across the figure if they have one point, or else a line.
    """
    shown = points(results, lines)
    summary = with_errors(_averaged(shown, dict.fromkeys([lines.hue, lines.x])), lines.accuracy)
    _refuse_unplaced(summary[lines.x], lines)
    is_reference = _is_reference(summary, lines)
    ours, references = summary[~is_reference], summary[is_reference]
    with rc_context(STYLE):
        figure, axes = _blank(lines)
        groups = ours.groupby(lines.hue, sort=False, dropna=False)
        differ = not np.allclose(ours["y"], ours["other"], rtol=0, atol=1e-7)
        for nth, ((value, line), color) in enumerate(zip(groups, _colors(lines.palette, groups.ngroups))):
            line = line.sort_values(lines.x)
            _bars(axes, lines.x, line, color, lines.line_width)
            axes.plot(line[lines.x], line["y"], label=_name(value), **_bold(nth, color, lines.line_width))
            if differ:
                axes.plot(line[lines.x], line["other"], **_faint(color, lines.line_width))
        one_point = references.groupby(lines.hue, dropna=False)[lines.hue].transform("size") == 1
        levels, curves = references[one_point], references[~one_point]
        _draw_references(axes, references, lines)
        value_axis(axes, pd.concat([ours, curves])[lines.x].dropna().tolist(), lines.xscale)
        accuracy_axis(axes, *_extent(summary, ours["other"] if differ else ours["y"]))
        _note(axes, bars=pd.concat([ours, curves]), bands=levels)
        handles, labels = axes.get_legend_handles_labels()
        if differ:
            handles = [*handles, Line2D([], [], **_faint(GREY, lines.line_width))]
            labels = [*labels, SHORT[OTHER[lines.accuracy]]]
        place_legend(axes, handles, labels, formula(lines.legend_title or ""), lines.legend == "inside")
    return figure


def draw_scatter(results: pd.DataFrame, scatter: Scatter) -> Figure:
    """Accuracy against a quantity of the encoder: a point per encoder and seed, a colour and marker for each hue.

    Highlighted rows are blue and all others grey, without a legend. Seeds are not averaged, because both coordinates
    vary with the seed. Light bars show the error from test images. Released weights, whose quantity is not known, are
    horizontal lines with their names. Runs without it, because their method does not log it, are only named in the
    legend.
    """
    drawn = points(results, scatter)
    known = drawn[scatter.x].notna()
    runs = with_errors(drawn[known].assign(seeds=1), scatter.accuracy)
    runs = runs[runs["y"] > scatter.above]
    levels = with_errors(_averaged(drawn[~known & drawn["released"]], ["encoder"]), scatter.accuracy)
    with rc_context(STYLE):
        figure, axes = _blank(scatter)
        parts = _highlighted(runs, scatter) if scatter.highlight else _by_hue(runs, scatter)
        for encoders, look in parts:
            _bars(axes, scatter.x, encoders, look["color"])
            axes.plot(encoders[scatter.x], encoders["y"], linestyle="", markersize=11, markeredgecolor="white", **look)
        taken = runs[scatter.hue].nunique()
        colors = _colors("categorical", taken + len(levels))[taken:]
        for level, color, dash in zip(levels.to_dict("records"), colors, cycle(DASHES[1:])):
            _level(axes, level, label=_name(level["encoder"]), color=color, linestyle=dash, linewidth=2)
        for value in drawn.loc[~known & ~drawn["released"], scatter.hue].map(str).unique():
            axes.plot([], [], linestyle="", label=_name(f"{value}: no {scatter.x.replace('_', ' ')}"))
        accuracy_axis(axes, *_extent(pd.concat([runs, levels])))
        _note(axes, bars=runs, bands=levels)
        if scatter.falling:
            axes.invert_xaxis()
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            place_legend(axes, handles, labels, "", inside=False)
    return figure


def _by_hue(runs: pd.DataFrame, scatter: Scatter) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """The runs of each hue, and how they look."""
    groups = runs.groupby(scatter.hue, sort=False)
    looks = enumerate(zip(groups, _colors("categorical", groups.ngroups)))
    return [
        (encoders, {"label": _name(value), "color": color, "marker": _marker(nth)})
        for nth, ((value, encoders), color) in looks
    ]


def _highlighted(runs: pd.DataFrame, scatter: Scatter) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """The other runs, then the highlighted ones over them, as in figure 7b of the paper's scripts."""
    chosen = runs["row"].map(word).isin(scatter.highlight)
    return [
        (runs[part], {"color": color, "marker": "o", "alpha": 0.7})
        for part, color in ((~chosen, "gray"), (chosen, "tab:blue"))
    ]


def with_errors(summary: pd.DataFrame, accuracy: str) -> pd.DataFrame:
    """A summary of `over_seeds` with what is drawn, in per cent: `y`, its standard `error`, and the `other` selection.

    The error of several seeds is the one over seeds. That of a single seed comes from the test images: it is binomial,
    sqrt(y (1 - y) / n_test), and missing for a mean over classes, which is not a share of the images.
    """
    share = summary[accuracy].where(summary["metric"] != "mean per class")
    of_images = np.sqrt(share * (1 - share) / summary["n_test"])
    error = summary[f"{accuracy}_sem"].fillna(of_images) if f"{accuracy}_sem" in summary else of_images
    return summary.assign(y=100 * summary[accuracy], other=100 * summary[OTHER[accuracy]], error=100 * error)


def _averaged(shown: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """`over_seeds`, with the one metric that a figure shows."""
    return over_seeds(shown, list(by)).assign(metric=shown["metric"].min())


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


def _blank(display: Lines | Scatter) -> tuple[Figure, Axes]:
    figure = Figure(figsize=display.size)
    axes = figure.add_axes((0, 0, 1, 1))  # labels and legend are outside; the saved box includes them
    axes.set(xlabel=formula(display.xlabel), ylabel=formula(display.ylabel))
    return figure, axes


def _colors(palette: str, n: int) -> list[str]:
    if palette == "sequential":
        return [to_hex(SEQUENTIAL(part)) for part in np.linspace(0, 1, n)]
    return [CATEGORICAL[nth % len(CATEGORICAL)] for nth in range(n)]


def _marker(nth: int) -> str:
    """Another one than before where the colours begin anew: there are as many, so pairs would come back."""
    return MARKERS[(nth + nth // len(CATEGORICAL)) % len(MARKERS)]


def _name(value: object, where: str = "") -> str:
    """A label for the legend; matplotlib would leave out one that begins with an underscore."""
    name = wrapped(("unknown" if pd.isna(value) else literal(value)) + where)
    return f" {name}" if name.startswith("_") else name


def _bold(nth: int, color: str, line_width: float) -> dict[str, Any]:
    return {
        "color": color,
        "linestyle": DASHES[nth % len(DASHES)],
        "marker": _marker(nth),
        "linewidth": line_width,
        "markersize": 3 * line_width,
        "markeredgecolor": "white",
    }


def _faint(color: str, line_width: float) -> dict[str, Any]:
    return {"color": color, "linewidth": line_width / 3, "alpha": 0.6, "zorder": 1}


def _bars(axes: Axes, x: str, drawn: pd.DataFrame, color: str, line_width: float = 4.0) -> None:
    """Error bars: with caps over seeds, light and without caps from test images."""
    drawn = drawn.dropna(subset=[x])
    for single, look in (
        (False, {"elinewidth": line_width / 2, "capsize": line_width}),
        (True, {"elinewidth": line_width / 2, "alpha": LIGHT}),
    ):
        these = _with(drawn, single)
        if len(these):
            axes.errorbar(these[x], these["y"], yerr=these["error"], fmt="none", ecolor=color, **look)


def _level(axes: Axes, level: Mapping[Hashable, Any], **look: Any) -> None:
    """A horizontal line, with a band for its error: lighter if it comes from test images."""
    axes.axhline(level["y"], **look)
    if not np.isnan(level["error"]):
        edges = level["y"] - level["error"], level["y"] + level["error"]
        opacity = LIGHT / 4 if level["seeds"] == 1 else LIGHT / 2
        axes.axhspan(*edges, color=look["color"], alpha=opacity, linewidth=0, zorder=0.5)


def _is_reference(summary: pd.DataFrame, lines: Lines) -> pd.Series:
    """Whether each point belongs to a reference, or to a line whose x is not known, which is drawn like one."""
    names = summary[lines.hue].map(word)
    for absent in set(lines.reference) - set(names):
        log.warning("no results of the reference %r", absent)
    unknown = summary[lines.x].isna().groupby(summary[lines.hue], dropna=False).transform("all")
    return names.isin(lines.reference) | unknown


def _draw_references(axes: Axes, references: pd.DataFrame, lines: Lines) -> None:
    """Grey, thin and dashed: a level, with a label that says where its one point is, or a line over x."""
    groups = references.groupby(lines.hue, sort=False, dropna=False)
    for (value, reference), dash in zip(groups, cycle(DASHES[1:])):
        look = {"color": GREY, "linestyle": dash, "linewidth": lines.line_width / 2, "zorder": 1.5}
        if len(reference) > 1:
            reference = reference.sort_values(lines.x)
            _bars(axes, lines.x, reference, GREY, lines.line_width / 2)
            axes.plot(reference[lines.x], reference["y"], label=_name(value), **look)
            continue
        [level] = reference.to_dict("records")
        x = level[lines.x]
        where = "" if pd.isna(x) or lines.x == lines.hue else f" (at {tick_labels([x], lines.xscale)[0]})"
        _level(axes, level, label=_name(value, where), **look)


def _refuse_unplaced(x: pd.Series, lines: Lines) -> None:
    if lines.xscale != "linear" and (x <= 0).any():
        raise UserError(
            f"figure: {lines.x} {number(x.min())} has no place on a {lines.xscale} axis; use xscale: linear"
        )


def _extent(drawn: pd.DataFrame, other: pd.Series | None = None) -> tuple[float, float]:
    """The lowest and the highest accuracy that is drawn, with its error; the whole range if nothing is."""
    if drawn.empty:
        return 0.0, 100.0
    error = drawn["error"].fillna(0)
    ends = pd.concat([drawn["y"] - error, drawn["y"] + error, other])
    return ends.min(), ends.max()


def _note(axes: Axes, bars: pd.DataFrame, bands: pd.DataFrame) -> None:
    """Says above the axes what the bars and bands mean, for seeds and for test images apart."""
    notes = []
    for single in (False, True):
        found = {noun: _with(frame, single) for noun, frame in (("bars", bars), ("bands", bands))}
        nouns = " and ".join(noun for noun, frame in found.items() if len(frame))
        if nouns and single:
            images = _span(pd.concat(found.values())["n_test"])
            notes.append(f"light {nouns}: standard error from {images} test images, one seed")
        elif nouns:
            notes.append(f"{nouns}: standard error over {_span(pd.concat(found.values())['seeds'])} seeds")
    width = int(72 * axes.get_figure().get_figwidth() / (0.5 * NOTE_SIZE))  # characters
    text = "\n".join(fill(note, width) for note in notes)
    axes.set_title(text, loc="left", fontsize=NOTE_SIZE, color=GREY)


def _with(frame: pd.DataFrame, single: bool) -> pd.DataFrame:
    return frame[frame["error"].notna() & ((frame["seeds"] == 1) == single)]


def _span(counts: pd.Series) -> str:
    return " to ".join(dict.fromkeys(number(count) for count in (counts.min(), counts.max())))
