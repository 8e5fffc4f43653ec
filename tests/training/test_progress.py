"""How far a training is, in a file for other programs."""

import csv
import errno
import json

import pytest

from issl.jobs.execution import Execution
from issl.training import pretrain, progress

CPU = Execution(device="cpu", precision="32")


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)


def test_an_interrupted_training_tells_how_far_it_was(synthetic, make_run, tmp_path, killed_at, often):
    run, settings = make_run(optim={"epochs": 5}), CPU.model_copy(update={"checkpoint_minutes": 0})
    with killed_at((3, 0)):
        pretrain.pretrain(run, 1, synthetic, tmp_path / "run", settings)
    told = json.loads((tmp_path / "run/checkpoints/progress.json").read_text())
    saved = json.loads((tmp_path / "run/checkpoints/saved.json").read_text())
    assert (told["epoch"], told["epochs"]) == (3, 5)
    assert saved["step"] / saved["steps"] == pytest.approx(3 / 5)
    assert told["spec"] == run.model_dump(mode="json") and told["device"].startswith("CPU")

    pretrain.pretrain(run, 1, synthetic, tmp_path / "run", settings)
    with (tmp_path / "run/history.csv").open(newline="") as file:
        first = list(csv.DictReader(file))[:3]
    assert told["loss"] == pytest.approx(float(first[-1]["loss"]))
    assert told["seconds"] == pytest.approx(sum(float(row["seconds"]) for row in first))
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_training_whose_progress_cannot_be_written_goes_on(synthetic, make_run, tmp_path, often, monkeypatch, caplog):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(progress, "write_json", full)
    pretrain.pretrain(make_run(optim={"epochs": 2}), 1, synthetic, tmp_path, CPU)
    assert "progress.json is not up to date" in caplog.text
    assert (tmp_path / "encoder.safetensors").exists()
