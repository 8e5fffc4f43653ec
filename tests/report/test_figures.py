"""Figures: lines with error bars, points of a scatter, and files that are the same again."""

import itertools

import numpy as np
import pandas as pd
import pytest
from tidy import released, tidy

from issl.config.display import Lines, Scatter
from issl.report import figures

LINES = Lines(kind="lines", x="dim", hue="method", xscale="log2", xlabel="dim.")


@pytest.fixture
def curve():
    rows = [
        (method, seed, 1e-6, 0.4 + 0.01 * i + 0.02 * seed, None)
        for method in ("CISSL", "CISSL MLP")
        for i in range(4)
        for seed in (1, 2)
    ]
    return tidy(*rows).assign(dim=np.tile(np.repeat([128, 512, 2048, 8192], 2), 2))


def test_a_figure_has_a_line_for_each_hue_with_error_bars(curve):
    axes = figures.draw(curve, LINES).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["CISSL", "CISSL MLP"]
    line, _, bars = axes.containers[0]
    assert line.get_xdata().tolist() == [128, 512, 2048, 8192]
    assert line.get_ydata() == pytest.approx([0.43, 0.44, 0.45, 0.46])
    lower, upper = bars[0].get_segments()[0][:, 1]
    assert upper - lower == pytest.approx(2 * 0.01)
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("dim.", "Accuracy")


def test_a_single_seed_has_no_error_bars(curve):
    axes = figures.draw(curve[curve["seed"] == 1], LINES).axes[0]
    assert not axes.containers[0].has_yerr


def test_lines_differ_in_colour_dash_and_marker(curve):
    axes = figures.draw(curve, LINES).axes[0]
    looks = [(c[0].get_color(), c[0].get_linestyle(), c[0].get_marker()) for c in axes.containers]
    assert all(len({look[i] for look in looks}) == 2 for i in range(3))


def test_the_other_selection_is_a_faint_line_where_it_differs(curve):
    axes = figures.draw(curve, LINES).axes[0]
    assert not [line for line in axes.lines if line.get_alpha()] and len(axes.get_legend().get_texts()) == 2
    worse = curve.assign(setting="worse", weight_decay=1e-4, test_acc=curve["test_acc"] - 0.1, holdout_acc=0.9)
    both = pd.concat([curve.assign(holdout_acc=0.1), worse], ignore_index=True)
    axes = figures.draw(both, LINES).axes[0]
    faint = [line for line in axes.lines if line.get_alpha() == 0.6]
    assert faint[0].get_ydata() == pytest.approx([0.33, 0.34, 0.35, 0.36])
    assert axes.get_legend().get_texts()[-1].get_text() == "selected on held-out"
    axes = figures.draw(both, LINES.model_copy(update={"accuracy": "val_selected"})).axes[0]
    assert axes.containers[0][0].get_ydata() == pytest.approx([0.33, 0.34, 0.35, 0.36])
    assert axes.get_legend().get_texts()[-1].get_text() == "selected on test"


SCATTER = Scatter(kind="scatter", x="log_loss", hue="method", xlabel="log loss")
RESULTS = tidy(
    *[("A", seed, 1e-6, accuracy, None) for seed, accuracy in ((1, 0.45), (2, 0.42))],
    *[("B", seed, 1e-6, accuracy, None) for seed, accuracy in ((1, 0.60), (2, 0.62))],
).assign(log_loss=[1.0, 1.1, 2.0, 2.1])


def test_a_scatter_has_a_point_for_each_encoder_and_seed():
    axes = figures.draw(RESULTS, SCATTER).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[1.0, 0.45], [1.1, 0.42]],
        [[2.0, 0.60], [2.1, 0.62]],
    ]
    assert {line.get_linestyle() for line in axes.lines} == {"None"}
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2


def test_released_weights_are_horizontal_lines_in_a_scatter():
    """Their log loss is not known: nothing but their accuracy has a place."""
    both = [released("R", 0, 0.70), released("S", 1, 0.50), released("S", 2, 0.52)]
    axes = figures.draw(pd.concat([RESULTS, *both]), SCATTER).axes[0]
    *points, first, second = axes.lines
    assert [line.get_label() for line in axes.lines] == ["A", "B", "R", "S"]
    assert len(points) == 2 and {line.get_marker() for line in points} == {"o", "X"}
    for line, y in ((first, 0.70), (second, 0.51)):  # the mean over the seeds of its probes
        assert line.get_ydata() == pytest.approx([y, y])
        assert list(line.get_xdata()) == [0, 1] and line.get_transform() == axes.get_yaxis_transform(which="grid")
        assert line.is_dashed() and line.get_marker() == "None"
    assert len({line.get_color() for line in axes.lines}) == 4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A", "B", "R", "S"]
    alone = figures.draw(RESULTS, SCATTER).axes[0]
    assert axes.get_xlim() == alone.get_xlim(), "they do not stretch the axis"


@pytest.mark.parametrize(("hue", "names"), [("dim", ["512", "64"]), ("strength", ["1.0", "2.0"])])
def test_released_weights_have_lines_of_their_own_in_any_scatter(hue, names):
    """As wide as a run of ours, or of unknown augmentation: neither hides them."""
    runs = RESULTS.assign(dim=[512, 512, 64, 64], strength=[1.0, 1.0, 2.0, 2.0])
    both = pd.concat([released("R", 0, 0.70), runs, released("S", 0, 0.50)])
    axes = figures.draw(both, SCATTER.model_copy(update={"hue": hue})).axes[0]
    assert [line.get_label() for line in axes.lines] == [*names, "R", "S"]
    assert [list(line.get_ydata()) for line in axes.lines][2:] == [[0.70, 0.70], [0.50, 0.50]]


def test_a_scatter_can_show_the_setting_selected_on_held_out_labels():
    worse = RESULTS.assign(setting="worse", test_acc=RESULTS["test_acc"] - 0.1, holdout_acc=0.9)
    both = pd.concat([RESULTS.assign(holdout_acc=0.1), worse, released("R", 0, 0.7)], ignore_index=True)
    axes = figures.draw(both, SCATTER.model_copy(update={"accuracy": "val_selected"})).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([0.35, 0.50, 0.7])


def test_runs_without_log_loss_are_named_in_the_legend_and_not_drawn():
    lacking = RESULTS.assign(log_loss=[1.0] * 2 + [None] * 2)
    axes = figures.draw(lacking, SCATTER).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A", "B: no log loss"]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 0]


@pytest.mark.parametrize("name", ["a $\\frac$ b", "$x$", "50 $", "a_b^c", "<b>", "a\nb"])
def test_names_are_drawn_as_they_are_written(name, tmp_path):
    figure = figures.draw(tidy((name, 1, 1e-4, 0.5, None)).assign(dim=[128]), LINES)
    [text] = figure.axes[0].get_legend().get_texts()
    figures.save(figure, tmp_path / "a.pdf", tmp_path / "a.png")
    assert text.get_text().replace("\\$", "$") == name.replace("\n", " ")


def test_a_label_that_is_no_formula_is_drawn_as_it_is(tmp_path, caplog):
    lines = LINES.model_copy(update={"xlabel": "cost in $\\frac$", "ylabel": "$\\mathcal{Z}$ dim."})
    figure = figures.draw(tidy(("A", 1, 1e-4, 0.5, None)).assign(dim=[128]), lines)
    figures.save(figure, tmp_path / "a.pdf", tmp_path / "a.png")
    assert figure.axes[0].get_xlabel() == "cost in \\$\\frac\\$" and figure.axes[0].get_ylabel() == lines.ylabel
    assert "drawn without formulas" in caplog.text


def test_saved_figures_are_vector_and_raster_and_reproducible(curve, tmp_path):
    for name in ("a", "b"):
        figures.save(figures.draw(curve, LINES), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    assert (tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-"
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert b"/Subtype /Image" not in (tmp_path / "a.pdf").read_bytes()


def test_palettes_are_distinguishable_in_greyscale():
    """Lightness alone tells the lines of the sequential palette apart; the categorical one adds dashes and markers."""

    def luminance(color):
        return sum(w * int(color[i : i + 2], 16) for w, i in ((0.299, 1), (0.587, 3), (0.114, 5)))

    light = [luminance(color) for color in figures._colors("sequential", 3)]
    assert all(a - b > 40 for a, b in itertools.pairwise(light))
