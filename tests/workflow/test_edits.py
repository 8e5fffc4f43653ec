"""What an edit of the config plans again in a finished workflow: what depends on it, and nothing else."""

import json
import shutil

import pytest
from project import planned, snakemake
from small_workflow import edited, write


def stages(n, **last):
    return {"pretrain": n, "featurize": n, "probe": n, **last, "tiny": 1}


# Every run is part of fig7b, of the comparison and of the training curves as well.
ALL_RESULTS = {"aggregate": 3, "plot": 2, "tabulate": 1, "compare": 1, "curves": 1}
ONLY_FIGURE = {"aggregate": 2, "plot": 2, "compare": 1}

ELSEWHERE = {
    "rows": {"CISSL": {"weights": "table1_contrastive/CISSL", "data": "cifar10"}},
    "probes": [{}, {"kind": "svm"}],
    "table": {"caption": "CISSL on CIFAR-10.", "columns": ["probe"]},
}

EDITS = {
    "a further dimension": (
        *(("experiments", "fig7c", "grid", "encoder.dim"), [16, 64, 128]),
        stages(1, **ONLY_FIGURE, curves=1),
    ),
    "another weight decay": (
        *(("experiments", "fig7c", "probes"), [{"weight_decay": [1e-4, 1e-5], "epochs": 2}]),
        {"featurize": 2, "probe": 2, **ONLY_FIGURE, "tiny": 1},
    ),
    "the style of a figure": (
        *(("experiments", "fig7c", "figure", "ylabel"), "Top-1"),
        {"plot": 1, "compare": 1, "tiny": 1},
    ),
    "the caption of a table": (
        *(("experiments", "table1_contrastive", "table", "caption"), "Another."),
        {"tabulate": 1, "compare": 1, "tiny": 1},
    ),
    "a published number": (
        *(("experiments", "table1_contrastive", "published", "values", "SimCLR"), 1.0),
        {"compare": 1, "tiny": 1},
    ),
    "a claim": (
        *(("experiments", "table1_contrastive", "claims", "no, SimCLR is"), {"better": "SimCLR", "than": "CISSL"}),
        {"compare": 1, "tiny": 1},
    ),
    "the level of a test": (("comparison",), {"significance": 0.01}, {"compare": 1, "tiny": 1}),
    "W&B": (("execution", "wandb"), {"mode": "offline"}, {}),
    "how often to look at the test split": (("execution", "validate_every"), 1, {}),
    "resources": (("hardware", "pretrain", "minutes"), 99, {}),
    "resources of an experiment": (("experiments", "fig7c", "hardware"), {"probe": {"mem_gb": 9}}, {}),
    "a second seed": (("seeds",), [1, 2], stages(4, **ALL_RESULTS)),
    "a second seed of one experiment": (
        *(("experiments", "fig7c", "seeds"), [1, 2]),
        stages(2, **ONLY_FIGURE, curves=1),
    ),
    "a table of a run on other data": (
        *(("experiments", "elsewhere"), ELSEWHERE),
        {"prepare": 1, "featurize": 1, "probe": 2, "aggregate": 1, "tabulate": 1, "compare": 1, "tiny": 1},
    ),
    "the same on request": (
        *(("experiments", "elsewhere"), {**ELSEWHERE, "on_request": True}),
        {"compare": 1, "tiny": 1},
    ),
    "a setting of one method": (
        *(("methods", "simclr", "objective", "temperature"), 0.1),
        stages(1, **ALL_RESULTS | {"aggregate": 2, "plot": 1}),
    ),
    "a setting of all runs": (("defaults", "optim", "lr"), 0.001, stages(4, **ALL_RESULTS)),
    "the data": (("data", "synthetic", "seed"), 1, {"prepare": 1, **stages(4, **ALL_RESULTS)}),
    "an experiment that this preset lacks": (("patches", "aug"), {"augment": {"strength": 1.5}}, {}),
}  # fmt: skip


def test_a_finished_workflow_plans_nothing(finished):
    assert planned(finished, "tiny") == {}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_plans_what_depends_on_it_and_nothing_else(finished_copy, config, name):
    path, value, expected = EDITS[name]
    write(finished_copy, edited(config, path, value))
    assert planned(finished_copy, "tiny") == expected


@pytest.mark.slow
def test_seeds_give_error_bars_and_share_nothing_but_data(finished_copy, config):
    tiny = finished_copy / "results/tiny"
    write(finished_copy, edited(config, ("seeds",), [1, 2]))
    snakemake(finished_copy, "results/tiny/table1_contrastive.md", "--cores", "2")
    text = (tiny / "table1_contrastive.md").read_text()
    assert " ± " in text and "| 2 |" in text
    assert len(list((tiny / "data").iterdir())) == 1

    # On disk now: two seeds of the table, one of the figure.
    existing = ("results/tiny/reproduction.md", "--cores", "2", "--config", "existing_only=true")
    assert not planned(finished_copy, *existing).keys() & {"pretrain", "probe"}
    snakemake(finished_copy, *existing)
    report = json.loads((tiny / "reproduction.json").read_text())
    tests = {claim["claim"]: claim["test_selected"]["tests"] for claim in report["claims"]}
    assert tests["CISSL is better than SimCLR"][0]["n"] == 2
    assert tests["accuracy rises with the dimension, linear"][0]["n"] == 1
    assert len(report["runs"]) == 6 and report["changed"] == [] and report["leftovers"] == []

    # Back to one seed: nothing is trained, and no rule makes the results of the other one.
    write(finished_copy, config)
    assert not planned(finished_copy, "tiny").keys() & {"prepare", "pretrain", "featurize", "probe"}
    snakemake(finished_copy, "tiny", "--cores", "2")
    report = json.loads((tiny / "reproduction.json").read_text())
    assert len(report["runs"]) == 4
    assert sorted(report["leftovers"]) == sorted(
        f"runs/{run['run']}/s2/" for run in report["runs"] if "table1" in run["experiments"][0]
    )


@pytest.mark.slow
def test_data_that_were_removed_are_prepared_again_and_nothing_is_trained_again(finished_copy, config):
    """To free disk, or by accident; Snakemake alone would train every run that needs them."""
    tiny = finished_copy / "results/tiny"
    shutil.rmtree(tiny / "data")
    before = {path: path.read_text() for path in tiny.glob("runs/*/s1/run.json")}
    write(
        finished_copy, edited(config, ("experiments", "fig7c", "probes"), [{"weight_decay": [1e-3, 1e-5], "epochs": 2}])
    )
    assert planned(finished_copy, "results/tiny/fig7c.pdf")["pretrain"] == 2
    snakemake(finished_copy, "results/tiny/fig7c.pdf", "--cores", "2")
    assert {path: path.read_text() for path in before} == before, "each record has the time of its training"
    logs = [path.read_text() for path in (tiny / "logs/pretrain").glob("cissl*.log")]
    assert sum("made before, and still valid" in log for log in logs) == 2
    snakemake(finished_copy, "results/tiny/fig7c.pdf", "--cores", "2", "--forcerun", "pretrain")
    changed = [path for path in before if path.read_text() != before[path]]
    assert len(changed) == 2, "what is forced is trained"
