"""One pretraining in several processes, started as jobs start it: the same training as in one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from issl.config import resources
from issl.config.plan import load
from issl.jobs.execution import Execution
from issl.training.launcher import Launcher
from issl.training.lightning import LightningEnvironment, SLURMEnvironment
from issl.training.pretrain import pretrain

SETTINGS = Execution(device="cpu", precision="32", progress=False, checkpoint_minutes=0)


def start(run, data, out, *launcher, **settings):
    execution = SETTINGS.model_copy(update=settings).canonical()
    command = [sys.executable, "-m", "issl", "pretrain", "--spec", run.canonical(), "--seed", "1", "--data", str(data)]
    command += ["--out", str(out), "--settings", execution, "--log", str(out / "job.log"), *launcher]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def history(out):
    with (out / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v and "second" not in k} for row in csv.DictReader(file)]


def trained(run, data, out, *launcher):
    job = start(run, data, out, *launcher)
    _, error = job.communicate(timeout=200)
    assert job.returncode == 0, error
    return made(out)


def made(out):
    return history(out), load_file(out / "encoder.safetensors"), json.loads((out / "run.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cissl", "dissl", "dino", "byol", "simsiam", "moco_v3", "swav"])
def test_two_processes_train_as_one(synthetic, make_run, tmp_path, method):
    run = make_run(method, optim={"lr_interval": "step"})
    pretrain(run, 1, synthetic, tmp_path / "one", SETTINGS)
    rows, weights, about = made(tmp_path / "one")
    both_rows, both_weights, both = trained(run, synthetic, tmp_path / "two", "--per-node", "2")
    assert (about["processes"], both["processes"]) == (1, 2)
    assert [row.keys() for row in rows] == [row.keys() for row in both_rows]
    for row, other in zip(rows, both_rows):
        for name, value in row.items():
            # A bias before a batch norm has no gradient but rounding, which Adam makes a step of; running means lag
            # behind it, so that evaluation sees what training does not.
            tolerance = 1e-2 if name.startswith("test_") else 1e-4
            assert other[name] == pytest.approx(value, rel=1e-3, abs=tolerance), name
    moved = sum((weights[name] - both_weights[name]).abs().mean() for name in weights if name.endswith("weight"))
    assert moved < 1e-2 * sum(value.abs().mean() for name, value in weights.items() if name.endswith("weight"))
    lines = (tmp_path / "two/job.log").read_text()
    assert lines.count("epoch 1/3") == 1  # one process speaks


@pytest.mark.slow
def test_a_stopped_training_in_two_processes_resumes_to_the_same_weights(synthetic, make_run, tmp_path):
    run = make_run(optim={"epochs": 12, "batch_size": 16})
    _, weights, _ = trained(run, synthetic, tmp_path / "whole", "--per-node", "2")
    out = tmp_path / "broken"
    for number in (signal.SIGTERM, signal.SIGKILL):
        job = start(run, synthetic, out, "--per-node", "2")
        before, last = time.time(), out / "checkpoints/last.ckpt"
        while not (last.exists() and last.stat().st_mtime > before):
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.05)
        job.send_signal(number)
        _, error = job.communicate(timeout=60)
        assert job.returncode != 0
        if number == signal.SIGTERM:
            assert "(SIGTERM) and saved; run the same command to continue" in error
    _, resumed, about = trained(run, synthetic, out, "--per-node", "2")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert len(about["attempts"]) == 3


@pytest.mark.slow
def test_a_batch_that_cannot_be_split_equally_ends_the_job_with_one_line(synthetic, make_run, tmp_path):
    job = start(make_run(optim={"batch_size": 31}), synthetic, tmp_path, "--per-node", "2")
    _, error = job.communicate(timeout=100)
    assert job.returncode == 1
    assert "error: a batch of 31 images cannot be split equally among 2 processes" in error
    assert "Traceback" not in error


def test_srun_or_lightning_starts_the_processes():
    assert (Launcher().size, Launcher(4).size, Launcher(4, 2).size) == (1, 4, 8)
    assert isinstance(Launcher(4).environment(), LightningEnvironment)
    slurm = Launcher(4, 1).environment()
    assert isinstance(slurm, SLURMEnvironment) and not slurm.auto_requeue


@pytest.mark.parametrize(
    ("launcher", "given", "expected"),
    [
        (Launcher(), None, 31),
        (Launcher(8), None, 3),  # they share the cores of one machine
        (Launcher(8, 1), "12", 11),  # srun gives each its own
        (Launcher(8, 1), None, 31),
        (Launcher(64), None, 1),
        (Launcher(), "4", 31),  # Slurm's variable is about a process of srun, and Lightning starts this one
    ],
)
def test_all_cores_but_one_decode(monkeypatch, launcher, given, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(32)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if given:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert launcher.helpers() == expected


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        ({"gpus": 1}, {"gpu": 1}),
        ({"gpus": 4}, {"gpu": 4}),
        ({"gpus": 4, "nodes": 1}, {"mpi": "srun", "nodes": 1, "gres": "gpu:4", "tasks_per_node": 4}),
        ({"gpus": 4, "nodes": 2}, {"mpi": "srun", "nodes": 2, "gres": "gpu:4", "tasks_per_node": 4}),
        ({"gpus": 1, "nodes": 2}, {"mpi": "srun", "nodes": 2, "gres": "gpu:1", "tasks": 2, "tasks_per_gpu": 0}),
    ],
)
def test_processes_and_nodes_become_a_request_to_slurm(tmp_path, hardware, expected):
    from issl.config.presets import read_config

    raw = read_config("config.yaml")
    raw["hardware"]["pretrain"] |= hardware
    (tmp_path / "config.yaml").write_text(json.dumps(raw))
    plan = load(tmp_path / "config.yaml")["results"]
    names = ("gpu", "gres", "mpi", "nodes", "tasks", "tasks_per_node", "tasks_per_gpu")
    requested = {name: resources.of_pretraining(plan, name) for name in names}
    assert {name: amount for name, amount in requested.items() if amount is not None} == expected
    assert resources.launcher(plan).startswith("srun --nodes=") == ("nodes" in hardware)
