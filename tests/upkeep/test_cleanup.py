"""What can go is listed with its reason, and only that goes; nothing goes from under a process that works there."""

import os
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from filelock import FileLock
from project import copy_config

from issl.cli import issl
from issl.config.plan import load
from issl.errors import UserError
from issl.jobs.files import TEMPORARY, whole
from issl.upkeep.cleanup import UNUSED, remove, rubbish

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
        ("runs/simclr-z64-e3-00000000/", (3007, UNUSED)),
        ("old.csv", (5, UNUSED)),
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
    *others, last = scores_of(plan, row)
    assert others
    for score in others:
        put(plan, score)
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


def test_the_folder_of_a_killed_download_is_listed_a_day_later(plan):
    folder = put(plan, "runs/simclr-z64-e9-00000000/.s1.abcd_123/encoder.safetensors", 9, age=25 * 3600).parent
    assert listed(plan) == {}
    os.utime(folder, (time.time() - 25 * 3600,) * 2)
    (entry,) = rubbish(plan)
    assert (entry.path, entry.spent) == ("runs/simclr-z64-e9-00000000/.s1.abcd_123/", True)
    assert remove(plan, entry) and not folder.exists()


def test_files_in_use_by_a_process_are_kept(plan):
    used = put(plan, "runs/simclr-z64-e3-00000000/s1/history.csv")
    (entry,) = rubbish(plan)
    with FileLock(used.with_name(".run.lock")):
        assert not remove(plan, entry)
        assert used.exists()
    assert remove(plan, entry)
    assert not used.exists() and Path(plan.root, "runs").exists()


def gc(*arguments, **answers):
    done = CliRunner().invoke(issl, ["gc", *arguments], **answers)
    return done.exit_code, done.output


def test_the_command_deletes_what_is_spent_only_on_request_and_after_a_question(plan):
    folder, _ = finished(plan, scores=False)
    spent, stays = put(plan, f"{folder}/checkpoints/last.ckpt", 2_000_000), put(plan, f"{folder}/history.csv")
    code, text = gc()
    assert (
        code == 0
        and spent.exists()
        and text.splitlines()
        == [
            f"       2.0 MB  results/tiny/{folder}/checkpoints/  its run is finished",
            "       2.0 MB  can be removed: issl gc --delete",
        ]
    )
    assert gc("--delete", input="n\n")[0] == 1 and spent.exists()
    assert "removed: 1" in gc("--delete", "--preset", "tiny", input="y\n")[1]
    assert not spent.exists() and stays.exists()
    spent = put(plan, f"{folder}/checkpoints/last.ckpt")
    assert gc("--delete", "--yes")[0] == 0 and not spent.exists()
    assert gc()[1].strip() == "0.0 MB  can be removed: issl gc --delete"


def test_results_of_another_config_are_removed_only_by_name(plan, tmp_path):
    """Made with --configfile, or by a preset that is gone: an encoder may have cost days."""
    runs = [put(plan, f"runs/simclr-z64-e3-0000000{n}/s1/encoder.safetensors", 1_000_000) for n in (1, 2)]
    other = put(plan, "../gone/runs/simclr-z64-e3-00000003/s1/encoder.safetensors")
    text = gc()[1]
    assert text.splitlines()[0] == "unused, and removed only if you name it:" and text.count(UNUSED) == 3
    assert gc("--delete", "--yes")[1].endswith("removed: 0\n")
    assert all(path.exists() for path in (*runs, other))
    assert gc("--delete", "--yes", "results/tiny/runs/simclr-z64-e3-00000001")[1].endswith("removed: 1\n")
    assert [path.exists() for path in (*runs, other)] == [False, True, True]
    code = CliRunner().invoke(issl, ["gc", "--delete", "results/tiny/runs/simclr-z64-e3-00000009"])
    assert isinstance(code.exception, UserError) and "nothing that can be removed" in str(code.exception)


def test_results_of_a_config_file_are_known_when_it_is_given(plan, tmp_path):
    experiment = {
        "rows": {"A": {"method": "simclr", "optim": {"epochs": 15}}},
        "probes": [{}],
        "table": {"caption": ""},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"experiments": {"mine": experiment}}))
    mine = load("config.yaml", ["mine.yaml"])["results/tiny"]
    put(mine, f"{mine.rows['mine'][0].encoder(1)}/encoder.safetensors")
    assert "unused" in gc()[1] and "unused" not in gc("--configfile", "mine.yaml")[1]
    put(mine, f"{mine.rows['mine'][0].encoder(2)}/encoder.safetensors")
    assert "unused" in gc("--configfile", "mine.yaml")[1]
    assert "unused" not in gc("--configfile", "mine.yaml", "--config", "seeds=[1, 2]")[1]


def test_results_of_other_presets_are_kept(plan):
    put(plan, "fig7c.csv")
    put(plan, "runs/simclr-z64-e3-00000000/s1/history.csv")
    assert listed(load("config.yaml")["results"]) == {}
    assert list(listed(plan)) == ["runs/simclr-z64-e3-00000000/"]
