"""From score files to one number a point: tidy results, the selection of a setting, and seeds."""

import numpy as np
import pandas as pd
import pytest
from tidy import TWO_ROWS, released, tidy, write_scores

from issl.config.display import Lines, Scatter, Table
from issl.errors import UserError
from issl.probing.scores import COLUMNS
from issl.report.results import (
    MEASURES,
    NUMBERS,
    SCORES,
    TEXT,
    aggregate,
    over_seeds,
    points,
    read_results,
    read_scores,
    selected,
)

# --- selection ---


def test_settings_are_selected_on_test_and_on_held_out_labels():
    picked = selected(TWO_ROWS).set_index(["row", "seed"])
    assert picked["test_selected"].tolist() == [0.45, 0.42, 0.60, 0.62]
    assert picked["val_selected"].tolist() == [0.40, 0.41, 0.60, 0.62]


def test_held_out_selection_never_exceeds_test_selection():
    draws = np.random.default_rng(0)
    rows = [("A", seed, decay, *draws.random(2)) for seed in range(50) for decay in (1e-4, 1e-5, 1e-6)]
    picked = selected(tidy(*rows))
    assert (picked["val_selected"] <= picked["test_selected"]).all()
    assert (picked["val_selected"] < picked["test_selected"]).any()


def test_where_there_is_one_setting_both_selections_agree():
    picked = selected(tidy(("A", 1, 1e-6, 0.3, None)))
    assert picked["test_selected"].item() == picked["val_selected"].item() == 0.3


def test_settings_of_any_kind_compete():
    """As the C of a classifier does, which has no weight decay."""
    rows = tidy(("A", 1, 0, 0.8, 0.1), ("A", 1, 0, 0.7, 0.3), ("A", 1, 0, 0.6, 0.2), kind="svm", weight_decay=None)
    picked = selected(rows.assign(setting=["C = 0.1", "C = 1", "C = 10"]))
    assert picked[["test_selected", "val_selected"]].values.tolist() == [[0.8, 0.7]]


def test_only_a_setting_with_held_out_scores_can_be_selected_on_them():
    rows = tidy(("A", 1, 0, 0.8, None), ("A", 1, 1, 0.7, 0.1), ("A", 1, 2, 0.6, 0.05))
    assert selected(rows)[["test_selected", "val_selected"]].values.tolist() == [[0.8, 0.7]]


def test_a_selection_without_held_out_scores_is_refused():
    with pytest.raises(UserError, match="row 'A': held-out accuracy is missing; run its probe again"):
        selected(tidy(("A", 1, 1e-4, 0.4, None), ("A", 1, 1e-5, 0.5, None)))


@pytest.mark.parametrize("first", ["top-1", "top-5"])
def test_the_first_metric_selects_the_setting_for_all_metrics(first):
    top1 = tidy(("A", 1, 1e-4, 0.70, 0.3), ("A", 1, 1e-5, 0.60, 0.4))
    top5 = tidy(("A", 1, 1e-4, 0.80, 0.9), ("A", 1, 1e-5, 0.95, 0.7), metric="top-5")
    picked = selected(pd.concat([top1, top5] if first == "top-1" else [top5, top1])).set_index("metric")
    assert (
        picked.loc["top-1", ["test_selected", "val_selected"]].tolist()
        == {
            "top-1": [0.70, 0.60],
            "top-5": [0.60, 0.70],
        }[first]
    )
    assert (
        picked.loc["top-5", ["test_selected", "val_selected"]].tolist()
        == {
            "top-1": [0.80, 0.95],
            "top-5": [0.95, 0.80],
        }[first]
    )


def test_results_with_unknown_values_are_selected_as_well():
    """Released weights say nothing of their batch or augmentation, which an empty cell stands for."""
    picked = selected(pd.concat([TWO_ROWS, released("R", 0, 0.7), released("S", 0, 0.8)]))
    assert picked.set_index("row").loc[["R", "S"], "test_selected"].tolist() == [0.7, 0.8]
    assert len(picked) == 6


# --- points and seeds ---


def test_points_are_named_by_what_a_display_tells_them_apart_by():
    few = TWO_ROWS.assign(fraction=0.02, probe="mlp")
    results = pd.concat([TWO_ROWS, few, TWO_ROWS.assign(fraction=0.02, metric="top-5", probe="mlp")])

    def names(display):
        found = points(results, display)
        return set(zip(found["line"], found["column"]))

    assert names(Table(caption="", columns=["probe", "fraction", "metric"])) == {
        (row, column) for row in "AB" for column in ("linear, 1, top-1", "mlp, 0.02, top-1", "mlp, 0.02, top-5")
    }
    assert names(Table(caption="")) == {("A", ""), ("B", "")}
    assert names(Lines(kind="lines", x="dim", hue="probe", xlabel="")) == {("linear", "512"), ("mlp", "512")}


def test_a_figure_can_show_one_weight_decay():
    lines = Lines(kind="lines", x="dim", hue="method", xlabel="dim.", weight_decay=1e-5)
    assert points(TWO_ROWS, lines)["test_selected"].tolist() == [0.45, 0.41, 0.50, 0.50]
    with pytest.raises(UserError, match=r"no probe with weight decay 1\.0"):
        points(TWO_ROWS, lines.model_copy(update={"weight_decay": 1.0}))


def test_mean_and_standard_error_over_seeds():
    summary = over_seeds(selected(TWO_ROWS), ["row"]).set_index("row")
    assert summary.loc["B", "test_selected"] == pytest.approx(0.61)
    assert summary.loc["B", "test_selected_sem"] == pytest.approx(0.01)  # sample deviation 0.0141 / sqrt(2)
    assert summary.loc["A", ["val_selected", "val_selected_sem"]].tolist() == pytest.approx([0.405, 0.005])
    assert summary["seeds"].tolist() == [2, 2] and summary["n_test"].tolist() == [100, 100]


def test_only_results_that_differ_in_seed_are_averaged():
    with pytest.raises(UserError, match="several results share one place"):
        over_seeds(selected(TWO_ROWS), ["dim"])


# --- aggregation ---


def row(label="A", seed=1, metrics=("top-1",), **facts):
    """What the plan says of a score file."""
    about = {"row": label, "released": False, "trained_here": True, "epochs": 3, "seed": seed}
    return about | {"metrics": list(metrics), "n_settings": 1} | facts


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,test_log_loss\n0,3.0,2.5\n1,2.0,\n2,1.0,1.5\n")
    return path


def test_aggregate_joins_what_the_plan_says_with_the_scores(tmp_path, history):
    path = write_scores(tmp_path / "scores.csv", ("x", 0.5, 0.4), ("y", 0.6, 0.3))
    rows = [row("+ dim.", 1, dim=64), row("+ dim.", 2, dim=64)]
    table = aggregate(rows, [path, path], [history, history])
    assert table[["row", "seed", "dim", "setting", "test_acc"]].values.tolist() == [
        ["+ dim.", seed, 64, setting, test] for seed in (1, 2) for setting, test in (("x", 0.5), ("y", 0.6))
    ]
    assert list(table) == ["row", "released", "epochs", "seed", "dim", "log_loss", *SCORES]


def test_score_files_are_written_as_they_are_read():
    assert COLUMNS == SCORES


def test_the_log_loss_comes_from_the_last_epoch(tmp_path, history):
    path = write_scores(tmp_path / "scores.csv", ("x", 0.5, 0.4), ("y", 0.6, 0.3))
    assert aggregate([row()], [path], [history])["log_loss"].tolist() == [1.5, 1.5]
    history.write_text("epoch,loss\n0,3.0\n")  # a method without one
    assert aggregate([row()], [path], [history])["log_loss"].isna().all()


def test_records_of_features_give_the_measures_of_each_row(tmp_path, history):
    path = write_scores(tmp_path / "scores.csv", ("x", 0.5, 0.4), ("y", 0.6, 0.3))
    full, old = tmp_path / "full.json", tmp_path / "old.json"
    full.write_text('{"rank_me": 12.5, "alignment": 0.5, "uniformity": -2.5, "seconds": 3}')
    old.write_text('{"rank_me": 7.0}')
    rows, histories = [row("A", 1), row("A", 2)], [history, history]
    table = aggregate(rows, [path, path], histories, [full, old])
    table.to_csv(tmp_path / "results.csv", index=False)
    for found in (table, read_results(tmp_path / "results.csv")):
        assert found["rank_me"].tolist() == [12.5, 12.5, 7.0, 7.0]
        assert found["alignment"].tolist()[:2] == [0.5, 0.5] and found["alignment"][2:].isna().all()
        assert len(selected(found)) == 2, "a missing measure loses no result"
    assert "rank_me" not in aggregate(rows, [path, path], histories)
    with pytest.raises(UserError, match=r"gone\.json"):
        aggregate(rows, [path, path], histories, [full, tmp_path / "gone.json"])


def test_encoders_that_were_not_trained_here_have_no_log_loss_and_need_no_history(tmp_path, history):
    """The histories are those of the trained runs alone, in order."""
    path = write_scores(tmp_path / "scores.csv", ("x", 0.5, 0.4))
    other = tmp_path / "other.csv"
    other.write_text(history.read_text().replace("1.5", "7.5"))
    elsewhere = {"released": True, "trained_here": False}
    untrained = row("untrained", epochs=0, trained_here=False)
    rows = [row("R", **elsewhere), row("A"), untrained, row("S", **elsewhere), row("B")]
    table = aggregate(rows, [path] * 5, [history, other]).set_index("row")["log_loss"]
    assert table[["A", "B"]].tolist() == [1.5, 7.5] and table[["R", "untrained", "S"]].isna().all()


def test_a_row_has_the_metrics_that_it_is_judged_by_in_their_order(tmp_path, history):
    path = tmp_path / "scores.csv"
    for metric, test in (("top-1", 0.5), ("top-5", 0.9), ("mean per class", 0.4)):
        write_scores(path, ("x", test, 0.3), ("y", test / 2, 0.4), metric=metric)
    table = aggregate([row("A", metrics=["top-5", "top-1"])], [path], [history])
    assert list(zip(table["metric"], table["test_acc"])) == [
        *(("top-5", 0.9), ("top-5", 0.45), ("top-1", 0.5), ("top-1", 0.25)),
    ]
    table = aggregate([row("A", metrics=["mean per class"])], [path], [history])
    assert table["test_acc"].tolist() == [0.4, 0.2] and set(table["metric"]) == {"mean per class"}


def test_a_score_file_without_a_metric_of_its_row_is_refused(tmp_path, history):
    path = write_scores(tmp_path / "scores.csv", ("x", 0.5, 0.4))
    with pytest.raises(UserError, match=r"scores\.csv: no top-5 accuracy; delete the file and run its probe again"):
        aggregate([row(metrics=["top-1", "top-5"])], [path], [history])


def test_a_score_file_with_fewer_settings_than_its_grid_is_refused(tmp_path, history):
    """One weight decay of three would be printed as the best of three."""
    path = write_scores(tmp_path / "scores.csv", ("x", 0.5, 0.4), ("y", 0.6, 0.3))
    with pytest.raises(UserError, match=r"scores\.csv: top-1 accuracy of 2 of at least 3 settings; delete the file"):
        aggregate([row(n_settings=3)], [path], [history])
    assert len(aggregate([row(n_settings=2)], [path], [history])) == 2


@pytest.mark.parametrize(
    ("content", "says"), [("", "cannot be read"), ("epoch,loss\n", "no epochs"), (None, "cannot be read")]
)
def test_a_damaged_history_is_named(tmp_path, content, says):
    scores, path = write_scores(tmp_path / "scores.csv", ("x", 0.5, 0.4)), tmp_path / "history.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"history\.csv: {says}"):
        aggregate([row()], [scores], [path])


def test_nothing_to_aggregate_is_one_line():
    with pytest.raises(UserError, match="this experiment has no results yet"):
        aggregate([], [], [])


HEADER = ",".join(SCORES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{HEADER}\nlinear,x,0,1,9,9,top-1,,\n", "no test accuracy; delete the file"),
        (f"{HEADER}\nlinear,x,0,1,9,9,top-1,0.5,\nlinear,y,0,1,9,9,top-1,,0.5\n", "no test accuracy"),
        (f"{HEADER}\n", "no test accuracy"),
        ("probe,test_acc\nlinear,0.5\n", "lacks the column 'kind'; delete it"),
        (HEADER.replace(",metric", "") + "\n", "lacks the column 'metric'"),
        ("", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_score_file_is_named(tmp_path, history, content, says):
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_text(content)
    for read in (lambda: read_scores(path), lambda: aggregate([row()], [path], [history])):
        with pytest.raises(UserError, match=rf"scores\.csv: {says}"):
            read()


# --- the points of a scatter ---

SCATTER = Scatter(kind="scatter", x="log_loss", hue="method", xlabel="log loss")


def test_a_scatter_has_each_encoder_once_by_the_probes_of_its_family_on_all_labels():
    """The encoding and the probes with which the first experiment has it: others show it again."""
    other = TWO_ROWS.assign(kind="mlp", test_acc=0.9)
    few = TWO_ROWS.assign(fraction=0.1, test_acc=0.9)
    again = TWO_ROWS.assign(grid="later", row="another experiment", test_acc=0.9)
    elsewhere = TWO_ROWS.assign(encoding="tinyimagenet-11111111", test_acc=0.9)
    results = pd.concat([TWO_ROWS, other, few, again, elsewhere])
    assert points(results, SCATTER)["test_selected"].tolist() == [0.45, 0.42, 0.60, 0.62]
    mlp = results.assign(family="mlp")
    assert set(points(mlp, SCATTER)["test_selected"]) == {0.9}


def test_a_scatter_has_released_weights_and_runs_without_log_loss():
    assert points(pd.concat([TWO_ROWS, released("R", 0, 0.7)]), SCATTER)["line"].tolist() == ["A", "A", "B", "B", "R"]
    lacking = TWO_ROWS.assign(log_loss=[1.0] * 4 + [None] * 4)
    assert points(lacking, SCATTER)["log_loss"].isna().tolist() == [False, False, True, True]


def test_a_scatter_shows_top_1_alone():
    both = pd.concat([TWO_ROWS, TWO_ROWS.assign(metric="top-5", test_acc=0.9)], ignore_index=True)
    assert points(both, SCATTER)["test_selected"].tolist() == [0.45, 0.42, 0.60, 0.62]


# --- words through a CSV ---

WORDS = ["None", "NA", "nan", "", "007", "1e3", "2024_01", "True", "1.5", "a, b", 'c "d"', "null", "ä€", " x "]


def test_words_stay_words_through_a_csv(tmp_path):
    """pandas would take some for numbers, some for missing values, and drop the latter from groups."""
    rows = [(name, seed, 1e-4, 0.01 * k, None) for k, name in enumerate(WORDS) for seed in (1, 2)]
    tidy(*rows).to_csv(tmp_path / "results.csv", index=False)
    found = read_results(tmp_path / "results.csv")
    assert found["row"].tolist() == [name for name in WORDS for _ in (1, 2)] == found["method"].tolist()
    shown = over_seeds(points(found, Table(caption="")), ["line", "column"])
    assert shown["line"].tolist() == WORDS
    assert found["holdout_acc"].isna().all() and found["test_acc"].tolist() == [row[3] for row in rows]


def test_results_of_released_weights_are_read_with_their_unknown_numbers(tmp_path):
    mixed = pd.concat([tidy(("A", 1, 1e-4, 0.4, 0.5)), released("w", 0, 0.9)])
    mixed.to_csv(tmp_path / "results.csv", index=False)
    found = read_results(tmp_path / "results.csv")
    assert found["released"].tolist() == [False, True] and found["log_loss"].isna().tolist() == [False, True]
    assert (~found["released"]).tolist() == [True, False]


def test_every_column_of_the_results_is_read_as_a_word_a_number_or_a_truth_value():
    assert {*tidy(("A", 1, 1e-4, 0.4, 0.5)), *MEASURES} == {*TEXT, *NUMBERS, "released"}


@pytest.mark.parametrize("names", [("None", "NA"), ("007", "1e3"), ("True", ""), ("1", "1.0")])
def test_settings_of_a_probe_keep_their_names_whatever_they_look_like(tmp_path, names):
    path = write_scores(tmp_path / "scores.csv", (names[0], 0.5, 0.1), (names[1], 0.4, 0.2))
    found = read_scores(path)
    assert found["setting"].tolist() == [*names]
    picked = selected(found.assign(row="A"))
    assert picked[["test_selected", "val_selected"]].values.tolist() == [[0.5, 0.4]]


def test_two_scores_of_one_setting_are_refused(tmp_path):
    """Earlier versions named settings by six digits."""
    path = write_scores(tmp_path / "scores.csv", ("weight decay 0.0001", 0.5, 0.1), ("weight decay 0.0001", 0.4, 0.2))
    with pytest.raises(
        UserError, match=r"two scores of 'weight decay 0\.0001'; delete the file and run its probe again"
    ):
        read_scores(path)
