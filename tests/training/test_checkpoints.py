"""Time limits and signals: a training saves itself and stops, and requeues its job only if that helps."""

import logging
import os
import signal
import stat

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from issl.errors import UserError
from issl.jobs import allocation
from issl.jobs.execution import Execution
from issl.jobs.slurm import duration
from issl.training import checkpoints, pretrain

SELDOM = Execution(device="cpu", precision="32", progress=False, checkpoint_minutes=60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784), ("2:03:04", 7384), ("59:01", 3541), ("0:07\n", 7), ("UNLIMITED", None), ("INVALID", None)],
)
def test_slurms_durations_are_parsed(text, seconds):
    assert duration(text) == seconds


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Puts pretended squeue and scontrol on the path, which write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    called = tmp_path / "called"

    def answers(**answer):
        for name, (text, status) in answer.items():
            script = folder / name
            script.write_text(
                f'#!/bin/sh\necho "{name} $*" >> {called}\necho "{text}"\necho "{text}" >&2\nexit {status}\n'
            )
            script.chmod(script.stat().st_mode | stat.S_IEXEC)
        return lambda: called.read_text().splitlines() if called.exists() else []

    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(pretrain.time, "sleep", lambda seconds: None)
    return answers


def test_outside_slurm_there_is_no_time_limit(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert allocation.seconds_left() is None
    assert allocation.requeue() == "not a Slurm job"


def test_a_slurm_that_does_not_answer_is_no_error(slurm, monkeypatch):
    slurm(squeue=("slurm_load_jobs error", 1), scontrol=("Job requeue is disabled", 1))
    assert allocation.seconds_left() is None
    assert allocation.requeue() == "Job requeue is disabled"
    monkeypatch.setenv("PATH", "/nowhere")
    assert allocation.seconds_left() is None
    assert allocation.requeue() == "no command scontrol"


def same_weights(*folders):
    first, *others = (load_file(folder / "encoder.safetensors") for folder in folders)
    return all(torch.equal(first[key], other[key]) for other in others for key in first)


def test_a_run_longer_than_its_allocation_requeues_to_the_same_result(synthetic, make_run, tmp_path, slurm):
    run = make_run(optim={"epochs": 4, "batch_size": 16})
    calls = slurm(squeue=("UNLIMITED", 0), scontrol=("", 0))
    pretrain.pretrain(run, 1, synthetic, tmp_path / "whole", SELDOM)

    slurm(squeue=("0:00", 0))  # no time at all: every attempt makes one step
    attempts = 0
    while not (tmp_path / "cut/encoder.safetensors").exists():
        attempts += 1
        with pytest.raises(allocation.Stopped, match=r"stopped after step \d+ \(time limit\) and saved"):
            pretrain.pretrain(run, 1, synthetic, tmp_path / "cut", SELDOM)
        if attempts == 15:
            slurm(squeue=("UNLIMITED", 0))
            pretrain.pretrain(run, 1, synthetic, tmp_path / "cut", SELDOM)
    assert attempts == 15  # 4 epochs of 4 steps, all but the last of which was an attempt of its own
    assert calls().count("scontrol requeue 17") == attempts
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    whole, cut = (pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "cut"))
    timing = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(whole.drop(columns=timing), cut.drop(columns=timing), check_exact=True)


def test_a_refused_requeue_is_reported_as_a_failure(synthetic, make_run, tmp_path, slurm, caplog):
    caplog.set_level(logging.INFO)
    slurm(squeue=("0:00", 0), scontrol=("Job requeue is disabled", 1))
    with pytest.raises(allocation.Stopped):
        pretrain.pretrain(make_run(), 1, synthetic, tmp_path, SELDOM)
    assert "this job could not be requeued (Job requeue is disabled)" in caplog.text


def test_an_allocation_without_a_step_is_not_requeued():
    with pytest.raises(UserError, match=r"no training step fits into the time limit.*hardware\.pretrain\.minutes"):
        pretrain.requeue(steps=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_stops_without_a_requeue(synthetic, make_run, tmp_path, monkeypatch, slurm, number):
    calls = slurm(squeue=("1:00:00", 0), scontrol=("", 0))
    run = make_run(optim={"epochs": 4})
    pretrain.pretrain(run, 1, synthetic, tmp_path / "whole", SELDOM)
    before = signal.getsignal(number)
    original = pretrain.Pretraining.training_step

    def interrupted(module, batch, batch_idx):
        if (module.current_epoch, batch_idx) == (1, 0):
            os.kill(os.getpid(), number)
        return original(module, batch, batch_idx)

    with (
        monkeypatch.context() as patch,
        pytest.raises(allocation.Stopped, match=f"after step 3 .{number.name}. and saved"),
    ):
        patch.setattr(pretrain.Pretraining, "training_step", interrupted)
        pretrain.pretrain(run, 1, synthetic, tmp_path / "broken", SELDOM)
    assert signal.getsignal(number) == before
    pretrain.pretrain(run, 1, synthetic, tmp_path / "broken", SELDOM)
    assert same_weights(tmp_path / "whole", tmp_path / "broken")
    assert not any(call.startswith("scontrol") for call in calls())


def test_a_full_disk_does_not_end_a_training(synthetic, make_run, tmp_path, monkeypatch, caplog):
    """The kernel refuses what goes beyond a limit on file size, in the middle of writing."""
    import resource

    often = SELDOM.model_copy(update={"checkpoint_minutes": 0})
    original, limits = checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails, as on a full disk

    def full(trainer, folder):
        if trainer.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            original(trainer, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            if trainer.global_step == 3:
                names = sorted(path.name for path in folder.iterdir())
                assert names == [
                    "last.ckpt",
                    "previous.ckpt",
                    "progress.json",
                    "saved.json",
                ]  # and nothing half-written
                assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2

    monkeypatch.setattr(checkpoints, "save", full)
    try:
        pretrain.pretrain(make_run(), 1, synthetic, tmp_path, often)
    finally:
        signal.signal(signal.SIGXFSZ, ignored)
    assert "cannot save a checkpoint" in caplog.text and "training continues" in caplog.text
    assert (tmp_path / "encoder.safetensors").exists()


def test_a_stop_that_cannot_save_is_reported(synthetic, make_run, tmp_path, monkeypatch, slurm):
    slurm(squeue=("0:00", 0), scontrol=("", 0))
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    monkeypatch.setattr(checkpoints, "newest", lambda *_: None)
    with pytest.raises(UserError, match="cannot save a checkpoint: File exists"):
        pretrain.pretrain(make_run(), 1, synthetic, tmp_path, SELDOM)
