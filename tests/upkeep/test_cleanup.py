"""What can go is listed with its reason, and only that goes; nothing goes from under a process that works there."""

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock
from project import copy_config

from issl.cli import issl
from issl.config.plan import load
from issl.jobs.files import TEMPORARY, whole
from issl.upkeep.cleanup import remove, rubbish

OLD = time.time() - 2 * 24 * 3600


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """The preset *tiny* in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)
    return load("config.yaml")["results/tiny"]


def put(plan, name, n_bytes=1, age=0.0):
    path = Path(plan.root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(n_bytes))
    os.utime(path, (time.time() - age,) * 2)
    return path


def finished(plan, scores):
    """A run of the config that has its encoder, and its scores or not: the folder, and that of its features."""
    row = plan.rows["fig7c"][0]
    folder = row.encoder(1)
    put(plan, f"{folder}/encoder.safetensors")
    put(plan, f"{folder}/run.json")
    for path in scores_of(plan, row) if scores else ():
        put(plan, path)
    return folder, row.features(1)


def scores_of(plan, row):
    """Every score that is read off the features of a row, whichever experiment asks for it."""
    seed = row.seeds[0]
    same = [other for rows in plan.rows.values() for other in rows if other.features(seed) == row.features(seed)]
    return sorted({other.score(probe, seed) for other in same for probe in other.probes})


def listed(plan):
    return {entry.path: (entry.bytes, entry.why) for entry in rubbish(plan)}


def test_a_tree_of_requested_results_has_nothing_to_remove(plan):
    folder, features = finished(plan, scores=False)
    put(plan, f"{features}/000000000.npy")  # its probes are still to come
    put(plan, f"{features}.part/000000000.npy")
    put(plan, f"{features}.json")
    put(plan, f"{folder}/.run.lock", age=10**6)
    put(plan, f"{folder}/.made/run.json", age=10**6)
    put(plan, "logs/pretrain/anything.log")
    assert listed(plan) == {}


def test_unused_runs_are_listed_with_all_their_files(plan):
    put(plan, "runs/simclr-z64-e3-00000000/s1/encoder.safetensors", 3000)
    second = Path(plan.root, "runs/simclr-z64-e3-00000000/s1/.made/encoder.safetensors")
    second.parent.mkdir()
    second.hardlink_to(second.parent.with_name("encoder.safetensors"))  # costs no room of its own
    put(plan, "runs/simclr-z64-e3-00000000/s1/.encoder.abcd1234.safetensors", 7, age=10**6)
    put(plan, "old.csv", 5)
    assert list(listed(plan).items()) == [  # the largest first
        ("runs/simclr-z64-e3-00000000/", (3007, "no target of the config uses it")),
        ("old.csv", (5, "no target of the config uses it")),
    ]


def test_checkpoints_and_features_of_a_finished_run_can_be_removed(plan):
    folder, features = finished(plan, scores=True)
    put(plan, f"{folder}/checkpoints/last.ckpt", 11)
    put(plan, f"{features}/000000000.npy", 4)
    assert listed(plan) == {
        f"{folder}/checkpoints/": (11, "its run is finished"),
        f"{features}/": (4, "all probes of it are finished"),
    }


@pytest.mark.parametrize(
    ("root", "experiment", "label"),
    [("results/tiny", "table2_mlp", "DISSL"), ("results", "table_transfer", "DTD")],
)
def test_features_are_kept_until_the_last_probe_that_reads_them(plan, root, experiment, label):
    """A linear and an MLP probe of a run, in two tables; two classifiers on features of released weights."""
    plan = load("config.yaml")[root]
    (row,) = [row for row in plan.rows[experiment] if row.label == label]
    put(plan, f"{row.features(row.seeds[0])}/000000000.npy", 4)
    first, last = scores_of(plan, row)
    put(plan, first)
    assert listed(plan) == {}
    put(plan, last)
    assert listed(plan) == {f"{row.features(row.seeds[0])}/": (4, "all probes of it are finished")}
    (entry,) = rubbish(plan)
    with FileLock(Path(plan.root, row.features(row.seeds[0])).with_name(".x.lock")):
        assert not remove(plan, entry)
    assert remove(plan, entry) and not Path(plan.root, entry.path).exists() and Path(plan.root, last).exists()


def test_checkpoints_of_an_unfinished_run_are_kept(plan):
    put(plan, f"{plan.rows['fig7c'][0].encoder(1)}/checkpoints/last.ckpt")
    assert listed(plan) == {}


def test_partial_files_are_removed_after_a_day_without_writes(plan, tmp_path):
    folder, _ = finished(plan, scores=False)
    with pytest.raises(KeyboardInterrupt), whole(Path(plan.root, folder, "history.csv")) as temporary:
        name = temporary.name  # what `whole` writes to until it is complete
        raise KeyboardInterrupt
    assert TEMPORARY.fullmatch(name)
    put(plan, f"{folder}/{name}", 9, age=3600)
    assert listed(plan) == {}
    put(plan, f"{folder}/{name}", 9, age=25 * 3600)
    assert listed(plan) == {f"{folder}/{name}": (9, "incomplete file of a killed job")}


def test_files_in_use_by_a_process_are_kept(plan):
    used = put(plan, "runs/simclr-z64-e3-00000000/s1/history.csv")
    (entry,) = rubbish(plan)
    with FileLock(used.with_name(".run.lock")):
        assert not remove(plan, entry)
        assert used.exists()
    assert remove(plan, entry)
    assert not used.exists() and Path(plan.root, "runs").exists()


def test_the_command_deletes_only_on_request(plan):
    gone = put(plan, "runs/simclr-z64-e3-00000000/s1/encoder.safetensors", 2_000_000)
    stays = put(plan, f"{finished(plan, scores=False)[0]}/history.csv")
    dry = CliRunner().invoke(issl, ["gc"])
    assert gone.exists() and dry.output.splitlines()[0].split() == (
        ["2.0", "MB", "results/tiny/runs/simclr-z64-e3-00000000/", "no", "target", "of", "the", "config", "uses", "it"]
    )
    assert dry.output.splitlines()[-1].strip() == "2.0 MB  can be removed: issl gc --delete"
    wet = CliRunner().invoke(issl, ["gc", "--delete", "--preset", "tiny"])
    assert "2.0 MB  removed" in wet.output and wet.exit_code == 0
    assert not gone.exists() and stays.exists()
    assert CliRunner().invoke(issl, ["gc"]).output.strip() == "0.0 MB  can be removed: issl gc --delete"


def test_results_of_other_presets_are_kept(plan):
    put(plan, "fig7c.csv")
    put(plan, "runs/simclr-z64-e3-00000000/s1/history.csv")
    assert listed(load("config.yaml")["results"]) == {}
    assert list(listed(plan)) == ["runs/simclr-z64-e3-00000000/"]
