"""Pretraining on a folder of photographs from end to end: many views, one and two processes, killed and continued."""

import json
import shutil
import signal
import time
from contextlib import suppress

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_launcher import history, start

from issl import data
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.spec.run import RunSpec
from issl.training import pretrain

CPU = Execution(device="cpu", precision="32", progress=False, checkpoint_minutes=0)
TWO = [{"number": 2, "size": 32, "min_area": 0.14}]
SIX = [*TWO, {"number": 4, "size": 16, "min_area": 0.05, "max_area": 0.14}]
OBJECTIVES = {
    "dissl_multicrop": {"classes": 32, "hidden": 32, "bottleneck": 16, "invariance_warmup_steps": 3},
    "simclr": {"widths": [32, 32], "out": 16, "temperature": 0.1},
    "cissl": {"widths": [32, 32], "out": 16, "temperature": 0.1},
    "swav": {"prototypes": 32, "hidden": 32, "out": 16},
}


def run_on(folder, method="dissl_multicrop", **optim) -> RunSpec:
    views = SIX if method in ("dissl_multicrop", "swav") else TWO
    return RunSpec.model_validate(
        {
            "data": {"kind": "imagenet", "image_size": 32, "path": str(folder)},
            "objective": {"name": method, **OBJECTIVES[method]},
            "augment": {"jitter": 0.8, "hue": 0.2, "gray": 0.2, "blur": True, "blur_kernel": "pillow", "views": views},
            "encoder": {"arch": "resnet10", "width": 8, "dim": 64, "init": "torch"},
            "optim": {
                **{"epochs": 3, "batch_size": 8, "warmup_epochs": 1, "lr": 9.6, "warmup_lr": 0.001, "clip_value": 0},
                **{"optimizer": "lars", "lr_interval": "step", "cosine": "whole_run", "drop_last": True},
                **{"online_lr": 0.1} | optim,
            },
        }
    )


@pytest.fixture(scope="module")
def listed(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("list")
    data.prepare(run_on(photographs).data, out, progress=False)
    return out


@pytest.mark.parametrize("method", OBJECTIVES)
def test_every_method_learns_from_photographs(photographs, listed, tmp_path, method):
    run = run_on(photographs, method, epochs=10)
    pretrain.pretrain(run, 1, listed, tmp_path, CPU)
    rows = history(tmp_path)
    assert len(rows) == 10 and rows[-1]["log_loss"] < rows[0]["log_loss"] - 0.02
    assert rows[0]["lr"] == pytest.approx(0.001)
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["spec"] == run.model_dump(mode="json") and "path" not in about["spec"]["data"]
    assert about["data"] == json.loads((listed / "meta.json").read_text())["sha256"]
    assert load_file(tmp_path / "encoder.safetensors")["conv1.weight"].shape == (8, 3, 3, 3)


@pytest.mark.parametrize("step", [(0, 2), *(pytest.param(s, marks=pytest.mark.slow) for s in ((1, 0), (2, 3)))])
def test_a_killed_run_continues_to_bit_identical_weights(photographs, listed, tmp_path, killed_at, step):
    run = run_on(photographs)
    pretrain.pretrain(run, 1, listed, tmp_path / "whole", CPU)

    with killed_at(step):
        pretrain.pretrain(run, 1, listed, tmp_path / "broken", CPU)
    pretrain.pretrain(run, 1, listed, tmp_path / "broken", CPU)
    whole, resumed = (load_file(tmp_path / name / "encoder.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    for row, other in zip(history(tmp_path / "whole"), history(tmp_path / "broken"), strict=True):
        assert {k: v for k, v in row.items() if k != "images_per_second"} == {
            k: v for k, v in other.items() if k != "images_per_second"
        }


def trained(run, data, out, *launcher):
    job = start(run, data, out, "--place", json.dumps({"path": run.data.path}), *launcher)
    _, error = job.communicate(timeout=200)
    assert job.returncode == 0, error
    return history(out), load_file(out / "encoder.safetensors"), json.loads((out / "run.json").read_text())


@pytest.mark.slow
def test_two_processes_train_as_one(photographs, listed, tmp_path):
    run = run_on(photographs)
    rows, weights, about = trained(run, listed, tmp_path / "one")
    both_rows, both_weights, both = trained(run, listed, tmp_path / "two", "--per-node", "2")
    assert (about["processes"], both["processes"]) == (1, 2)
    for row, other in zip(rows, both_rows, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert other[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    for name, value in weights.items():
        assert (value - both_weights[name]).abs().max() <= 1e-3 * value.abs().max().clamp(min=1e-3), name


@pytest.mark.slow
def test_a_stopped_training_resumes_to_the_same_weights_and_leaves_no_process(photographs, listed, tmp_path):
    """The signal goes to the whole group, as Slurm and terminals send it: the processes that decode must not mind."""
    run = run_on(photographs, epochs=6)
    _, weights, _ = trained(run, listed, tmp_path / "whole", "--per-node", "2")
    out = tmp_path / "broken"
    job = start(run, listed, out, "--place", json.dumps({"path": str(photographs)}), "--per-node", "2")
    last = out / "checkpoints/last.ckpt"
    while not last.exists():
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.05)
    processes = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
    assert len(processes) >= 4  # two that train, and one that decodes for each
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _, error = job.communicate(timeout=60)
    assert job.returncode != 0 and "(SIGTERM) and saved; run the same command to continue" in error
    _, left = psutil.wait_procs(processes, timeout=30)
    assert left == []
    _, resumed, _ = trained(run, listed, out, "--per-node", "2")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_a_corrupt_photograph_stops_the_training_with_its_name(photographs, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    bad = folder / "train/n02/05.JPEG"
    bad.write_bytes(bad.read_bytes()[:-30])
    run = run_on(folder)
    data.prepare(run.data, tmp_path / "list", progress=False)
    with pytest.raises(UserError, match=r"train/n02/05\.JPEG: cannot be decoded as an image \(.*truncated"):
        pretrain.pretrain(run, 1, tmp_path / "list", tmp_path / "out", CPU)

    tolerant = run.model_copy(update={"data": run.data.model_copy(update={"corrupt": "skip"})})
    arrays = data.prepare(tolerant.data, tmp_path / "sound", progress=False)
    assert arrays.meta["splits"]["train"] == 38 and arrays.meta["source"]["skipped"] == ["train/n02/05.JPEG"]
    pretrain.pretrain(tolerant, 1, tmp_path / "sound", tmp_path / "out", CPU)
    assert (tmp_path / "out/encoder.safetensors").exists()
