"""The runs on disk are listed as their files say, and two of them are compared setting by setting."""

import csv
import io
import json
from pathlib import Path

import pytest
from click import ClickException
from click.testing import CliRunner
from project import copy_config

from issl.cli import issl
from issl.errors import UserError

HEAD = "kind,setting,weight_decay,fraction,n_labels,n_test,metric,test_acc,holdout_acc\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)


def put(run, seed=1, name="simclr", dim=64, scores=(), root="results/tiny", **objective):
    """A finished run; `scores` are the lines of its only score file."""
    folder = Path(root, "runs", run, f"s{seed}")
    folder.mkdir(parents=True)
    spec = {"objective": {"name": name, **objective}, "encoder": {"dim": dim}, "optim": {"epochs": 9, "lr": 0.1}}
    record = {"run": run, "seed": seed, "spec": spec, "seconds": 360, "loss": 1.25, "test_online_acc": 0.5}
    (folder / "run.json").write_text(json.dumps(record))
    if scores:
        path = folder / "probes" / "toy-00000000" / f"linear-11111111-s{seed}.csv"
        path.parent.mkdir(parents=True)
        path.write_text(HEAD + "".join(f"{line}\n" for line in scores))
    return folder


def score(test, held_out, decay="1e-6", metric="top-1"):
    return f"linear,weight decay {decay},{decay},1.0,100,50,{metric},{test},{held_out}"


def call(*arguments):
    done = CliRunner().invoke(issl, list(map(str, arguments)), standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


def listed(*arguments):
    return list(csv.DictReader(io.StringIO(call("runs", "--csv", *arguments))))


def test_a_run_has_the_accuracies_of_both_selections():
    put("simclr-z64-e9-00000001", scores=[score(0.50, 0.40, "1e-6"), score(0.44, 0.46, "1e-4")])
    (row,) = listed()
    assert (row["run"], row["method"], row["dim"], row["data"]) == (
        "simclr-z64-e9-00000001",
        "simclr",
        "64",
        "toy-00000000",
    )
    assert (float(row["test_selected"]), float(row["val_selected"])) == (0.50, 0.44)
    assert float(row["hours"]) == pytest.approx(0.1)


def test_a_run_has_the_spread_of_its_features_if_their_record_tells_it():
    told = put("simclr-z64-e9-00000001", scores=[score(0.5, 0.4)])
    put("simclr-z64-e9-00000002", scores=[score(0.5, 0.4)])
    (told / "features").mkdir()
    (told / "features/toy-00000000.json").write_text(json.dumps({"rank_me": 31.26, "uniformity": -2.875}))
    first, second = listed()
    assert (float(first["rank_me"]), float(first["uniformity"])) == (31.26, -2.875)
    assert (second["rank_me"], second["uniformity"]) == ("", "")
    assert " 31.3 " in call("runs") and " -2.88 " in call("runs")


def test_a_run_without_scores_is_listed_too():
    put("simclr-z64-e9-00000001")
    (row,) = listed()
    assert (row["loss"], row["test_selected"]) == ("1.25", "")


def test_rows_are_filtered_and_sorted():
    put("a-z64-e9-00000001", scores=[score(0.3, 0.3)])
    put("b-z64-e9-00000002", scores=[score(0.6, 0.6)])
    put("c-z64-e9-00000003", name="dino", scores=[score(0.9, 0.9)])
    rows = listed("--where", "method=simclr", "--sort", "test_selected")
    assert [row["run"][0] for row in rows] == ["b", "a"]
    assert [row["run"][0] for row in listed("--where", "probe=linear*", "--sort", "accuracy")] == ["c", "b", "a"]
    assert [row["run"][0] for row in listed("--where", "run=[ab]-*")] == ["a", "b"]


def test_a_pattern_finds_no_row_without_a_value():
    put("a-z64-e9-00000001")
    assert listed("--where", "probe=linear*") == [] and len(listed("--where", "probe=")) == 1


def test_the_table_for_people_shows_per_cents_and_the_first_metric():
    put("a-z64-e9-00000001", scores=[score(0.312, 0.3), score(0.777, 0.7, metric="top-5")])
    text = call("runs")
    assert "31.2" in text and "77.7" not in text


def test_other_folders_are_listed_by_name(tmp_path):
    put("a-z64-e9-00000001", root="elsewhere")
    assert [row["root"] for row in listed("elsewhere")] == ["elsewhere"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs"], "no finished run in results"),
        (["compare", "a", "b"], "no finished run in results"),
    ],
)
def test_an_empty_folder_has_nothing_to_list(arguments, message):
    with pytest.raises(UserError, match=message):
        call(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "--sort", "acuracy"], "unknown column 'acuracy'"),
        (["runs", "--where", "method"], "must be COLUMN=TEXT"),
        (["runs", "nosuch"], "Directory 'nosuch' does not exist"),
        (["times", "nosuch"], "Directory 'nosuch' does not exist"),
        (["compare", "a-z64-e9-00000001", "a-z64-e9-00000002"], "did you mean 'a-z64-e9-00000001'"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    put("a-z64-e9-00000001")
    with pytest.raises((UserError, ClickException), match=message):
        call(*arguments)


def test_a_corrupt_record_is_named():
    (put("a-z64-e9-00000001") / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: cannot be read"):
        call("runs")


def test_a_comparison_shows_differing_settings_alone_and_means_over_seeds():
    for seed, accuracy in ((1, 0.40), (2, 0.50)):
        put("a-z64-e9-00000001", seed, scores=[score(accuracy, 0.1)])
    put("b-z32-e9-00000002", name="cissl", dim=32, predictor="linear", scores=[score(0.55, 0.1)])
    text = call("compare", "a-z64-e9-00000001", "results/tiny/runs/b-z32-e9-00000002/s1")
    lines = [line.split() for line in text.splitlines()]
    assert ["encoder.dim", "64", "32"] in lines
    assert ["objective.predictor", "linear"] in lines, "a setting that one of them lacks is blank there"
    assert not any(line[:1] == ["optim.lr"] for line in lines), "equal in both"
    (scores,) = [line for line in lines if line[:1] == ["toy-00000000"]]
    assert scores == ["toy-00000000", "linear-11111111", "100", "top-1", "45", "45", "55", "55", "10", "10"]
    assert "(seeds 1, 2)" in text and "(seed 1)" in text


def test_one_seed_can_be_compared_with_another():
    for seed, accuracy in ((1, 0.40), (2, 0.50)):
        put("a-z64-e9-00000001", seed, scores=[score(accuracy, 0.1)])
    folder = "results/tiny/runs/a-z64-e9-00000001"
    assert ["40", "40", "50", "50", "10", "10"] in [
        line.split()[-6:] for line in call("compare", f"{folder}/s1", f"{folder}/s2").splitlines()
    ]


def test_equal_settings_are_said_to_be():
    for seed in (1, 2):
        put("a-z64-e9-00000001", seed, scores=[score(0.4, 0.1)])
    folder = "results/tiny/runs/a-z64-e9-00000001"
    assert call("compare", f"{folder}/s1", f"{folder}/s2").startswith("both have the same settings\n")


def test_an_untrained_encoder_has_no_settings_of_a_training():
    put("a-z64-e9-00000001", dim=64)
    folder = put("untrained-z32-e0-00000002", name="untrained", dim=32)
    record = json.loads((folder / "run.json").read_text())
    record["spec"]["optim"]["epochs"] = 0
    (folder / "run.json").write_text(json.dumps(record))
    lines = [line.split() for line in call("compare", "a-z64-e9-00000001", "untrained-z32-e0-00000002").splitlines()]
    assert ["optim.epochs", "9"] in lines and ["optim.lr", "0.1"] in lines and ["encoder.dim", "64", "32"] in lines
