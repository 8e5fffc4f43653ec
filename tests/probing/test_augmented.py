"""Augmented probes: a textbook loop over torch's own modules on the same crops, and what is saved."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from small_hub import small
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.models.encoders import build as build_encoder
from issl.probing import augmented, images
from issl.probing.job import Job, probe
from issl.probing.scores import COLUMNS, of_one
from issl.probing.task import Images, Task
from issl.spec.encoder import Timm
from issl.spec.probe import Augmented, ProbeGrid
from issl.spec.value import short_hash
from issl.views import augment, decode
from issl.views.random import epoch_order, generator

CPU = torch.device("cpu")
PROBE = Augmented(kind="augmented", epochs=3, batch_size=16, lr=0.1, milestones=(2,), holdout=0.25)


def evaluate(encoding, listed, part, encoder="plain", probes=(PROBE,), seed=0):
    arrays, rows = read(listed[0]), np.arange(48)
    given = Images(arrays, encoder, encoding, part)
    task = Task(seed, np.array(arrays.labels), rows[:36], rows[36:], 3, CPU, "32", threads=0, images=given)
    return augmented.evaluate(ProbeGrid(probes=probes), task)


@torch.no_grad()
def maps_of(encoder, squares):
    return small(encoder).maps(augment.clean(squares.permute(0, 3, 1, 2)))


def textbook(name, encoder, encoding, listed, fit_on, score_on):
    """One head alone: frozen maps, Nesterov SGD, decay of weights and biases but not of the norm, a step schedule."""
    arrays = read(listed[0])
    labels, files = torch.from_numpy(arrays.labels), images.of_files(arrays, encoding)
    whole = small(encoder)
    positions = 4 if name == augmented.POOLED else 1
    channels = whole.channels if name == augmented.POOLED else whole.dim
    head = nn.ModuleDict(
        {
            "norm": nn.BatchNorm2d(channels) if "batch norm" in name else nn.Identity(),
            "linear": nn.Linear(channels * positions, 3),
        }
    )
    head.load_state_dict(augmented.build(whole, 3, 0)[name].state_dict())
    no_decay = {"params": head["norm"].parameters(), "weight_decay": 0}
    sgd = torch.optim.SGD([{"params": head["linear"].parameters()}, no_decay], 0.1 / 16, 0.9, 0, 5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [2], 0.1)

    def logits_of(squares):
        maps = maps_of(encoder, squares)
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
            F.cross_entropy(logits_of(crops), labels[rows]).backward()
            sgd.step()
        schedule.step()
    with torch.no_grad():
        head.eval()
        squares = torch.cat(list(decode.central_squares(files, score_on, 0)))
        return of_one(logits_of(squares), labels[score_on])


@pytest.mark.parametrize("encoder", ["plain", "expanded"])
def test_every_head_equals_a_textbook_head_trained_alone(models, listed, encoding, tmp_path, encoder):
    scores = evaluate(encoding(), listed, tmp_path / "part", encoder)
    names = ["batch norm, linear", "linear"] + ([augmented.POOLED] if encoder == "plain" else [])
    assert [score.setting for score in scores] == names
    labels = read(listed[0]).labels[:36]
    kept, left = train_test_split(np.arange(36), test_size=0.25, stratify=labels, random_state=0)
    for score in scores:
        alone = score.setting, encoder, encoding(), listed
        assert score.test == pytest.approx(textbook(*alone, np.arange(36), list(range(36, 48))))
        assert score.holdout == pytest.approx(textbook(*alone, kept, left.tolist()))
        assert (score.n_labels, score.n_test) == (36, 12)
    assert max(score.test["top-1"] for score in scores) > 0.6, "three colours are easy to tell"


def test_several_probes_of_a_grid_are_each_as_alone_and_told_apart(models, listed, encoding, tmp_path):
    one, other = (PROBE.model_copy(update={"epochs": 1, "lr": lr}) for lr in (0.1, 0.2))
    alone = [evaluate(encoding(), listed, tmp_path / "alone", probes=[probe]) for probe in (one, other)]
    both = evaluate(encoding(), listed, tmp_path / "both", probes=(one, other))
    assert [score[1:] for score in both] == [score[1:] for scores in alone for score in scores]
    assert ["lr 0.2, " in score.setting for score in both] == [False] * 3 + [True] * 3


def test_the_learning_rate_follows_torchs_multi_step_schedule():
    probe = Augmented(kind="augmented")
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.04)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [8, 16, 24], gamma=0.1)
    for epoch in range(28):
        assert augmented.rate(probe, epoch) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step(), schedule.step()


def state_of(part):
    return part / short_hash(PROBE.canonical()) / "state.pt"


def test_a_killed_training_resumes_to_the_same_result(models, listed, encoding, tmp_path, killed_after_two):
    at_once = evaluate(encoding(), listed, tmp_path / "at_once")
    epochs = killed_after_two(lambda: evaluate(encoding(), listed, tmp_path / "killed"))
    assert evaluate(encoding(), listed, tmp_path / "killed") == at_once
    assert epochs == [3]
    one, other = (torch.load(state_of(tmp_path / name))["heads"] for name in ("at_once", "killed"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_of_another_training_is_refused(models, listed, encoding, tmp_path):
    evaluate(encoding(), listed, tmp_path / "part")
    with pytest.raises(UserError, match=r"state\.pt: not a save of this evaluation \('about'\); delete it"):
        evaluate(encoding(), listed, tmp_path / "part", seed=1)
    with pytest.raises(UserError, match=r"not a save of this evaluation \('about'\)"):
        evaluate(encoding(), listed, tmp_path / "part", "expanded")
    state_of(tmp_path / "part").write_bytes(b"torn")
    with pytest.raises(UserError, match="not a save of this evaluation"):
        evaluate(encoding(), listed, tmp_path / "part")


def test_scores_are_written_and_the_checkpoint_is_removed(models, listed, encoding, tmp_path):
    out, cpu = tmp_path / "s0/augmented.csv", Execution(device="cpu", precision="32")
    probe(ProbeGrid(probes=(PROBE,)), 0, Job("plain", encoding(), tmp_path / "none", listed[0], out, 1, cpu))
    assert sorted(path.name for path in out.parent.iterdir() if path.name[0] != ".") == [
        "augmented.csv",
        "augmented.json",
    ]
    header, *rows = out.read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert len(rows) == 3 * 3, "heads, metrics"


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


def test_an_encoder_of_timm_is_read_as_a_resnet_is():
    """Its representation, and the averages over the four corners of its maps."""
    pytest.importorskip("timm")
    encoder = build_encoder(Timm(arch="timm/test_vit", dim=64, patch=8), 32).eval()
    squares = torch.randint(256, (5, 32, 32, 3), dtype=torch.uint8)
    z, pooled = augmented._Look(encoder, CPU, "32")(squares)
    with torch.no_grad():
        clean = augment.clean(squares.permute(0, 3, 1, 2))
        maps = encoder.maps(clean)  # (5, 64, 4, 4)
        torch.testing.assert_close(z, encoder(clean))
    for i in (0, 1):
        for j in (0, 1):
            torch.testing.assert_close(pooled[:, :, i, j], maps[:, :, i : i + 3, j : j + 3].mean((2, 3)))
    heads = augmented.build(encoder, 3, 0)
    found = augmented.logits(heads.eval(), augmented.Representations(z, pooled))
    assert augmented.POOLED in found and {logits.shape for logits in found.values()} == {(5, 3)}
    expanded = build_encoder(Timm(arch="timm/test_convnext", dim=128, head="expand"), 32)
    assert augmented.build(expanded, 3, 0).keys() == heads.keys() - {augmented.POOLED}


def test_a_map_of_one_position_is_all_four_corners():
    maps = torch.randn(2, 3, 1, 1)
    assert torch.equal(augmented.four_corners(maps), maps.repeat(1, 1, 2, 2))
