"""A training can be followed in W&B, TensorBoard and CSV: each has a row for each epoch, and nothing secret."""

import csv
import shutil
import sys
from pathlib import Path

import pytest
import wandb as wandb_client
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from issl.errors import UserError
from issl.jobs.execution import Execution, Wandb
from issl.spec.run import run_id
from issl.training import pretrain, tracking

CPU = Execution(device="cpu", precision="32", progress=False, checkpoint_minutes=0)
OFFLINE = CPU.model_copy(update={"wandb": Wandb(mode="offline")})


def following(*trackers, **changes):
    return CPU.model_copy(update={"track": trackers, **changes})


def losses(path):
    with Path(path).open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def wandb_ids(folder):
    """Of the W&B runs in a folder, which may have several parts."""
    return {path.stem.removeprefix("run-") for path in (folder / "wandb").rglob("run-*.wandb")}


@pytest.fixture
def run(make_run):
    return make_run(optim={"epochs": 2})


def test_every_tracker_has_the_history(synthetic, run, tmp_path):
    """All at once, by one setting."""
    wandb = Wandb(mode="offline")
    pretrain.pretrain(run, 1, synthetic, tmp_path, following("tensorboard", "csv", wandb=wandb))
    kept = losses(tmp_path / "history.csv")
    assert losses(tmp_path / "csv/version_0/metrics.csv") == pytest.approx(kept)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (epoch, pytest.approx(loss)) for epoch, loss in enumerate(kept)
    ]
    assert [*(tmp_path / "wandb").glob("offline-run-*")]
    shutil.rmtree(tmp_path / "wandb")


def test_a_training_that_is_interrupted_goes_on_in_the_same_places(synthetic, make_run, tmp_path, monkeypatch):
    """TensorBoard appends; CSV has a folder for each attempt, and keeps the first one's; W&B keeps the id."""
    run, wandb = make_run(optim={"epochs": 3}), Wandb(mode="offline")
    execution = following("tensorboard", "csv", wandb=wandb)
    ended = pretrain.Pretraining.on_train_epoch_end

    def killed(module):
        ended(module)
        if module.current_epoch == 1:
            raise KeyboardInterrupt

    with (
        monkeypatch.context() as patch,
        pytest.raises((SystemExit, KeyboardInterrupt)),
    ):
        patch.setattr(pretrain.Pretraining, "on_train_epoch_end", killed)
        pretrain.pretrain(run, 1, synthetic, tmp_path, execution)
    wandb_client.finish()  # as the end of the process does
    first = tracking._id("", tmp_path / "checkpoints" / tracking.ID)
    pretrain.pretrain(run, 1, synthetic, tmp_path, execution)
    kept = losses(tmp_path / "history.csv")
    parts = [losses(tmp_path / f"csv/version_{attempt}/metrics.csv") for attempt in (0, 1)]
    assert parts[0] == pytest.approx(kept[:2]) and parts[1][-1] == pytest.approx(kept[-1])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {event.step for event in events.Scalars("loss")} == {0, 1, 2}
    assert wandb_ids(tmp_path) == {first}
    shutil.rmtree(tmp_path / "wandb")


def test_wandb_offline_has_no_key_and_the_names_of_experiments(synthetic, run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a1b2c3d4" * 5)
    pretrain.pretrain(run, 1, synthetic, tmp_path, OFFLINE, ["fig7c", "table1_contrastive"])
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert f"-{run_id(run)}-s1-" in folder.name
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"a1b2c3d4a1b2c3d4" in path.read_bytes() for path in written)
    (sent,) = folder.glob(f"run-{run_id(run)}-s1-*.wandb")
    assert b"fig7c" in sent.read_bytes() and b"table1_contrastive" in sent.read_bytes()
    shutil.rmtree(tmp_path / "wandb")


def test_two_results_folders_have_two_ids(synthetic, run, tmp_path):
    """Of the same run: in one project of W&B, the second would otherwise go on where the first ended."""
    ids = set()
    for name in ("one", "other"):
        pretrain.pretrain(run, 1, synthetic, tmp_path / name, OFFLINE)
        ids |= wandb_ids(tmp_path / name)
    assert len(ids) == 2


def test_without_tracking_no_client_is_imported(synthetic, run, tmp_path, monkeypatch):
    for name in ("wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises ImportError
    pretrain.pretrain(run, 1, synthetic, tmp_path / "out", CPU)
    with pytest.raises(ImportError):
        pretrain.pretrain(run, 1, synthetic, tmp_path / "tracked", OFFLINE)


def test_a_tracker_that_is_not_installed_is_one_line(synthetic, run, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(UserError, match=r"execution.track: tensorboard is not installed: pip install 'issl\[tensorb"):
        pretrain.pretrain(run, 1, synthetic, tmp_path, following("tensorboard"))
