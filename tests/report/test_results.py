"""From scores to numbers: choices, seeds, tables, figures."""

import itertools

import numpy as np
import pandas as pd
import pytest

from issl.config.display import Lines, Scatter, Table
from issl.config.evidence import Published
from issl.errors import UserError
from issl.report import figures, tables
from issl.report.results import aggregate, chosen, over_seeds, points


def scores(*rows):
    """Tidy results of one run a row label: (row, seed, weight decay, test, held out)."""
    frame = pd.DataFrame(rows, columns=["row", "seed", "weight_decay", "test_acc", "holdout_acc"])
    facts = {"dim": 512, "n_labels": 100, "n_test": 100, "probe": "linear", "fraction": 1.0, "probe_epochs": 100}
    return frame.assign(method=frame["row"], family="linear", run=frame["row"], grid="g", log_loss=1.0, **facts)


RESULTS = scores(
    ("A", 1, 1e-4, 0.40, 0.50),
    ("A", 1, 1e-5, 0.45, 0.30),
    ("A", 2, 1e-4, 0.42, 0.20),
    ("A", 2, 1e-5, 0.41, 0.30),
    ("B", 1, 1e-4, 0.60, 0.50),
    ("B", 1, 1e-5, 0.50, 0.40),
    ("B", 2, 1e-4, 0.62, 0.50),
    ("B", 2, 1e-5, 0.50, 0.40),
)


def test_settings_are_selected_on_test_and_on_held_out_labels():
    picked = chosen(RESULTS).set_index(["row", "seed"])
    assert picked["published"].tolist() == [0.45, 0.42, 0.60, 0.62]
    assert picked["honest"].tolist() == [0.40, 0.41, 0.60, 0.62]


def test_held_out_selection_never_exceeds_test_selection():
    draws = np.random.default_rng(0)
    rows = [("A", seed, decay, *draws.random(2)) for seed in range(50) for decay in (1e-4, 1e-5, 1e-6)]
    picked = chosen(scores(*rows))
    assert (picked["honest"] <= picked["published"]).all()
    assert (picked["honest"] < picked["published"]).any()


def test_without_a_choice_both_selections_agree():
    picked = chosen(scores(("A", 1, 1e-6, 0.3, None)))
    assert picked["published"].item() == picked["honest"].item() == 0.3


def test_a_figure_can_fix_the_weight_decay():
    assert chosen(RESULTS, weight_decay=1e-5)["published"].tolist() == [0.45, 0.41, 0.50, 0.50]
    with pytest.raises(UserError, match=r"no probe with weight decay 1\.0"):
        chosen(RESULTS, weight_decay=1.0)


def test_a_missing_held_out_accuracy_is_an_error():
    with pytest.raises(UserError, match="row 'A': held-out accuracy is missing"):
        chosen(scores(("A", 1, 1e-4, 0.4, None), ("A", 1, 1e-5, 0.5, 0.1)))


def test_mean_and_standard_error_over_seeds():
    summary = over_seeds(chosen(RESULTS), ["row"]).set_index("row")
    assert summary.loc["B", "published"] == pytest.approx(0.61)
    assert summary.loc["B", "published_sem"] == pytest.approx(0.01)  # sample deviation 0.0141 / sqrt(2)
    assert summary["seeds"].tolist() == [2, 2]


def test_only_results_that_differ_in_seed_are_averaged():
    with pytest.raises(UserError, match="several results share one place"):
        over_seeds(chosen(RESULTS), ["dim"])


def test_aggregate_joins_the_settings_of_a_run_with_its_scores(tmp_path, history):
    path = tmp_path / "scores.csv"
    path.write_text(
        "probe,weight_decay,fraction,n_labels,probe_epochs,test_acc,holdout_acc\nlinear,1e-06,1.0,9,1,0.5,\n"
    )
    table = aggregate([{"row": "+ dim.", "seed": 1}, {"row": "+ dim.", "seed": 2}], [path, path], [history, history])
    assert table[["row", "seed", "test_acc"]].values.tolist() == [["+ dim.", 1, 0.5], ["+ dim.", 2, 0.5]]


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,test_log_loss\n0,3.0,2.5\n1,2.0,\n2,1.0,1.5\n")
    return path


def test_the_log_loss_comes_from_the_last_epoch(tmp_path, history):
    path = tmp_path / "scores.csv"
    path.write_text("probe,test_acc\nlinear,0.5\nmlp,0.6\n")
    assert aggregate([{"row": "A"}], [path], [history])["log_loss"].tolist() == [1.5, 1.5]
    history.write_text("epoch,loss\n0,3.0\n")  # a method without one
    assert aggregate([{"row": "A"}], [path], [history])["log_loss"].isna().all()


def test_nothing_to_aggregate_is_one_line():
    with pytest.raises(UserError, match="no result of this experiment is there yet"):
        aggregate([], [], [])


@pytest.mark.parametrize("content", ["probe,test_acc\nlinear,\n", "probe,test_acc\n", "probe\nlinear\n"])
def test_a_score_file_without_its_metric_is_named(tmp_path, history, content):
    path = tmp_path / "scores.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"scores\.csv: no test accuracy"):
        aggregate([{"row": "A", "seed": 1}], [path], [history])


# --- tables ---

TABLE = Table(caption="A 100 % table.")
PUBLISHED = Published(source="a paper", precision=0.05, values={"A": 45.2})


def test_a_markdown_table_has_published_and_reproduced_columns():
    text = tables.markdown(tables.grid(RESULTS, TABLE, PUBLISHED), TABLE.caption)
    assert "**A 100 % table.**" in text
    assert "| A | 45.2 | 43.5 ± 1.5 | 40.5 ± 0.5 | 3.0 | 2 |" in text
    assert "| B | – | 61.0 ± 1.0 | 61.0 ± 1.0 | 0.0 | 2 |" in text


@pytest.mark.parametrize("published", [None, Published(source="not available")])
def test_a_table_without_published_numbers_lacks_the_column(published):
    grid = tables.grid(RESULTS, TABLE, published)
    text = tables.markdown(grid)
    assert "published" not in text and "| A | 43.5 ± 1.5 | 40.5 ± 0.5 | 3.0 | 2 |" in text
    assert "{lrrrr}" in tables.latex(grid, TABLE.caption)


def test_a_single_seed_has_no_error():
    assert tables.grid(RESULTS[RESULTS["seed"] == 1], TABLE, None).rows[0] == ("A", "45.0", "40.0", "5.0", "1")


def test_a_table_can_have_columns_for_fractions_of_labels():
    few = RESULTS[RESULTS["row"] == "A"].assign(fraction=0.02, test_acc=0.1)
    published = Published(source="a paper", precision=0.05, values={"A": {0.02: 9.9}})
    grid = tables.grid(pd.concat([RESULTS, few]), Table(caption="", columns="fraction"), published)
    assert grid.header[1::5] == ("100 % of labels, published", "2 % of labels, published")
    assert grid.rows[0] == (
        "A",
        "–",
        "43.5 ± 1.5",
        "40.5 ± 0.5",
        "3.0",
        "2",
        "9.9",
        "10.0 ± 0.0",
        "10.0 ± 0.0",
        "0.0",
        "2",
    )
    assert grid.rows[1][6:] == ("–",) * 5


def test_latex_special_characters_are_escaped():
    grid = tables.Grid(("",) * 5, [("50 % & _x_", "–", "1.0 ± 0.1", "1.0", "1")])
    text = tables.latex(grid, "A 100 % table.")
    assert r"50 \% \& \_x\_ & -- & 1.0 $\pm$ 0.1 & 1.0 & 1 \\" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1


# --- figures ---

LINES = Lines(kind="lines", x="dim", hue="method", xscale="log2", xlabel="dim.")


@pytest.fixture
def curve():
    rows = [
        (method, seed, 1e-6, 0.4 + 0.01 * i + 0.02 * seed, None)
        for method in ("CISSL", "CISSL MLP")
        for i in range(4)
        for seed in (1, 2)
    ]
    return scores(*rows).assign(dim=np.tile(np.repeat([128, 512, 2048, 8192], 2), 2))


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
    worse = curve.assign(weight_decay=1e-4, test_acc=curve["test_acc"] - 0.1, holdout_acc=0.9)
    both = pd.concat([curve.assign(holdout_acc=0.1), worse])
    axes = figures.draw(both, LINES).axes[0]
    faint = [line for line in axes.lines if line.get_alpha() == 0.6]
    assert faint[0].get_ydata() == pytest.approx([0.33, 0.34, 0.35, 0.36])
    assert axes.get_legend().get_texts()[-1].get_text() == "chosen on held-out"


SCATTER = Scatter(kind="scatter", x="log_loss", hue="method", xlabel="log loss")


def test_a_scatter_has_a_point_for_each_run_and_seed_of_the_probe_family():
    other = RESULTS.assign(probe="mlp", test_acc=0.9)
    few = RESULTS.assign(fraction=0.1, test_acc=0.9)
    again = RESULTS.assign(grid="later", row="another experiment", test_acc=0.9)
    results = pd.concat([RESULTS, other, few, again])
    assert points(results, SCATTER)["published"].tolist() == [0.45, 0.42, 0.60, 0.62]
    axes = figures.draw(results, SCATTER).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 2]
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2


def test_a_scatter_names_a_run_without_log_loss():
    lacking = RESULTS.assign(log_loss=[1.0] * 4 + [None] * 4)
    with pytest.raises(UserError, match=r"run B: its history\.csv has no test_log_loss"):
        figures.draw(lacking, SCATTER)


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
