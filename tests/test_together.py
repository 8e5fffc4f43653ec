"""Two people in one results tree at the same time, each with a clone of their own; and a results tree elsewhere."""

import os
import shutil
import subprocess
import sys

import pytest
from test_workflow import PROJECT

TARGETS = ("results/tiny/table2_mlp.md", "results/tiny/table1_distillation.md")  # one run and the data in common


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Logs of two workflows that ran at once, and the results tree, which is a link in both clones."""
    shared = tmp_path_factory.mktemp("elsewhere") / "results"
    shared.mkdir()
    workflows, logs = [], []
    for number, target in enumerate(TARGETS):
        clone = tmp_path_factory.mktemp(f"clone{number}")
        shutil.copy(PROJECT / "config.yaml", clone)
        (clone / "results").symlink_to(shared)
        command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", target, "--notemp"]
        profile = ["--profile", PROJECT / "profiles/local", "--cores", "1"]
        log = clone / "snakemake.log"
        with log.open("w") as output:
            everything = list(map(str, [*command, *profile]))
            environment = {**os.environ, "PYTHONPATH": ""}
            workflows.append(subprocess.Popen(everything, cwd=clone, stdout=output, stderr=output, env=environment))
        logs.append(log)
    for workflow, log in zip(workflows, logs):
        assert workflow.wait(400) == 0, log.read_text()[-3000:]
    return shared / "tiny"


def test_both_get_what_they_asked_for(together):
    assert (together / "table2_mlp.md").exists() and (together / "table1_distillation.md").exists()
    assert together.parent.is_symlink() is False and not list(together.rglob(".*.ckpt"))


def test_no_run_is_trained_twice(together):
    texts = {path.stem: path.read_text() for path in (together / "logs/pretrain").iterdir()}
    assert len(texts) == 7  # 2 runs of the one and 6 of the other, one in common
    begun = {name: text.count("epoch 1/") for name, text in texts.items()}
    taken = [name for name, text in texts.items() if "made meanwhile by another process" in text]
    assert all(begun[name] + (name in taken) in (1, 2) and begun[name] <= 1 for name in texts), begun
    assert len(taken) <= 1


def test_the_data_are_prepared_once(together):
    (log,) = (together / "logs/prepare").iterdir()
    assert log.read_text().count("made meanwhile by another process") == 1


def test_the_group_can_read_and_write_what_is_made(together):
    mask = os.umask(0)
    os.umask(mask)
    for path in together.rglob("*"):
        if path.is_file() and path.suffix != ".lock" and not path.is_symlink():
            assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path


def test_a_results_tree_that_is_a_link_stays_one(tmp_path, together):
    done = subprocess.run(["find", "-L", str(together), "-type", "l"], capture_output=True, text=True, check=True)
    assert done.stdout == ""  # no link leads nowhere
