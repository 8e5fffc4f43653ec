"""The augmented protocol: a textbook loop over torch's own modules on the same crops, and what is saved."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_hub import small
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.probing import augmented, encoders, images
from issl.probing.heads import hold_out
from issl.probing.protocols import probe
from issl.probing.scores import of_one
from issl.spec.protocol import Augmented
from issl.views import augment, decode
from issl.views.random import epoch_order, generator

CPU = torch.device("cpu")
PROTOCOL = Augmented(kind="augmented", epochs=3, batch_size=16, lr=0.1, milestones=(2,), holdout=0.25)


def evaluate(encoding, listed, part, protocol=PROTOCOL, seed=0):
    return augmented.evaluate(protocol, seed, encoding, read(listed[0]), part, 0, CPU, "32")


@torch.no_grad()
def maps_of(encoding, squares):
    return small(encoding.weights).maps(augment.clean(squares.permute(0, 3, 1, 2)))


def textbook(name, encoding, listed, fit_on, score_on):
    """One head alone: frozen maps, Nesterov SGD, decay of weights and biases but not of the norm, a step schedule."""
    arrays = read(listed[0])
    labels, files = torch.from_numpy(arrays.labels), images.of_files(arrays, encoding)
    shape, whole = encoders.shape(encoding), small(encoding.weights)
    positions = 4 if name == augmented.POOLED else 1
    channels = shape.channels if name == augmented.POOLED else shape.dim
    head = nn.ModuleDict(
        {
            "norm": nn.BatchNorm2d(channels) if "batch norm" in name else nn.Identity(),
            "linear": nn.Linear(channels * positions, 3),
        }
    )
    head.load_state_dict(augmented.build(shape, 3, 0)[name].state_dict())
    no_decay = {"params": head["norm"].parameters(), "weight_decay": 0}
    sgd = torch.optim.SGD([{"params": head["linear"].parameters()}, no_decay], 0.1 / 16, 0.9, 0, 5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [2], 0.1)

    def said(squares):
        maps = maps_of(encoding, squares)
        if name == augmented.POOLED:
            x = torch.stack([maps[:, :, i : i + 1, j : j + 1] for i in (0, 1) for j in (0, 1)], 2)
            x = x.reshape(*maps.shape[:2], 2, 2)  # 48 px give maps of 2 x 2
        else:
            x = whole.resizer(maps).mean((2, 3), keepdim=True).detach()
        return head["linear"](head["norm"](x).flatten(1))

    for epoch in range(3):
        for rows in epoch_order("augmented order", 0, epoch, 36, 16):
            rows = rows[np.isin(rows.numpy(), fit_on)]
            wanted = [decode.CropRequest(rows.tolist(), "augmented", 0, epoch)]
            [crops] = decode.mirrored_crops(files, 0.08, wanted, 0)
            sgd.zero_grad()
            F.cross_entropy(said(crops), labels[rows]).backward()
            sgd.step()
        schedule.step()
    with torch.no_grad():
        head.eval()
        squares = torch.cat(list(decode.central_squares(files, score_on, 0)))
        return of_one(said(squares), labels[score_on])


@pytest.mark.parametrize("weights", ["plain", "expanded"])
def test_every_head_equals_a_textbook_head_trained_alone(models, listed, encoding, tmp_path, weights):
    rows = evaluate(encoding(weights), listed, tmp_path / "part")
    names = ["batch norm, linear", "linear"] + ([augmented.POOLED] if weights == "plain" else [])
    assert [row["setting"] for row in rows] == names
    kept, left = hold_out(read(listed[0]).labels[:36], np.arange(36), 0.25, 0)
    for row in rows:
        tested = textbook(row["setting"], encoding(weights), listed, np.arange(36), list(range(36, 48)))
        held_out = textbook(row["setting"], encoding(weights), listed, kept, left.tolist())
        assert {name: row[f"test_{name}"] for name in tested} == pytest.approx(tested)
        assert {name: row[f"holdout_{name}"] for name in tested} == pytest.approx(held_out)
    assert max(row["test_top1"] for row in rows) > 0.6, "three colours are easy to tell"


def test_the_learning_rate_follows_torchs_multi_step_schedule():
    protocol = Augmented(kind="augmented")
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.04)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [8, 16, 24], gamma=0.1)
    for epoch in range(28):
        assert augmented.rate(protocol, epoch) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step(), schedule.step()


def test_a_killed_training_resumes_to_the_same_result(models, listed, encoding, tmp_path, monkeypatch):
    at_once = evaluate(encoding(), listed, tmp_path / "at_once")
    save = augmented._State.save

    def dying(self, epoch, *arguments):
        save(self, epoch, *arguments)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(augmented._State, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(encoding(), listed, tmp_path / "killed")
    epochs = []
    monkeypatch.setattr(augmented._State, "save", lambda self, epoch, *a: epochs.append(epoch) or save(self, epoch, *a))
    assert evaluate(encoding(), listed, tmp_path / "killed") == at_once
    assert epochs == [3]
    one, other = (torch.load(tmp_path / name / "state.pt")["heads"] for name in ("at_once", "killed"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_of_another_training_is_refused(models, listed, encoding, tmp_path):
    evaluate(encoding(), listed, tmp_path / "part")
    with pytest.raises(UserError, match=r"state\.pt: not a save of this evaluation \('about'\); delete it"):
        evaluate(encoding(), listed, tmp_path / "part", seed=1)
    (tmp_path / "part/state.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match="not a save of this evaluation"):
        evaluate(encoding(), listed, tmp_path / "part")


def test_scores_are_written_and_the_checkpoint_is_removed(models, listed, encoding, tmp_path):
    out = tmp_path / "s0/augmented.csv"
    probe(PROTOCOL, 0, encoding(), None, listed[0], out, 1, Execution(device="cpu", precision="32"))
    assert sorted(path.name for path in out.parent.iterdir() if path.name[0] != ".") == [
        "augmented.csv",
        "augmented.json",
    ]
    assert out.read_text().startswith("setting,n_train,n_test,test_top1,")


# --- crops ---


def test_crops_equal_torchvisions_and_half_are_mirrored(listed, encoding):
    files = images.of_files(read(listed[0]), encoding())
    mirrored = 0
    for row in range(40):
        [[image]] = decode.mirrored_crops(files, 0.08, [decode.CropRequest([row], "p", 1, 2)], 0)
        photo = files.pixels(row)
        draws = augment.draw(augment.Augment(), 1, *photo.shape[:2], generator("p", 1, 2, row), (0.08, 1.0))
        top, left, height, width = draws.crop[0].tolist()
        area = height * width / (photo.shape[0] * photo.shape[1])
        assert 0.05 < area <= 1 and 0.7 < width / height < 1.4
        expected = TF.resized_crop(Image.fromarray(photo), top, left, height, width, [48, 48])
        if draws.flip[0]:
            expected, mirrored = TF.hflip(expected), mirrored + 1
        assert np.abs(image.numpy().astype(int) - np.asarray(expected).astype(int)).max() <= 2
    assert 10 < mirrored < 30


def test_crops_depend_on_the_epoch_and_not_on_the_batch_or_the_workers(listed, encoding):
    files = images.of_files(read(listed[0]), encoding())

    def crops(rows, epoch=0, workers=0):
        wanted = [decode.CropRequest(part, "p", 0, epoch) for part in rows]
        return torch.cat(list(decode.mirrored_crops(files, 0.08, wanted, workers)))

    one = crops([[0, 1, 2, 3]])
    assert torch.equal(one, crops([[0], [1, 2], [3]], workers=2))
    assert not torch.equal(one, crops([[0, 1, 2, 3]], epoch=1))
