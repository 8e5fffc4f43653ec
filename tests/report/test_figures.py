"""Figures: lines with error bars, points of a scatter, and files that are the same again."""

import itertools

import numpy as np
import pandas as pd
import pytest
from tidy import ENCODER, PROBE, TWO_ROWS, released, tidy, write_scores

from issl.config.display import Lines, Scatter
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.report import figures, results
from issl.training import pretrain

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


def lines_of(axes):
    """The lines with a name: not the caps of error bars, and not faint ones."""
    return [line for line in axes.lines if not line.get_label().startswith("_")]


def bars_of(axes):
    """(x, lower end, upper end, opacity) of every error bar."""
    return [
        (x, low, high, bars.get_alpha()) for bars in axes.collections for (x, low), (_, high) in bars.get_segments()
    ]


def note_of(axes):
    return axes.get_title(loc="left").split("\n")


def test_a_figure_has_a_line_in_per_cent_for_each_hue(curve):
    axes = figures.draw(curve, LINES).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["CISSL", "CISSL MLP"]
    line = lines_of(axes)[0]
    assert line.get_xdata().tolist() == [128, 512, 2048, 8192]
    assert line.get_ydata() == pytest.approx([43, 44, 45, 46])
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("dim.", "Accuracy (%)")


def test_bars_of_several_seeds_are_the_standard_error_of_their_mean():
    """40, 43 and 49 % have the mean 44 and the standard deviation sqrt((16 + 1 + 25) / 2), over sqrt(3)."""
    seeds = tidy(*[("A", seed, 1e-6, accuracy, None) for seed, accuracy in ((1, 0.40), (2, 0.43), (3, 0.49))])
    axes = figures.draw(seeds.assign(dim=128), LINES).axes[0]
    assert bars_of(axes) == [(128, pytest.approx(44 - 7**0.5), pytest.approx(44 + 7**0.5), None)]
    assert note_of(axes) == ["bars: standard error over 3 seeds"]


def test_light_bars_of_a_single_seed_are_the_error_of_a_share_of_the_test_images():
    """20 % of 10 000 images: sqrt(0.2 * 0.8 / 10 000) is 0.4 points; 50 % of 2500 images: 1 point."""
    one = tidy(("A", 1, 1e-6, 0.2, None)).assign(dim=128, n_test=10_000)
    axes = figures.draw(one, LINES).axes[0]
    [(_, low, high, opacity)] = bars_of(axes)
    assert (low, high) == pytest.approx((19.6, 20.4)) and opacity < 0.7
    assert note_of(axes) == ["light bars: standard error from 10\u2009000 test images, one seed"]
    smaller = tidy(("A", 1, 1e-6, 0.5, None)).assign(dim=512, n_test=2500)
    axes = figures.draw(pd.concat([one, smaller]), LINES).axes[0]
    assert [bar[1:3] for bar in bars_of(axes)] == [pytest.approx((19.6, 20.4)), pytest.approx((49, 51))]
    assert " ".join(note_of(axes)) == "light bars: standard error from 2500 to 10\u2009000 test images, one seed"


def test_bars_of_seeds_and_of_images_differ_and_are_both_explained(curve):
    """The second seed has only reached two of the dimensions."""
    axes = figures.draw(curve[(curve["seed"] == 1) | (curve["dim"] < 2000)], LINES).axes[0]
    opacities = {x: opacity for x, *_, opacity in bars_of(axes)}
    assert opacities == {128: None, 512: None, 2048: figures.LIGHT, 8192: figures.LIGHT}
    assert note_of(axes) == [
        "bars: standard error over 2 seeds",
        "light bars: standard error from 100 test images, one seed",
    ]


def test_a_mean_over_classes_has_no_error_from_test_images(curve):
    axes = figures.draw(curve[curve["seed"] == 1].assign(metric="mean per class"), LINES).axes[0]
    assert bars_of(axes) == [] and note_of(axes) == [""]


@pytest.fixture
def with_references(curve):
    """An untrained encoder at each dimension, and one supervised row of three seeds at dimension 512."""
    untrained = tidy(*[("untrained", 1, 1e-6, 0.05 + 0.01 * i, None) for i in range(4)])
    supervised = tidy(*[("supervised", seed, 1e-6, accuracy, None) for seed, accuracy in ((1, 0.60), (2, 0.63))])
    return pd.concat([untrained.assign(dim=[128, 512, 2048, 8192]), supervised.assign(dim=512), curve])


REFERENCES = LINES.model_copy(update={"reference": ("untrained", "supervised")})


def test_references_are_thin_grey_and_behind_a_level_if_they_have_one_point(with_references):
    axes = figures.draw(with_references, REFERENCES).axes[0]
    by_name = {line.get_label(): line for line in lines_of(axes)}
    assert list(by_name) == ["CISSL", "CISSL MLP", "untrained", "supervised (at $2^{9}$)"]
    *ours, untrained, level = by_name.values()
    assert untrained.get_xydata() == pytest.approx(np.array([[128, 5], [512, 6], [2048, 7], [8192, 8]]))
    assert list(level.get_xdata()) == [0, 1] and list(level.get_ydata()) == pytest.approx([61.5, 61.5])
    for line in (untrained, level):
        assert line.is_dashed() and line.get_color() == figures.GREY
        assert all(line.get_zorder() < our.get_zorder() for our in ours)
        assert all(line.get_linewidth() < our.get_linewidth() for our in ours)
    [band] = axes.patches  # 60 and 63 %: standard error 1.5
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((60, 63))
    assert note_of(axes)[0] == "bars and bands: standard error over 2 seeds"
    assert note_of(axes)[1].startswith("light bars: standard error from 100 test images")


def test_references_do_not_change_the_look_of_the_others(curve, with_references):
    def looks(axes):
        return [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines_of(axes)[:2]]

    with_them = figures.draw(with_references, REFERENCES).axes[0]
    assert looks(with_them) == looks(figures.draw(curve, LINES).axes[0])


def test_a_reference_is_found_by_its_number_and_missed_aloud(curve, caplog):
    by_strength = curve.assign(strength=np.repeat([0.5, 1.0], 8))
    lines = LINES.model_validate({**LINES.model_dump(), "hue": "strength", "reference": [1, "suprevised"]})
    axes = figures.draw(by_strength, lines).axes[0]
    assert [line.get_color() == figures.GREY for line in lines_of(axes)] == [False, True]
    assert "suprevised" in caplog.text


def test_a_line_without_x_is_a_level(curve):
    """Released weights have an unknown augmentation: their accuracy still has a place."""
    lines = LINES.model_copy(update={"x": "strength", "xscale": "linear"})
    ours = curve[curve["dim"] == 128].assign(strength=0.5)
    axes = figures.draw(pd.concat([ours, released("R", 0, 0.7)]), lines).axes[0]
    assert [line.get_label() for line in lines_of(axes)] == ["CISSL", "CISSL MLP", "R"]
    assert list(lines_of(axes)[2].get_ydata()) == pytest.approx([70, 70])
    assert list(axes.get_xticks()) == [0.5]


def test_zero_on_a_log_axis_is_refused(curve):
    lines = LINES.model_copy(update={"x": "strength"})
    with pytest.raises(UserError, match="strength 0 has no place on a log2 axis"):
        figures.draw(curve[curve["dim"] == 128].assign(strength=0.0), lines)


def test_lines_differ_in_colour_dash_and_marker(curve):
    axes = figures.draw(curve, LINES).axes[0]
    looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines_of(axes)]
    assert all(len({look[i] for look in looks}) == 2 for i in range(3))


def test_the_other_selection_is_a_faint_line_where_it_differs(curve):
    axes = figures.draw(curve, LINES).axes[0]
    assert not [line for line in axes.lines if line.get_alpha()] and len(axes.get_legend().get_texts()) == 2
    worse = curve.assign(setting="worse", weight_decay=1e-4, test_acc=curve["test_acc"] - 0.1, holdout_acc=0.9)
    both = pd.concat([curve.assign(holdout_acc=0.1), worse], ignore_index=True)
    axes = figures.draw(both, LINES).axes[0]
    faint = [line for line in axes.lines if line.get_alpha() == 0.6]
    assert faint[0].get_ydata() == pytest.approx([33, 34, 35, 36])
    assert axes.get_legend().get_texts()[-1].get_text() == "selected on held-out"
    axes = figures.draw(both, LINES.model_copy(update={"accuracy": "val_selected"})).axes[0]
    assert lines_of(axes)[0].get_ydata() == pytest.approx([33, 34, 35, 36])
    assert axes.get_legend().get_texts()[-1].get_text() == "selected on test"


SCATTER = Scatter(kind="scatter", x="log_loss", hue="method", xlabel="log loss")
RESULTS = tidy(
    *[("A", seed, 1e-6, accuracy, None) for seed, accuracy in ((1, 0.45), (2, 0.42))],
    *[("B", seed, 1e-6, accuracy, None) for seed, accuracy in ((1, 0.60), (2, 0.62))],
).assign(log_loss=[1.0, 1.1, 2.0, 2.1])


def test_a_scatter_has_a_point_and_a_light_bar_for_each_encoder_and_seed():
    axes = figures.draw(RESULTS.assign(n_test=2500), SCATTER).axes[0]
    drawn = [line.get_xydata() for line in axes.lines]
    assert drawn[0] == pytest.approx(np.array([[1.0, 45], [1.1, 42]]))
    assert drawn[1] == pytest.approx(np.array([[2.0, 60], [2.1, 62]]))
    assert {line.get_linestyle() for line in axes.lines} == {"None"}
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2
    half = 100 * (0.6 * 0.4 / 2500) ** 0.5
    assert bars_of(axes)[2] == (2.0, pytest.approx(60 - half), pytest.approx(60 + half), figures.LIGHT)
    assert note_of(axes) == ["light bars: standard error from 2500 test images, one seed"]


def test_twenty_methods_look_different_against_a_measure():
    """More than there are colours; their representations have a measure instead of a loss."""
    runs = pd.concat(tidy((name, 1, 1e-6, 0.4, None), method=name) for name in map(str, range(20)))
    runs = runs.assign(rank_me=np.linspace(1, 50, 20))
    axes = figures.draw(runs, SCATTER.model_copy(update={"x": "rank_me"})).axes[0]
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx(runs["rank_me"].tolist())
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 20


def test_a_scatter_can_highlight_rows_over_a_falling_axis():
    """Figure 7b of the paper's scripts: one sweep in blue, all others grey, no legend, and only what is above 30 %."""
    rows = [("50 epochs", 1, 1e-6, 0.35, None), ("wide", 1, 1e-6, 0.40, None), ("narrow", 1, 1e-6, 0.29, None)]
    runs = tidy(*rows, method="CISSL").assign(log_loss=[1.2, 1.1, 1.3])
    changes = {"falling": True, "above": 30, "highlight": ("50 epochs",)}
    axes = figures.draw(runs, SCATTER.model_copy(update=changes)).axes[0]
    drawn = [(line.get_color(), line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
    assert drawn == [("gray", [1.1], [40.0]), ("tab:blue", [1.2], [35.0])]
    assert axes.get_legend() is None and axes.xaxis_inverted()
    assert not figures.draw(runs, SCATTER).axes[0].xaxis_inverted()


def test_a_scatter_can_show_one_weight_decay():
    axes = figures.draw(TWO_ROWS.assign(log_loss=1.0), SCATTER.model_copy(update={"weight_decay": 1e-5})).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [pytest.approx([45, 41]), pytest.approx([50, 50])]


def test_released_weights_are_horizontal_lines_in_a_scatter():
    """Their log loss is not known: nothing but their accuracy has a place."""
    both = [released("R", 0, 0.70), released("S", 1, 0.50), released("S", 2, 0.52)]
    axes = figures.draw(pd.concat([RESULTS, *both]), SCATTER).axes[0]
    *points, first, second = axes.lines
    assert [line.get_label() for line in axes.lines] == ["A", "B", "R", "S"]
    assert len(points) == 2 and {line.get_marker() for line in points} == {"o", "X"}
    for line, y in ((first, 70), (second, 51)):  # the mean over the seeds of its probes
        assert line.get_ydata() == pytest.approx([y, y])
        assert list(line.get_xdata()) == [0, 1] and line.get_transform() == axes.get_yaxis_transform(which="grid")
        assert line.is_dashed() and line.get_marker() == "None"
    assert len({line.get_color() for line in axes.lines}) == 4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A", "B", "R", "S"]
    alone = figures.draw(RESULTS, SCATTER).axes[0]
    assert axes.get_xlim() == alone.get_xlim(), "they do not stretch the axis"
    edges = [(band.get_y(), band.get_y() + band.get_height()) for band in axes.patches]
    half = 100 * (0.7 * 0.3 / 100) ** 0.5  # one seed of R; S has 50 and 52 %
    assert edges == [pytest.approx((70 - half, 70 + half)), pytest.approx((50, 52))]
    assert "bands: standard error over 2 seeds" in note_of(axes)


@pytest.mark.parametrize(("hue", "names"), [("dim", ["512", "64"]), ("strength", ["1.0", "2.0"])])
def test_released_weights_have_lines_of_their_own_in_any_scatter(hue, names):
    """As wide as a run of ours, or of unknown augmentation: neither hides them."""
    runs = RESULTS.assign(dim=[512, 512, 64, 64], strength=[1.0, 1.0, 2.0, 2.0])
    both = pd.concat([released("R", 0, 0.70), runs, released("S", 0, 0.50)])
    axes = figures.draw(both, SCATTER.model_copy(update={"hue": hue})).axes[0]
    assert [line.get_label() for line in axes.lines] == [*names, "R", "S"]
    assert [list(line.get_ydata()) for line in axes.lines][2:] == [[70, 70], [50, 50]]


def test_a_scatter_can_show_the_setting_selected_on_held_out_labels():
    worse = RESULTS.assign(setting="worse", test_acc=RESULTS["test_acc"] - 0.1, holdout_acc=0.9)
    both = pd.concat([RESULTS.assign(holdout_acc=0.1), worse, released("R", 0, 0.7)], ignore_index=True)
    axes = figures.draw(both, SCATTER.model_copy(update={"accuracy": "val_selected"})).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([35, 50, 70])


def test_runs_without_log_loss_are_named_in_the_legend_and_not_drawn():
    lacking = RESULTS.assign(log_loss=[1.0] * 2 + [None] * 2)
    axes = figures.draw(lacking, SCATTER).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A", "B: no log loss"]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 0]


def test_a_method_without_log_loss_is_trained_and_only_named(synthetic, make_run, tmp_path):
    """From its history to figure 7b, beside a method with a log loss."""
    rows, methods = [], ("vicreg", "simclr")
    for method in methods:
        run = make_run(method, optim={"epochs": 1, "warmup_epochs": 0})
        pretrain.pretrain(run, 1, synthetic, tmp_path / method, Execution(device="cpu", precision="32"))
        about = {"row": method, "method": method, "encoder": method, "seed": 1}
        about |= {"metrics": ["top-1"], "n_settings": 1, "trained_here": True}
        rows.append(ENCODER | {name: PROBE[name] for name in ("probe", "grid")} | about)
    scores = write_scores(tmp_path / "scores.csv", ("weight decay 1e-6", 0.5, 0.4))
    histories = [tmp_path / method / "history.csv" for method in methods]
    results.aggregate(rows, [scores] * 2, histories).to_csv(tmp_path / "fig7b.csv", index=False)
    axes = figures.draw(results.read_results(tmp_path / "fig7b.csv"), SCATTER).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["simclr", "vicreg: no log loss"]
    [drawn] = [line for line in axes.lines if len(line.get_xdata())]
    assert 0 < drawn.get_xdata()[0] < 20 and drawn.get_ydata() == pytest.approx([50])


def test_a_scatter_of_runs_of_which_none_has_a_log_loss_only_names_them(tmp_path):
    figure = figures.draw(RESULTS.assign(log_loss=float("nan")), SCATTER)
    figures.save(figure, tmp_path / "a.pdf", tmp_path / "a.png")
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A: no log loss", "B: no log loss"]
    assert not any(len(line.get_xdata()) for line in axes.lines)


@pytest.mark.parametrize("name", ["a $\\frac$ b", "$x$", "50 $", "a_b^c", "<b>", "a\nb", "_a"])
def test_names_are_drawn_as_they_are_written(name, tmp_path):
    figure = figures.draw(tidy((name, 1, 1e-4, 0.5, None)).assign(dim=[128]), LINES)
    [text] = figure.axes[0].get_legend().get_texts()
    figures.save(figure, tmp_path / "a.pdf", tmp_path / "a.png")
    assert text.get_text().strip().replace("\\$", "$") == name.replace("\n", " ")


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
    for ending in ("pdf", "png"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert b"/Subtype /Image" not in (tmp_path / "a.pdf").read_bytes()


def test_palettes_are_distinguishable_in_greyscale():
    """Lightness alone tells the lines of the sequential palette apart; the categorical one adds dashes and markers."""

    def luminance(color):
        return sum(w * int(color[i : i + 2], 16) for w, i in ((0.299, 1), (0.587, 3), (0.114, 5)))

    light = [luminance(color) for color in figures._colors("sequential", 3)]
    assert all(a - b > 40 for a, b in itertools.pairwise(light))
