"""The two references that frame a table: an untrained encoder, and one trained with labels."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import log_loss

from issl import objectives
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.models import encoders
from issl.objectives.base import Clock
from issl.spec import objective as spec
from issl.spec.run import run_id
from issl.training import pretrain

CPU = Execution(device="cpu", precision="32", progress=False)
START = Clock(epoch=0, epochs=4, step=0, steps_per_epoch=10)


def weights(folder):
    return load_file(folder / "encoder.safetensors")


def test_an_untrained_encoder_has_the_initial_weights_of_every_method(synthetic, make_run, tmp_path):
    """Those of a method are what its encoder has before the first step: here, after a step of rate 0."""
    untrained = make_run("untrained")
    pretrain.pretrain(untrained, 3, synthetic, tmp_path / "untrained", CPU)
    torch.manual_seed(3)
    expected = encoders.build(untrained.encoder, untrained.data.image_size).state_dict()
    found = weights(tmp_path / "untrained")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    still = {"epochs": 1, "lr": 1e-30, "weight_decay": 0, "warmup_epochs": 0}
    pretrain.pretrain(make_run("dissl", optim=still), 3, synthetic, tmp_path / "dissl", CPU)
    for name, value in weights(tmp_path / "dissl").items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-20)


def test_an_untrained_run_has_no_epochs(synthetic, make_run, tmp_path):
    run = make_run("untrained")
    assert run.epochs == 0 and "-e0-" in run_id(run)
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    about = json.loads((tmp_path / "run.json").read_text())
    assert (about["loss"], about["seconds"], about["images_per_second"]) == (None, 0, None)
    assert (tmp_path / "history.csv").read_text().split() == ["epoch,lr"]


def test_the_supervised_loss_is_the_cross_entropy_of_both_views():
    torch.manual_seed(0)
    objective = objectives.build(spec.Supervised(name="supervised", classes=5), 7, torch.nn.Identity()).double()
    z, labels = torch.randn(12, 7, dtype=torch.float64, requires_grad=True), torch.tensor([0, 4, 2, 2, 1, 3])
    found = objective(z, torch.zeros(12, 3, 2, 2), START, labels=labels)
    layer = objective.classifier[-1]
    logits = (z @ layer.weight.T + layer.bias).detach().numpy()
    p = torch.from_numpy(logits).softmax(1).numpy()
    expected = [log_loss(labels.numpy(), part, labels=range(5)) for part in (p[:6], p[6:])]
    assert found.loss.item() == pytest.approx(sum(expected) / 2, rel=1e-12)
    found.loss.backward()
    assert z.grad.abs().sum() > 0


def test_only_supervised_training_sees_the_labels(synthetic, make_run, tmp_path):
    """On images with other labels, it gives another encoder, and a method gives the same."""
    shutil.copytree(synthetic, tmp_path / "relabelled")
    labels = np.load(synthetic / "labels.npy")
    labels = (labels + np.arange(len(labels))) % 4
    np.save(tmp_path / "relabelled/labels.npy", labels)
    meta = json.loads((synthetic / "meta.json").read_text())
    meta["sha256"]["labels"] = hashlib.sha256(labels.tobytes()).hexdigest()
    (tmp_path / "relabelled/meta.json").write_text(json.dumps(meta))
    same = {}
    for name, settings in (("supervised", {"classes": 4}), ("cissl", {})):
        run = make_run(name, objective=settings)
        for data in (synthetic, tmp_path / "relabelled"):
            pretrain.pretrain(run, 1, data, tmp_path / name / data.name, CPU)
        first, second = (weights(tmp_path / name / data) for data in (synthetic.name, "relabelled"))
        same[name] = all(torch.equal(first[key], second[key]) for key in first)
    assert same == {"supervised": False, "cissl": True}


def test_supervised_training_fits_the_labels(synthetic, make_run, tmp_path):
    run = make_run("supervised", objective={"classes": 4}, optim={"epochs": 40, "lr": 0.05})
    pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
    assert json.loads((tmp_path / "run.json").read_text())["loss"] < 0.9  # ln 4 = 1.39 by guessing


def test_a_wrong_number_of_classes_is_refused_at_planning_or_before_the_first_step(make_run, synthetic, tmp_path):
    with pytest.raises(ValueError, match=r"objective.classes 9: the data set has 4 classes"):
        make_run("supervised", objective={"classes": 9})
    right = make_run("supervised", objective={"classes": 4})
    run = right.model_copy(update={"objective": spec.Supervised(name="supervised", classes=9)})  # as for a folder
    with pytest.raises(UserError, match=r"objective.classes 9: .* has 4 classes"):
        pretrain.pretrain(run, 1, synthetic, tmp_path, CPU)
