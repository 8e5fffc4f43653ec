"""From scores to a table: what is chosen by what, and what stands beside the published numbers."""

import pandas as pd
import pytest

from issl.config.display import EvaluationTable, table_of
from issl.config.evidence import Published
from issl.errors import UserError
from issl.probing.scores import COLUMNS
from issl.report import tables
from issl.report.evaluations import aggregate, points
from issl.report.reproduction import Asked, compare

TABLE = EvaluationTable(kind="evaluation", caption="A caption.")


def facts(row, protocol="cached", metrics=("top-1", "top-5"), seed=0):
    return {"row": row, "weights": "w", "data": "imagenet", "encoding": "e", "protocol": protocol, "seed": seed} | {
        "metrics": list(metrics)
    }


@pytest.fixture
def scores(tmp_path):
    """Writes a score file: (setting, test top-1, top-5, per class, held-out top-1) a line."""

    def write(name, *lines):
        rows = [
            dict(zip(COLUMNS, (setting, 90, 10000, one, five, each, held, held, held)))
            for setting, one, five, each, held in lines
        ]
        pd.DataFrame(rows, columns=COLUMNS).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


@pytest.fixture
def results(scores):
    return aggregate(
        [facts("A"), facts("B"), facts("A", "augmented")],
        [
            scores("a", ("x", 0.70, 0.80, 0.60, 0.3), ("y", 0.60, 0.95, 0.65, 0.4)),
            scores("b", ("x", 0.50, 0.70, 0.50, 0.3)),
            scores("c", ("linear", 0.71, 0.9, 0.5, 0.2)),
        ],
    )


def test_the_first_metric_selects_the_setting_for_all_metrics(results):
    found = points(results).set_index(["line", "column"])
    assert found.loc[("A", "cached, top-1"), ["published", "honest"]].tolist() == [0.70, 0.60]
    assert found.loc[("A", "cached, top-5"), ["published", "honest"]].tolist() == [0.80, 0.95]
    assert found.loc[("B", "cached, top-5"), ["published", "honest"]].tolist() == [0.70, 0.70]
    assert len(found) == 6 and set(found["n_test"]) == {10000}


def test_a_row_can_be_scored_by_mean_per_class_accuracy(scores):
    path = scores("a", ("x", 0.70, 0.80, 0.60, 0.3), ("y", 0.60, 0.95, 0.65, 0.2))
    results = aggregate([facts("Pets", "svm", ["mean per class"]), facts("DTD", "svm", ["top-1"])], [path, path])
    found = points(results).set_index(["line", "column"])
    assert found.loc[("Pets", "svm"), "published"] == 0.65
    assert found.loc[("DTD", "svm"), "published"] == 0.70
    meaning = tables.grid(results, TABLE, None).meaning
    assert "By mean per class accuracy: Pets." in meaning and "By top-1 accuracy: DTD." in meaning


def test_only_a_setting_with_held_out_scores_can_be_selected_on_them(scores):
    path = scores("a", ("C = 1", 0.8, 0.9, 0.8, None), ("tuned", 0.7, 0.9, 0.7, 0.1))
    found = points(aggregate([facts("A", "svm", ["top-1"])], [path]))
    assert found[["published", "honest"]].values.tolist() == [[0.8, 0.7]]


def test_a_choice_without_held_out_scores_is_refused(scores):
    path = scores("a", ("x", 0.8, 0.9, 0.8, None), ("y", 0.7, 0.9, 0.7, None))
    with pytest.raises(UserError, match="A, svm: held-out accuracy is missing"):
        points(aggregate([facts("A", "svm", ["top-1"])], [path]))


def test_a_score_file_without_its_metric_is_refused(scores):
    path = scores("a", ("x", None, 0.9, 0.8, 0.1))
    with pytest.raises(UserError, match="a: no top-1 accuracy; delete the file"):
        aggregate([facts("A")], [path])
    with pytest.raises(UserError, match="no result of this evaluation is there yet"):
        aggregate([], [])


PUBLISHED = Published.model_validate(
    {"source": "here", "precision": 0.05, "values": {"A": {"cached, top-1": 70.2, "augmented, top-1": 69}}}
)


def test_the_table_shows_both_selections_beside_each_published_number(results):
    grid = tables.grid(results, TABLE, PUBLISHED)
    assert grid.header[:4] == (
        "",
        *(f"cached, top-1: {name}" for name in ("published", "best on test", "best on held-out")),
    )
    assert "cached, top-5: published" not in grid.header
    assert grid.rows[0][:4] == ("A", "70.2", "70.0", "60.0")
    assert grid.rows[1] == ("B", "–", "50.0", "50.0", "70.0", "70.0", "–", "–", "–", "–", "–")
    text = tables.markdown(grid, "A caption.")
    assert "| A | 70.2 | 70.0 | 60.0 | 80.0 | 95.0 | 69.0 | 71.0 | 71.0 |" in text
    assert "weight decay of the probe" not in text and "Settings of a protocol" in text
    assert "It is top-1 accuracy alone that chooses." in text
    assert "Settings of a protocol" in tables.latex(grid, "A caption.")


def test_tables_are_distinguished_by_their_json():
    assert table_of(TABLE.canonical()) == TABLE
    assert table_of('{"caption": "x", "columns": "fraction"}').columns == "fraction"


def test_the_comparison_judges_evaluations_as_it_does_experiments(results):
    asked = Asked.model_validate(
        {
            "preset": "paper",
            "comparable": True,
            "experiments": {},
            "evaluations": {
                "here": {
                    "published": PUBLISHED.model_dump(),
                    "claims": {"A is better": {"better": "A", "than": "B"}},
                },
                "there": {"published": PUBLISHED.model_dump()},
            },
            "comparison": {},
        }
    )
    report = compare(asked, {"here": results}, [], [])
    verdicts = {(n["experiment"], n["column"]): n["verdict"] for n in report["numbers"]}
    assert verdicts == {
        ("here", "cached, top-1"): "agrees",
        ("here", "augmented, top-1"): "differs",
        ("there", "cached, top-1"): "not run",
        ("there", "augmented, top-1"): "not run",
    }
    assert [claim["verdict"] for claim in report["claims"]] == ["holds"]
    assert report["runs"] == [] and report["axes"]["here"] == ("row", "protocol")
