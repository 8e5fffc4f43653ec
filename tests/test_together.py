"""Two people in one results tree at the same time, each with a clone of their own; and a results tree elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from project import PROJECT

from issl.config import merge, read_yaml

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


def test_jobs_of_one_machine_compute_on_cards_of_their_own(tmp_path):
    """Pretended cards: the names are given, and torch, which finds none, computes on the CPU."""
    config = merge(read_yaml(PROJECT / "config.yaml"), {"presets": {"tiny": {"execution": {"device": "auto"}}}})
    config["presets"]["tiny"]["hardware"]["pretrain"]["gpus"] = 1
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", "--directory", tmp_path, TARGETS[0]]
    command += ["--profile", PROJECT / "profiles/local", "--cores", "2", "--resources", "gpu=2", "--until", "pretrain"]
    environment = {**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "3,5"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    logs = [path.read_text() for path in (tmp_path / "results/tiny/logs/pretrain").iterdir()]
    cards = [re.search(r"GPU (\d)$", text, re.MULTILINE)[1] for text in logs]
    assert sorted(cards) == ["3", "5"]
    begun, ended = zip(*((lines[0][:19], lines[-1][:19]) for lines in map(str.splitlines, logs)))
    assert max(begun) < min(ended)  # side by side
