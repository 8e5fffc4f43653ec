"""Where things go in a figure: the range of accuracies, a tick at each value, and a legend that covers no data."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log2
from textwrap import wrap

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

LEAST = 5.0  # points of accuracy: on a shorter axis, noise would look like structure
MARGIN = 0.06  # of the range of the data, on each side
TICK_SIZES = (19, 16, 13)  # points
GAP = 5  # points between two labels
CORNERS = ("lower right", "upper left", "lower left", "upper right")
WIDTH = 24  # characters of a line in the legend


def accuracy_axis(axes: Axes, low: float, high: float) -> None:
    """A vertical axis for accuracies (%) from `low` to `high`, error bars included: see `accuracy_range`."""
    bottom, top = accuracy_range(low, high)
    height = 72 * axes.get_figure().get_figheight()  # points
    ticks = MaxNLocator(nbins=max(2, min(7, int(height / 40))), steps=(1, 2, 5, 10)).tick_values(bottom, top)
    axes.set_ylim(bottom, top)
    axes.set_yticks([tick for tick in ticks if max(bottom, 0) <= tick <= min(top, 100)])


def accuracy_range(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis that show accuracies (%) from `low` to `high` with a margin, and at least five points.

    They stay within 0 and 100 unless an error bar does not.
    """
    room = max(MARGIN * (high - low), (LEAST - (high - low)) / 2)
    bottom, top = low - room, high + room
    if bottom < 0 <= low:
        bottom, top = 0.0, max(top, LEAST)
    if top > 100 >= high:
        bottom, top = min(bottom, 100 - LEAST), 100.0
    return bottom, top


def value_axis(axes: Axes, values: Sequence[float], scale: str) -> None:
    """A horizontal axis (linear, log2 or log10) with a tick at each value, and the value below it.

    If labels would touch, all get smaller, down to a readable size. If that is not enough, every second, third, ...
    keeps its label, counted from the largest.
    """
    if scale != "linear":
        axes.set_xscale("log", base=int(scale.removeprefix("log")))
    values = sorted(set(values))
    labels = tick_labels(values, scale)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(values))
    for step in range(1, len(values) + 1):
        kept = [label if (len(labels) - 1 - i) % step == 0 else "" for i, label in enumerate(labels)]
        axes.xaxis.set_major_formatter(FixedFormatter(kept))
        for size in TICK_SIZES:
            axes.tick_params(axis="x", labelsize=size)
            if _apart([label for label in axes.get_xticklabels() if label.get_text()]):
                return


def tick_labels(values: Sequence[float], scale: str) -> list[str]:
    """Numbers as people write them; powers of two if all are and the axis is log2."""
    if scale == "log2" and all(log2(value).is_integer() for value in values):
        return [f"$2^{{{int(log2(value))}}}$" for value in values]
    return [number(value) for value in values]


def number(value: float) -> str:
    """A number with at most six digits, or an integer with all of them, in groups of three from 10 000 on."""
    if not float(value).is_integer():
        return f"{value:g}"
    return f"{int(value):,}".replace(",", "\u2009") if abs(value) >= 10_000 else str(int(value))


def _apart(labels: Sequence[Text]) -> bool:
    boxes = [label.get_window_extent() for label in labels]
    return all(right.x0 - left.x1 >= GAP * labels[0].figure.dpi / 72 for left, right in pairwise(boxes))


def wrapped(name: str) -> str:
    """A name in lines that a legend has room for; words are not broken."""
    return "\n".join(wrap(name, WIDTH, break_long_words=False, break_on_hyphens=False))


def place_legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str], title: str, inside: bool) -> Legend:
    """A legend in the first corner where it covers nothing, if it may be `inside`; otherwise right of the axes.

    Call it last: later changes of the axes could move data under it.
    """
    about = {"title": wrapped(title), "frameon": False}
    axes.get_figure().draw_without_rendering()  # settles the limits
    for corner in CORNERS if inside else ():
        legend = axes.legend(handles, labels, loc=corner, **about)
        box = legend.get_window_extent()
        if axes.bbox.count_contains(box.corners()) == 4 and not _covers(box, axes):
            return legend
    return axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5), **about)


def _covers(box: Bbox, axes: Axes) -> bool:
    """Whether the box (pixels) touches a marker, line, bar or band."""
    pixels = axes.get_figure().dpi / 72
    return any(path.intersects_bbox(box.padded(pixels * width / 2), filled) for path, width, filled in _drawn(axes))


def _drawn(axes: Axes) -> Iterator[tuple[Path, float, bool]]:
    """What is drawn: paths in pixels, their width in points, and whether they are areas."""
    for line in axes.lines:
        path = line.get_transform().transform_path(line.get_path())
        size = line.get_markersize() if line.get_marker() != "None" else 0
        if line.get_linestyle() == "None":
            yield from ((Path([point]), size, False) for point in path.vertices)
        else:
            yield path, max(size, line.get_linewidth()), False
    for bars in axes.collections:
        for path in bars.get_paths():
            yield bars.get_transform().transform_path(path), max(bars.get_linewidth()), False
    for band in axes.patches:
        yield band.get_transform().transform_path(band.get_path()), 0.0, True
