"""A run that is there, scored on another data set and by another classifier: nothing is pretrained again for it."""

import json
import shutil

import pandas as pd
import pytest
from project import planned, snakemake
from small_workflow import edited, write

TABLE = "results/tiny/elsewhere.md"
OTHER = {"kind": "synthetic", "image_size": 20, "train_per_class": 8, "test_per_class": 5, "classes": 3, "seed": 7}
ELSEWHERE = {
    "on_request": True,
    "base": {"metrics": ["top-1", "mean per class"]},
    "rows": {
        name: {"weights": f"table1_contrastive/{name}", "data": "other"} for name in ("SimCLR", "CISSL")
    },
    "probes": [
        {"weight_decay": [1e-4, 1e-6], "epochs": 2},
        {"kind": "svm", "label": "linear SVM", "draws": 2, "holdout": 0.25},
    ],
    "table": {"caption": "On another data set.", "columns": ["probe", "metric"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def scored(finished, config, tmp_path_factory):
    """A copy of the finished workflow in which two of its runs are scored on other data."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("scored") / "copy", symlinks=True)
    write(folder, edited(edited(config, ("data", "other"), OTHER), ("experiments", "elsewhere"), ELSEWHERE))
    assert planned(folder, TABLE) == {"prepare": 1, "featurize": 2, "probe": 4, "aggregate": 1, "tabulate": 1}
    snakemake(folder, TABLE, "--cores", "2")
    return folder


def test_a_run_that_is_there_is_scored_on_another_data_set_with_an_svm(scored):
    tidy = pd.read_csv(scored / "results/tiny/elsewhere.csv")
    assert len(tidy) == 2 * 2 * (2 + 2)  # rows x metrics x (weight decays + C as it is and tuned)
    assert set(tidy["kind"]) == {"linear", "svm"} and set(tidy["probe"]) == {"linear", "linear SVM"}
    assert set(tidy["n_test"]) == {15} and set(tidy["n_labels"]) == {24}
    here = pd.read_csv(scored / "results/tiny/table1_contrastive.csv")
    for name in ("SimCLR", "CISSL"):
        own, there = (table[table["row"] == name].iloc[0] for table in (tidy, here))
        same = ["method", "family", "dim", "epochs", "batch_size", "strength", "blur", "encoder", "seed", "log_loss"]
        assert own[same].tolist() == there[same].tolist() and own["encoding"] != there["encoding"]
        about = json.loads(
            (scored / f"results/tiny/runs/{own['encoder']}/s1/features/{own['encoding']}.json").read_text()
        )
        assert (about["encoding"]["resize"], about["encoding"]["crop"]) == (16, 16), (
            "the run's own size, not the data's"
        )
        record = json.loads((scored / f"results/tiny/runs/{own['encoder']}/s1/run.json").read_text())
        assert about["data"] != record["data"]


def test_the_table_shows_both_selections_by_each_metric(scored):
    lines = [line for line in (scored / TABLE).read_text().splitlines() if line.startswith("|") and "---" not in line]
    header, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    assert header[1:] == [
        *(
            f"{probe}, {metric}: selected on {split}"
            for probe in ("linear", "linear SVM")
            for metric in ("top-1", "mean per class")
            for split in ("test", "held-out train")
        ),
        "seeds",
    ]
    assert [row[0] for row in rows] == ["SimCLR", "CISSL"]
    tidy = pd.read_csv(scored / "results/tiny/elsewhere.csv")
    svm = tidy[(tidy["row"] == "CISSL") & (tidy["kind"] == "svm") & (tidy["metric"] == "top-1")]
    assert rows[1][header.index("linear SVM, top-1: selected on test")] == f"{100 * svm['test_acc'].max():.1f}"
    (tuned,) = svm.dropna(subset="holdout_acc")["test_acc"]
    assert rows[1][header.index("linear SVM, top-1: selected on held-out train")] == f"{100 * tuned:.1f}"


def test_nothing_of_it_runs_again_and_the_comparison_reads_it(scored):
    assert planned(scored, TABLE) == {}
    left = sorted(path.name for path in (scored / "results/tiny/runs").glob("*/s1/features/[!.]*") if path.is_dir())
    assert left == [], "features are gone once they are read"
    assert planned(scored, "tiny") == {"compare": 1, "tiny": 1}
    snakemake(scored, "tiny", "--cores", "1")
    report = json.loads((scored / "results/tiny/reproduction.json").read_text())
    assert report["leftovers"] == report["changed"] == []
    users = {
        run["run"].partition("-")[0]: run["experiments"] for run in report["runs"] if "elsewhere" in run["experiments"]
    }
    assert users == {name: ["table1_contrastive", "elsewhere"] for name in ("simclr", "cissl")}
    assert report["axes"]["elsewhere"] == ["row", "probe, metric"]
