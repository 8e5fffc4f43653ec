"""Pretraining: it learns, writes what it did, resumes to the same end, and says clearly what is wrong."""

import csv
import hashlib
import json
import math
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from issl import objectives
from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs import fingerprint, locks, provenance
from issl.jobs.execution import Execution
from issl.models import encoders
from issl.objectives.base import Clock
from issl.objectives.wmse import WMSE
from issl.probing import shards
from issl.probing.featurize import featurize
from issl.spec.encoding import Encoding
from issl.spec.run import run_id
from issl.training import checkpoints, pretrain
from issl.training.history import History
from issl.training.optim import learning_rates
from issl.views import augment
from issl.views.random import epoch_order, generator

CPU = Execution(device="cpu", precision="32", progress=False, checkpoint_minutes=0)
CODE = {  # of each method: its module, and the class of its settings
    "simclr": ("contrastive", "SimCLR"),
    "cissl": ("contrastive", "CISSL"),
    "dissl": ("dissl", "DISSL"),
    "dino": ("dino", "DINO"),
    "dcl": ("dcl", "DCL"),
    "barlow_twins": ("barlow_twins", "BarlowTwins"),
    "vicreg": ("vicreg", "VICReg"),
    "wmse": ("wmse", "WMSE"),
    "lejepa": ("lejepa", "LeJEPA"),
    "byol": ("byol", "BYOL"),
    "simsiam": ("simsiam", "SimSiam"),
    "moco_v3": ("moco_v3", "MoCoV3"),
    "swav": ("swav", "SwAV"),
}


def history(out):
    with (out / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("simclr", {}),
        ("cissl", {}),
        ("cissl", {"predictor": "mlp"}),
        ("dissl", {}),
        ("dissl", {"predictor": "mlp"}),
        ("dino", {}),
        ("dino", {"ema_schedule": "half_period", "teacher_projector": "copy", "normalize": "after_bottleneck"}),
        ("dcl", {}),
        ("barlow_twins", {}),
        ("vicreg", {}),
        ("wmse", {}),
        ("lejepa", {}),
        ("byol", {}),
        ("simsiam", {}),
        ("moco_v3", {}),
        ("swav", {"queue": 32, "queue_start_epoch": 2}),
    ],
)
def test_every_method_pretrains_to_a_lower_loss(synthetic, make_run, tmp_path, capsys, objective, changes):
    lr = 0.2 if objective == "wmse" else 0.01  # 32 images say little of a covariance: its gradients are noise at first
    run = make_run(objective, objective=changes, optim={"epochs": 20, "lr": lr})
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    losses = [float(row["loss"]) for row in history(tmp_path)]
    assert len(losses) == 20
    assert losses[-1] < losses[0]
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["run"] == run_id(run) and about["seed"] == 1
    assert about["loss"] == pytest.approx(losses[-1])
    assert 0 <= about["test_online_acc"] <= 1
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0]
    module, settings = CODE[objective]
    parts = [f"issl.objectives.{module}", f"issl.spec.objective:{settings}", "issl.spec.data:Synthetic"]
    parts += ["issl.models.encoders", "issl.spec.encoder:ResNet"]
    assert about["code"] == fingerprint.current("pretrain", *parts)
    assert [attempt["code"] for attempt in about["attempts"]] == [about["code"]["fingerprint"]]
    assert about["data"] == json.loads((synthetic / "meta.json").read_text())["sha256"]
    assert about["spec"] == run.model_dump(mode="json")
    last = history(tmp_path)[-1]
    logged = ("log_loss", "test_loss", "test_log_loss") if run.objective.has_log_loss else ("test_loss",)
    assert all(math.isfinite(float(last[name])) for name in logged)
    assert not (tmp_path / "checkpoints").exists()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(run_id(run))]
    assert " seed 1: 20 epochs in 0:0" in line and f", loss {losses[-1]:.4f}, online accuracy " in line


def test_w_mse_4_trains_on_four_views_of_each_image(synthetic, make_run, tmp_path, monkeypatch):
    """And is monitored on two, as the others are."""
    seen, forward = set(), WMSE.forward

    def spied(self, z, views, clock):
        seen.add((self.training, len(z), len(views)))
        return forward(self, z, views, clock)

    monkeypatch.setattr(WMSE, "forward", spied)
    run = make_run("wmse", augment={"number": 4}, optim={"epochs": 1, "warmup_epochs": 0})
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    assert seen == {(True, 4 * 32, 2 * 32), (False, 2 * 32, 2 * 32)}


@pytest.fixture(scope="module")
def undisturbed(synthetic, make_run, tmp_path_factory):
    """Trains a method of four epochs without interruption, once for all tests: the run and its folder."""

    @cache
    def train(objective):
        run, out = make_run(objective, optim={"epochs": 4, "batch_size": 16}), tmp_path_factory.mktemp(objective)
        pretrain.pretrain(run, 1, synthetic, out, CPU)
        return run, out

    return train


@pytest.mark.parametrize("objective", ["simclr", "dino"])
@pytest.mark.parametrize("step", [(0, 1), (1, 0), (2, 2), (3, 3)])
def test_a_killed_run_continues_to_bit_identical_weights(synthetic, undisturbed, tmp_path, killed_at, objective, step):
    run, whole_run = undisturbed(objective)

    with killed_at(step):
        pretrain.pretrain(run, 1, synthetic, tmp_path / "broken", CPU)
    assert (tmp_path / "broken/checkpoints/last.ckpt").exists()
    assert not (tmp_path / "broken/encoder.safetensors").exists()

    pretrain.pretrain(run, 1, synthetic, tmp_path / "broken", CPU)
    folders = (whole_run, tmp_path / "broken")
    whole, resumed = (load_file(folder / "encoder.safetensors") for folder in folders)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    timing = {"seconds", "images_per_second"}
    strip = [[{k: v for k, v in row.items() if k not in timing} for row in history(folder)] for folder in folders]
    assert strip[0] == strip[1]
    about = json.loads((tmp_path / "broken/run.json").read_text())
    assert [attempt["code"] for attempt in about["attempts"]] == [about["code"]["fingerprint"]] * 2


def test_a_training_resumed_in_another_precision_warns_and_records_both(
    synthetic, make_run, tmp_path, killed_at, caplog
):
    run = make_run(optim={"epochs": 3})
    with killed_at((2, 0)):
        pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU.model_copy(update={"precision": "bf16"}))
    about = json.loads((tmp_path / "run.json").read_text())
    assert [attempt["precision"] for attempt in about["attempts"]] == ["32", "bf16"]
    assert provenance.changes(about["attempts"]) == ["precision: 32, then bf16"]
    assert "continues a training with another precision: 32, then bf16" in caplog.text
    assert {"code", "device", "precision", "processes", "versions", "host", "started"} == about["attempts"][0].keys()


def test_the_evaluated_network_does_not_change_the_training(synthetic, make_run, tmp_path):
    kept = {}
    for name in ("student", "teacher"):
        pretrain.pretrain(make_run("dino", objective={"evaluate": name}), 1, synthetic, tmp_path / name, CPU)
        kept[name] = load_file(tmp_path / name / "encoder.safetensors")
    losses = [[row["loss"] for row in history(tmp_path / name)] for name in kept]
    assert losses[0] == losses[1]
    assert kept["student"].keys() == kept["teacher"].keys()
    assert not torch.equal(kept["student"]["conv1.weight"], kept["teacher"]["conv1.weight"])


def test_a_torn_checkpoint_falls_back_to_the_previous_one(synthetic, make_run, tmp_path, monkeypatch, caplog):
    run = make_run(optim={"epochs": 4})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "remove", lambda folder: None)
        pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    folder = tmp_path / "checkpoints"
    identity = {"spec": run.canonical(), "seed": 1, "data": read(synthetic).meta["sha256"]}
    assert checkpoints.newest(folder, identity) == (folder / "last.ckpt", 8)
    content = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(content[: len(content) // 2])
    assert checkpoints.newest(folder, identity) == (folder / "previous.ckpt", 7)
    assert "last.ckpt cannot be read" in caplog.text


def test_a_checkpoint_of_another_run_is_refused(synthetic, make_run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "remove", lambda folder: None)
        pretrain.pretrain(make_run(optim={"epochs": 2}), 1, synthetic, tmp_path, CPU)
    with pytest.raises(UserError, match=r"run\.json: a finished training with another spec: choose another --out, or"):
        pretrain.pretrain(make_run(optim={"epochs": 3}), 1, synthetic, tmp_path, CPU)
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match="belongs to another run"):
        pretrain.pretrain(make_run(optim={"epochs": 3}), 1, synthetic, tmp_path, CPU)


def other_content(data, folder):
    """A prepared data set of the same name and shape, with one other pixel."""
    shutil.copytree(data, folder)
    images = np.load(folder / "images.npy")
    images[0, 0, 0] ^= 1
    np.save(folder / "images.npy", images)
    meta = json.loads((folder / "meta.json").read_text())
    meta["sha256"]["images"] = hashlib.sha256(images.tobytes()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_a_checkpoint_of_other_data_is_refused(synthetic, make_run, tmp_path, monkeypatch):
    run, changed = make_run(optim={"epochs": 2}), other_content(synthetic, tmp_path / "changed")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "remove", lambda folder: None)
        pretrain.pretrain(run, 1, synthetic, tmp_path / "run", CPU)
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(UserError, match="was trained on other images or labels than the prepared ones"):
        pretrain.pretrain(run, 1, changed, tmp_path / "run", CPU)


@pytest.fixture
def trained(synthetic, make_run, tmp_path, monkeypatch):
    """Trains a run and removes its outputs, as Snakemake does before a job; gives a way to ask for it again.

    The answer is whether it is trained again.
    """
    run, out = make_run(optim={"epochs": 2}), tmp_path / "run"
    pretrain.pretrain(run, 1, synthetic, out, CPU)
    before = (out / "encoder.safetensors").stat().st_ino

    def again(data=synthetic, **changes):
        calls = []
        monkeypatch.setattr(pretrain, "train", lambda *_: calls.append(1) or [(out / name).touch() for name in OUTPUTS])
        for name in OUTPUTS:
            (out / name).unlink(missing_ok=True)
        pretrain.pretrain(make_run(optim={"epochs": 2} | changes), 1, data, out, CPU)
        assert bool(calls) != ((out / "encoder.safetensors").stat().st_ino == before)
        return bool(calls)

    return out, again


OUTPUTS = pretrain.OUTPUTS


def test_a_run_whose_data_were_prepared_again_to_the_same_content_is_not_trained_again(trained, synthetic, tmp_path):
    _, again = trained
    shutil.copytree(synthetic, tmp_path / "prepared_again")
    assert not again(tmp_path / "prepared_again")


def test_a_run_is_trained_again_on_other_content(trained, synthetic, tmp_path):
    _, again = trained
    assert again(other_content(synthetic, tmp_path / "changed"))


def test_a_record_from_before_a_setting_was_added_is_of_the_same_run(trained):
    """Settings at their defaults are not part of a run's identity, so an older record may lack them."""
    out, again = trained
    path = out / locks.KEPT / "run.json"
    record = json.loads(path.read_text())
    assert record["spec"]["optim"].pop("warmup_lr") == 0.0
    path.write_text(json.dumps(record))
    assert not again()
    path.write_text(json.dumps(record | {"spec": record["spec"] | {"optim": record["spec"]["optim"] | {"lr": 0.5}}}))
    assert again()


@pytest.mark.parametrize("forced", [False, True])
def test_every_process_of_a_job_decides_alike(synthetic, make_run, tmp_path, monkeypatch, forced):
    """One that trained while the first had found the results would wait for it until the time of the job is over."""
    run, out = make_run(optim={"epochs": 2}), tmp_path / "run"
    pretrain.pretrain(run, 1, synthetic, out, CPU)
    trained = []
    monkeypatch.setattr(pretrain, "train", lambda *_: trained.append(1) or [(out / name).touch() for name in OUTPUTS])
    if forced:
        monkeypatch.setenv(locks.FORCED, "pretrain")
    for rank in ("1", "0"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        for name in OUTPUTS:
            (out / name).unlink(missing_ok=True)
        pretrain.pretrain(run, 1, synthetic, out, CPU)
    assert len(trained) == (2 if forced else 0)
    assert (out / "encoder.safetensors").exists()


@pytest.mark.parametrize("forced", ["pretrain", "*", "probe:pretrain"])
def test_a_run_is_trained_again_when_someone_forces_it(trained, monkeypatch, forced):
    _, again = trained
    monkeypatch.setenv(locks.FORCED, forced)
    assert again()


def test_a_run_is_not_trained_again_when_another_rule_is_forced(trained, monkeypatch):
    _, again = trained
    monkeypatch.setenv(locks.FORCED, "prepare:probe")
    assert not again()


def test_a_run_is_trained_again_when_a_file_of_it_is_forced(trained, monkeypatch):
    out, again = trained
    monkeypatch.setenv(locks.FORCED, str(out / "encoder.safetensors"))
    assert again()


def test_a_damaged_encoder_is_trained_again(trained):
    out, again = trained
    with (out / "encoder.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert again()


def test_runs_repeat_by_seed_and_differ_between_seeds(synthetic, make_run, tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        pretrain.pretrain(make_run(optim={"epochs": 2}), seed, synthetic, tmp_path / name, CPU)
        weights.append(load_file(tmp_path / name / "encoder.safetensors")["conv1.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("interval", "moves"), [("epoch", False), ("step", True)])
def test_epoch_0_moves_no_weight_unless_the_schedule_is_smooth(
    synthetic, make_run, tmp_path, monkeypatch, interval, moves
):
    """Released behaviour: the rate is 0 in epoch 0, while batch norm already follows the data."""
    seen = []

    class Watch(pretrain.Pretraining):
        def on_train_epoch_end(self):
            seen.append((self.encoder.conv1.weight.detach().clone(), self.encoder.bn1.running_mean.abs().sum()))
            super().on_train_epoch_end()

        def on_train_start(self):
            seen.append((self.encoder.conv1.weight.detach().clone(), 0))

    monkeypatch.setattr(pretrain, "Pretraining", Watch)
    run = make_run(optim={"epochs": 2, "lr_interval": interval})
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    (before, _), (after, running_mean) = seen[:2]
    assert torch.equal(before, after) != moves
    assert running_mean > 0


def test_the_online_evaluation_does_not_move_the_encoder(synthetic, make_run, tmp_path):
    weights = []
    for lr in (1e-9, 1.0):
        pretrain.pretrain(make_run(optim={"online_lr": lr}), 1, synthetic, tmp_path / str(lr), CPU)
        weights.append(load_file(tmp_path / str(lr) / "encoder.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_monitoring_does_not_change_the_result(synthetic, make_run, tmp_path):
    for every in (1, 3):
        pretrain.pretrain(
            make_run("dino"), 1, synthetic, tmp_path / str(every), CPU.model_copy(update={"validate_every": every})
        )
    often, seldom = (load_file(tmp_path / n / "encoder.safetensors") for n in ("1", "3"))
    assert all(torch.equal(often[key], seldom[key]) for key in often)
    assert [bool(row["test_loss"]) for row in history(tmp_path / "3")] == [False, False, True]


def test_a_streamed_data_set_gives_bit_identical_weights(synthetic, make_run, tmp_path):
    for name, gigabytes in (("resident", 1), ("streamed", 0)):
        execution = CPU.model_copy(update={"resident_gb": gigabytes})
        pretrain.pretrain(make_run("cissl"), 1, synthetic, tmp_path / name, execution)
    resident, streamed = (load_file(tmp_path / name / "encoder.safetensors") for name in ("resident", "streamed"))
    assert all(torch.equal(resident[key], streamed[key]) for key in resident)
    metrics = [
        [{k: v for k, v in row.items() if "second" not in k} for row in history(tmp_path / name)]
        for name in ("resident", "streamed")
    ]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("method", ["simclr", "dissl"])
def test_the_training_loop_equals_a_plain_one(synthetic, make_run, tmp_path, method):
    """No Lightning, no channels_last, no fused optimiser, views made one by one: the same training, to rounding."""
    run = make_run(method, optim={"lr_interval": "step"})
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    losses, start, end = plain(run, 1, synthetic)
    assert [float(row["loss"]) for row in history(tmp_path)] == pytest.approx(losses, rel=1e-4)
    fast = load_file(tmp_path / "encoder.safetensors")
    moved, apart = (
        sum((end[name] - other[name]).float().norm() for name in end if name.endswith("weight"))
        for other in (start, fast)
    )
    assert apart < 0.01 * moved  # Adam turns the rounding of a gradient near 0 into a step


def plain(run, seed, folder):
    """A loop that does one thing after the other: mean loss of each epoch, the encoder at the start and at the end."""
    arrays = read(folder)
    torch.manual_seed(seed)
    encoder = encoders.build(run.encoder, run.data.image_size)
    objective = objectives.build(run.objective, run.encoder.dim, encoder)
    adam = torch.optim.Adam(
        [*encoder.parameters(), *objective.parameters()], weight_decay=run.optim.weight_decay, foreach=False
    )
    start = {name: value.clone() for name, value in encoder.state_dict().items()}
    means = []
    for epoch in range(run.optim.epochs):
        losses = []
        order = epoch_order("order", seed, epoch, arrays.meta["splits"]["train"], run.optim.batch_size)
        for step, rows in enumerate(order):
            clock = Clock(epoch, run.optim.epochs, epoch * len(order) + step, len(order))
            images = torch.from_numpy(arrays.images[rows.numpy()]).permute(0, 3, 1, 2).contiguous()
            draws = augment.draw(run.augment, 2 * len(rows), *images.shape[2:], generator("augment", seed, epoch, step))
            pairs = torch.cat([images, images])
            views = [augment.apply(pairs[row : row + 1], draws[row : row + 1]) for row in range(len(pairs))]
            views = augment.normalize(torch.cat(views)).contiguous()
            loss = objective(encoder(views), views, clock).loss
            adam.zero_grad()
            loss.backward()
            for parameter in [*encoder.parameters(), *objective.parameters()]:
                parameter.grad.clamp_(-run.optim.clip_value, run.optim.clip_value)
            adam.param_groups[0]["lr"] = learning_rates(run.optim, clock)[0]
            adam.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return means, start, encoder.state_dict()


def test_bf16_trains_close_to_float32(synthetic, make_run, tmp_path):
    for precision in ("32", "bf16"):
        pretrain.pretrain(
            make_run(), 1, synthetic, tmp_path / precision, CPU.model_copy(update={"precision": precision})
        )
    exact, mixed = (float(history(tmp_path / n)[-1]["loss"]) for n in ("32", "bf16"))
    assert mixed == pytest.approx(exact, rel=0.05)


def test_weights_carry_their_spec_and_what_their_encoder_looks_like(synthetic, make_run, tmp_path):
    run = make_run(optim={"epochs": 2})
    pretrain.pretrain(run, 7, synthetic, tmp_path, CPU)
    with safe_open(tmp_path / "encoder.safetensors", "pt") as file:
        notes = file.metadata()
    assert json.loads(notes.pop("encoder")) == run.encoder.model_dump(), "defaults too: what they are may be forgotten"
    assert notes == {"spec": run.canonical(), "seed": "7", "image_size": "16"}


def test_features_are_the_clean_images_in_eval_mode(synthetic, make_run, tmp_path):
    run = make_run(optim={"epochs": 2})
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    encoding = Encoding(data=run.data, resize=16, crop=16)
    featurize(str(tmp_path), encoding, synthetic, tmp_path / "features", 0, CPU)
    features = shards.Features(tmp_path / "features", 96, torch.device("cpu"), 1)
    about = json.loads((tmp_path / "features.json").read_text())
    assert (about["encoder"], about["precision"]) == (str(tmp_path), "32") and about["seconds"] > 0
    assert about["weights"] == hashlib.sha256((tmp_path / "encoder.safetensors").read_bytes()).hexdigest()
    assert about["code"] == fingerprint.current(
        "featurize", "issl.models.encoders", "issl.spec.shape", "issl.spec.data:Synthetic"
    )
    arrays = read(synthetic)
    assert features.dim == 64 and features.resident.dtype == torch.float16
    encoder = encoders.build(run.encoder, 16).eval()
    encoder.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    image = torch.from_numpy(arrays.images[70:71].copy()).permute(0, 3, 1, 2)
    expected = encoder(augment.clean(image))[0].detach().numpy()
    assert features(torch.tensor([70]))[0].numpy() == pytest.approx(expected, abs=2e-3)


# --- what goes wrong ---


def test_an_encoder_that_the_disk_has_no_room_for_is_one_line(synthetic, make_run, tmp_path, monkeypatch):
    """The error is that of safetensors on a full disk, which is no OSError."""

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(pretrain, "save_file", full)
    with pytest.raises(UserError, match=r"encoder\.safetensors: cannot be written: .*No space left on device"):
        pretrain.pretrain(make_run(optim={"epochs": 2}), 1, synthetic, tmp_path, CPU)
    assert not (tmp_path / "encoder.safetensors").exists() and not list(tmp_path.glob(".encoder*"))


def test_a_missing_gpu_is_reported_before_anything_is_read(make_run, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match=r"no GPU here.*--profile slurm.*device: cpu"):
        pretrain.pretrain(make_run(), 1, tmp_path / "nowhere", tmp_path, Execution(device="gpu"))


def test_fp16_on_the_cpu_is_refused(synthetic, make_run, tmp_path):
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        pretrain.pretrain(make_run(), 1, synthetic, tmp_path, Execution(device="cpu", precision="fp16"))


def test_a_batch_larger_than_the_data_is_refused(synthetic, make_run, tmp_path):
    with pytest.raises(UserError, match="batch_size 65 exceeds the 64 training images"):
        pretrain.pretrain(make_run(optim={"batch_size": 65}), 1, synthetic, tmp_path, CPU)


def test_a_diverging_run_names_step_and_term_and_keeps_its_checkpoints(synthetic, make_run, tmp_path, monkeypatch):
    original = pretrain.Pretraining.training_step

    def poisoned(module, batch, batch_idx):
        if module.current_epoch == 1 and batch_idx == 1:
            with torch.no_grad():
                module.encoder.conv1.weight.fill_(math.nan)
        return original(module, batch, batch_idx)

    monkeypatch.setattr(pretrain.Pretraining, "training_step", poisoned)
    with pytest.raises(UserError, match="training stopped: loss is nan at step 3"):
        pretrain.pretrain(make_run(), 1, synthetic, tmp_path, CPU)
    assert not (tmp_path / "encoder.safetensors").exists()
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_the_history_names_the_first_non_finite_term_by_step():
    kept = History()
    kept.start_epoch(step=100)
    kept.add({"loss": torch.tensor(1.0), "H_M": torch.tensor(2.0)})
    kept.add({"loss": torch.tensor(1.0), "H_M": torch.tensor(math.inf)})
    with pytest.raises(UserError, match="H_M is inf at step 101"):
        kept.end_epoch(0, 0.1, 64)


def test_the_history_averages_an_epoch_and_estimates_the_time_left():
    kept = History()
    kept.start_epoch(step=0)
    for value in (1.0, 2.0, 6.0):
        kept.add({"loss": torch.tensor(value), "online_acc": torch.tensor(0.5)})
    row = kept.end_epoch(0, 0.1, 64)
    assert (row["loss"], row["lr"]) == (3.0, 0.1)
    assert "epoch 1/3  loss 3.0000  online accuracy 50.0 %" in kept.line(3) and "ETA 0:00:0" in kept.line(3)
