"""Where things go in a figure, measured in pixels on what matplotlib has drawn."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tidy import tidy

from issl.config.display import Lines
from issl.report import figures
from issl.report.layout import accuracy_range, place_legend, value_axis

LINES = Lines(kind="lines", x="dim", hue="method", xscale="log2", xlabel="dim.")


def axes_with(values, scale, width=5.0):
    axes = Figure(figsize=(width, 5)).add_axes((0, 0, 1, 1))
    axes.plot(values, np.zeros(len(values)))
    value_axis(axes, values, scale)
    return axes


def ticks_of(axes):
    """Tick positions in pixels by label, as drawn."""
    axes.figure.draw_without_rendering()
    ticks = axes.xaxis.get_major_ticks()
    return [(tick.get_loc(), tick.label1.get_text()) for tick in ticks], [tick.label1 for tick in ticks]


@pytest.mark.parametrize(
    ("values", "scale", "labels"),
    [
        ([8192, 128, 512, 2048, 128], "log2", ["$2^{7}$", "$2^{9}$", "$2^{11}$", "$2^{13}$"]),
        ([16, 64, 256], "log2", ["$2^{4}$", "$2^{6}$", "$2^{8}$"]),
        ([384, 512, 1024], "log2", ["384", "512", "1024"]),
        ([0.25, 0.5, 1.0], "log2", ["$2^{-2}$", "$2^{-1}$", "$2^{0}$"]),
        ([200, 1000, 10_000, 100_000], "log10", ["200", "1000", "10\u2009000", "100\u2009000"]),
        ([20, 100, 300], "log10", ["20", "100", "300"]),
        ([0.25, 1.0, 2.0], "linear", ["0.25", "1", "2"]),
        ([512], "log2", ["$2^{9}$"]),
        ([], "log2", []),
    ],
)
def test_every_value_has_a_tick_with_its_label(values, scale, labels):
    axes = axes_with(values, scale)
    ticks, _ = ticks_of(axes)
    assert ticks == list(zip(sorted(set(values)), labels))
    assert len(axes.xaxis.get_minorticklocs()) == 0
    low, high = axes.get_xlim()
    assert all(low < value < high for value in values)


@pytest.mark.parametrize("width", [2.0, 5.0, 9.0])
@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (list(range(100, 1300, 100)), "linear"),
        ([2**k for k in range(4, 14)], "log2"),
        ([10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000], "log10"),
        ([1000, 1001, 1002, 5000], "linear"),
    ],
)
def test_labels_of_dense_values_never_touch(values, scale, width):
    """Each value keeps its tick; the largest keeps its label, and the labels get smaller before any goes."""
    axes = axes_with(values, scale, width)
    ticks, labels = ticks_of(axes)
    assert [value for value, _ in ticks] == values and ticks[-1][1]
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert min(label.get_fontsize() for label in labels) >= 13


def test_labels_get_smaller_before_any_is_left_out():
    _, labels = ticks_of(axes_with(list(range(100, 1000, 100)), "linear"))
    assert all(label.get_text() for label in labels) and {label.get_fontsize() for label in labels} < {13, 16}


@pytest.mark.parametrize(
    ("low", "high", "limits"),
    [
        (44.9, 45.1, (42.5, 47.5)),  # five points at least
        (40.0, 50.0, (39.4, 50.6)),
        (1.0, 1.2, (0.0, 5.0)),  # no accuracy is below 0 or above 100
        (99.0, 99.5, (95.0, 100.0)),
        (0.0, 100.0, (0.0, 100.0)),
        (-1.0, 3.0, (-1.5, 3.5)),  # an error bar may be
    ],
)
def test_the_range_of_accuracies(low, high, limits):
    assert accuracy_range(low, high) == pytest.approx(limits)


@pytest.mark.parametrize("accuracies", [(0.002, 0.004), (0.45, 0.452), (0.1, 0.9), (0.998, 1.0), (0.0, 0.0)])
def test_nothing_is_clipped_and_ticks_are_accuracies(accuracies):
    results = tidy(*[("A", seed, 1e-6, a, None) for seed, a in enumerate(accuracies)]).assign(dim=[128, 512])
    axes = figures.draw(results, LINES).axes[0]
    bottom, top = axes.get_ylim()
    drawn = [100 * a for a in accuracies] + [
        y for bars in axes.collections for y in np.ravel(bars.get_segments())[1::2]
    ]
    assert bottom <= min(drawn) and max(drawn) <= top and top - bottom >= 5
    assert all(0 <= tick <= 100 for tick in axes.get_yticks()) and len(axes.get_yticks()) >= 3


def test_the_other_selection_is_not_clipped():
    chosen, other = [("A", 1, decay, a, held_out) for decay, a, held_out in ((1e-6, 0.6, 0.1), (1e-5, 0.3, 0.2))]
    axes = figures.draw(tidy(chosen, other).assign(dim=128, n_test=10_000), LINES).axes[0]
    assert axes.get_ylim()[0] < 30 and axes.get_ylim()[1] > 60


def random_figure(number):
    """Curves of a random shape: rising, falling or flat, few or many, with names of any length."""
    rng = np.random.default_rng(number)
    dims = 2 ** np.arange(5, 5 + rng.integers(1, 8))
    names = ["CISSL", "MLP", "supervised", "DINO (official recipe) with a long name"][: rng.integers(1, 5)]
    parts = []
    for name in names:
        curve = rng.uniform(0.4, 0.5) + rng.uniform(-0.1, 0.4) * np.linspace(0, 1, len(dims)) ** rng.choice([0.3, 3])
        for seed in range(rng.integers(1, 4)):
            accuracy = np.clip(curve + rng.normal(0, 0.02, len(dims)), 0, 1)
            chosen = [(name, seed, 1e-6, a, 0.5) for a in accuracy]
            other = [(name, seed, 1e-5, a - 0.03, 0.6) for a in accuracy] if number % 4 == 0 else []
            parts.append(tidy(*chosen, *other).assign(dim=np.tile(dims, len(chosen + other) // len(dims))))
    lines = LINES.model_copy(update={"reference": ("supervised",), "legend_title": None if number % 3 else "Method"})
    return figures.draw(pd.concat(parts), lines)


def ink(axes):
    """Pixels along every line, bar and edge of a band, and where the markers are."""
    for line in axes.lines:
        corners = line.get_transform().transform(np.column_stack(line.get_data()).astype(float))
        yield corners
        if line.get_linestyle() != "None":
            yield dense(corners)
    for bars in axes.collections:
        for segment in bars.get_segments():
            yield dense(axes.transData.transform(segment))
    for band in axes.patches:
        left, bottom, right, top = band.get_window_extent().extents
        for y in np.linspace(bottom, top, 20):
            yield dense(np.array([[left, y], [right, y]]))


def dense(corners):
    along, steps = np.arange(len(corners)), np.linspace(0, len(corners) - 1, 400 * len(corners))
    return np.column_stack([np.interp(steps, along, corners[:, axis]) for axis in (0, 1)])


def test_the_legend_covers_nothing_and_is_inside_where_it_fits():
    places = []
    for number in range(12):
        axes = random_figure(number).axes[0]
        axes.figure.draw_without_rendering()
        box = axes.get_legend().get_window_extent()
        covered = [
            ((points > (box.x0, box.y0)) & (points < (box.x1, box.y1))).all(axis=1).any() for points in ink(axes)
        ]
        assert not any(covered), f"figure {number}"
        places.append("inside" if box.x1 < axes.bbox.x1 else "outside")
        assert places[-1] == "inside" or box.x0 >= axes.bbox.x1, f"figure {number}"
    assert min(places.count("inside"), places.count("outside")) >= 3, places


OBSTACLES = {
    "a marker in each corner": lambda axes: [axes.plot(x, y, "o") for x in (0.1, 0.9) for y in (0.04, 0.96)],
    "lines whose ends are elsewhere": lambda axes: [axes.plot([-1, 2], [y, y]) for y in (0.04, 0.96)],
    "error bars": lambda axes: axes.errorbar([0.1, 0.9], [0.5, 0.5], yerr=0.48, fmt="none"),
    "bands": lambda axes: [axes.axhspan(y, y + 0.3, linewidth=0) for y in (0, 0.7)],
    "wide lines just beside": lambda axes: [axes.plot([0, 1], [y, y], linewidth=60) for y in (0.12, 0.88)],
}


@pytest.mark.parametrize("draw", OBSTACLES.values(), ids=OBSTACLES)
def test_no_kind_of_drawing_is_covered(draw):
    def legend(*obstacles):
        axes = Figure(figsize=(5, 5)).add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, 1))
        for obstacle in obstacles:
            obstacle(axes)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        handles = axes.plot([], [])
        return axes.bbox, place_legend(axes, handles, ["the name"], "", inside=True).get_window_extent()

    frame, box = legend()
    assert frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 < box.y1 < frame.height / 3
    frame, box = legend(draw)
    assert box.x0 >= frame.x1


def test_between_two_markers_there_is_room():
    axes = Figure(figsize=(5, 5)).add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, 1))
    markers = axes.plot([0.5, 1.0], [0.1, 0.04], "o", markersize=1)
    legend = place_legend(axes, markers, ["the name"], "", inside=True)
    assert legend.get_window_extent().x1 < axes.bbox.x1 and legend.get_window_extent().y1 < axes.bbox.height / 2


def test_a_legend_that_is_larger_than_the_axes_is_outside():
    axes = Figure(figsize=(5, 5)).add_axes((0, 0, 1, 1))
    legend = place_legend(axes, axes.plot([], []), ["one_very_long_word_" * 4], "", inside=True)
    assert legend.get_window_extent().x0 >= axes.bbox.x1


def test_a_legend_in_each_corner_and_outside():
    """A single line leaves certain corners free; noise from corner to corner leaves none."""

    def corner(accuracies):
        rows = [("A", seed, 1e-6, a, None) for seed, a in enumerate(accuracies)]
        axes = figures.draw(tidy(*rows).assign(dim=2 ** np.arange(5, 5 + len(rows)), n_test=10**6), LINES).axes[0]
        box, middle = axes.get_legend().get_window_extent(), axes.bbox
        centre = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        return (
            "outside"
            if box.x0 >= middle.x1
            else tuple(
                "high" if at > (low + high) / 2 else "low"
                for at, low, high in zip(centre, (middle.x0, middle.y0), (middle.x1, middle.y1))
            )
        )

    assert corner([0.1, 0.5, 0.8, 0.9]) == ("high", "low")
    assert corner([0.1, 0.1, 0.1, 0.9, 0.1]) == ("low", "high")
    assert corner([0.9, 0.9, 0.9, 0.1, 0.9, 0.1]) == ("low", "low")
    assert corner([0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1]) == "outside"


def test_long_names_are_wrapped():
    axes = figures.draw(tidy(("DINO (official recipe) with a $ and more", 1, 1e-6, 0.5, None)), LINES).axes[0]
    [text] = axes.get_legend().get_texts()
    assert text.get_text() == "DINO (official recipe)\nwith a \\$ and more"
