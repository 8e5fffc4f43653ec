"""Fine-tuning: a plain loop over torch's own parts on the same crops, the first step in closed form, and saves."""

import copy

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from small_hub import small
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from issl import hub
from issl.data.arrays import read
from issl.errors import UserError
from issl.models.encoders import build as build_encoder
from issl.probing import encoders, fine_tuned, images
from issl.probing.scores import of_one
from issl.probing.task import Images, Task
from issl.spec.augment import Augment
from issl.spec.encoder import Timm
from issl.spec.encoding import Encoding
from issl.spec.probe import FineTuned, ProbeGrid
from issl.spec.value import short_hash
from issl.views import augment, decode
from issl.views.random import epoch_order, generator

CPU = torch.device("cpu")
PROBE = FineTuned(kind="fine_tuned", fraction=0.5, epochs=3, batch_size=8, lr=0.4, holdout=0.25)


@pytest.fixture(params=["files", "arrays"])
def given(request, models, encoding, listed, synthetic_arrays):
    """An encoding, the arrays, and how many of their rows are for training."""
    if request.param == "files":
        return encoding(), read(listed[0]), 36
    folder, spec = synthetic_arrays
    return Encoding(data=spec, resize=24, crop=20, batch_size=8), read(folder), 40


def evaluate(given, part, *probes, encoder="plain", seed=0):
    encoding, arrays, n_train = given
    rows = np.arange(len(arrays.labels))
    task = Task(
        *(seed, np.array(arrays.labels), rows[:n_train], rows[n_train:], arrays.n_classes, CPU, "32"),
        threads=0,
        images=Images(arrays, encoder, encoding, part),
    )
    return fine_tuned.evaluate(ProbeGrid(probes=probes or (PROBE,)), task)


def crops_of(given, rows, epoch, seed=0):
    """Random crops, one image after another: (n, 3, S, S) as encoders take them."""
    encoding, arrays, _ = given
    found = []
    for row in rows:
        stored = not images.are_files(arrays)
        photo = np.array(arrays.images[row]) if stored else images.of_files(arrays, encoding).pixels(row)
        draws = augment.draw(Augment(), 1, *photo.shape[:2], generator("fine-tuning", seed, epoch, row), (0.08, 1.0))
        crop = torch.from_numpy(decode.crop(photo, draws.crop[0].tolist(), encoding.crop))
        found.append(crop.flip(1) if draws.flip[0] else crop)
    return augment.clean(torch.stack(found).permute(0, 3, 1, 2))


def squares_of(given, rows):
    encoding, arrays, _ = given
    every = torch.cat(list(images.batches(arrays, encoding, range(len(arrays.labels)), 0)))
    return augment.clean(every[rows].permute(0, 3, 1, 2))


def textbook(given, encoder, probe, fit_on, score_on):
    """A plain loop: one network, torch's SGD and cosine, step by step."""
    labels = torch.from_numpy(np.array(given[1].labels))
    body, head = small(encoder), nn.Linear(small(encoder).dim, given[1].n_classes)
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    network = nn.Sequential(body, head).to(memory_format=torch.channels_last)  # rounded alike
    size = min(probe.batch_size, len(fit_on))
    sgd = torch.optim.SGD(network.parameters(), probe.lr * size / 256, 0.9, nesterov=True)
    batches = -(-len(fit_on) // size)
    schedule = CosineAnnealingLR(sgd, probe.epochs * batches)
    for epoch in range(probe.epochs):
        network.train()
        for places in epoch_order("fine-tuning order", 0, epoch, len(fit_on), size):
            rows = fit_on[places.numpy()]
            sgd.zero_grad()
            F.cross_entropy(network(crops_of(given, rows.tolist(), epoch)), labels[rows]).backward()
            sgd.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        logits = network(squares_of(given, score_on))
    return network, of_one(logits, labels[score_on])


def drawn(given, fraction=0.5):
    """The rows that scikit-learn draws for the subset."""
    labels = np.array(given[1].labels[: given[2]])
    _, subset = train_test_split(np.arange(given[2]), test_size=fraction, stratify=labels, random_state=0)
    return subset, labels


def network_of(part, name="all", probe=PROBE):
    return torch.load(part / short_hash(probe.canonical()) / f"{name}.pt")["network"]


@pytest.mark.parametrize("encoder", ["plain", "expanded"])
def test_a_run_equals_a_plain_loop(given, tmp_path, encoder):
    [score] = evaluate(given, tmp_path, encoder=encoder)
    (subset, _), (_, arrays, n_train) = drawn(given), given
    network, expected = textbook(given, encoder, PROBE, subset, np.arange(n_train, len(arrays.labels)))
    assert score.test == pytest.approx(expected) and score.holdout is None
    assert (score.n_labels, score.n_test, score.fraction) == (len(subset), len(arrays.labels) - n_train, 0.5)
    found, expected = network_of(tmp_path), network.state_dict()
    assert len(found) == len(expected)
    start = nn.Sequential(small(encoder), network[1]).state_dict()
    for (name, tensor), truth, before in zip(found.items(), expected.values(), start.values()):
        torch.testing.assert_close(tensor, truth, rtol=1e-3, atol=1e-4, msg=name)
        assert "linear" in name or not torch.equal(tensor, before), f"{name} was not trained"


def test_the_first_step_is_that_of_the_closed_form(given, tmp_path):
    """At a head of 0 all classes are equally likely, and no gradient reaches the encoder."""
    probe = FineTuned(kind="fine_tuned", fraction=0.5, epochs=1, batch_size=999, lr=0.4)
    evaluate(given, tmp_path, probe)
    subset, labels = drawn(given)
    order = epoch_order("fine-tuning order", 0, 0, len(subset), 999)[0]
    encoder, rows = small("plain").train(), subset[order.numpy()]
    with torch.no_grad():
        z = encoder(crops_of(given, rows.tolist(), 0))  # batch statistics
    classes = given[1].n_classes
    wrong = torch.eye(classes)[torch.from_numpy(labels[rows])] - 1 / classes  # (n, classes)
    step = 1.9 * 0.4 * len(rows) / 256  # Nesterov's first: the gradient and 0.9 times it
    found = network_of(tmp_path, probe=probe)
    torch.testing.assert_close(found["linear.weight"], step * wrong.T @ z / len(rows))
    torch.testing.assert_close(found["linear.bias"], step * wrong.mean(0))
    for name, tensor in encoder.state_dict().items():  # whose running statistics that one pass has moved
        torch.testing.assert_close(found[f"encoder.{name}"], tensor)


def test_competing_settings_are_each_as_alone_and_selected_on_held_out_labels(given, tmp_path):
    other = PROBE.model_copy(update={"lr": 0.1})
    wide = PROBE.model_copy(update={"fraction": 1.0})
    alone = [evaluate(given, tmp_path / "alone", probe)[0] for probe in (PROBE, other, wide)]
    both = evaluate(given, tmp_path / "both", PROBE, other, wide)
    assert [score.test for score in both] == [score.test for score in alone]
    subset, labels = drawn(given)
    kept, left = train_test_split(subset, test_size=0.25, stratify=labels[subset], random_state=0)
    for score, probe in zip(both, (PROBE, other)):
        assert score.holdout == pytest.approx(textbook(given, "plain", probe, kept, left)[1])
    assert both[2].holdout is None, "it has no competitor on these labels"
    assert ["lr 0.1" in score.setting for score in both] == [False, True, False]


def test_a_killed_run_resumes_to_the_same_result(given, tmp_path, killed_after_two):
    at_once = evaluate(given, tmp_path / "at_once")
    epochs = killed_after_two(lambda: evaluate(given, tmp_path / "killed"))
    assert evaluate(given, tmp_path / "killed") == at_once and epochs == [3]
    one, two = (network_of(tmp_path / name) for name in ("at_once", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(UserError, match=r"all\.pt: not a save of this evaluation \('about'\)"):
        evaluate(given, tmp_path / "killed", seed=1)


def test_another_seed_draws_other_labels_and_crops(given, tmp_path):
    evaluate(given, tmp_path / "0"), evaluate(given, tmp_path / "1", seed=1), evaluate(given, tmp_path / "again")
    first, other, again = (network_of(tmp_path / name)["linear.weight"] for name in ("0", "1", "again"))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_frozen_parameters_stay(given, tmp_path, monkeypatch):
    def frozen(name):
        encoder = small(name)
        encoder.conv1.requires_grad_(False)
        return encoder

    monkeypatch.setattr(hub, "network", frozen)
    evaluate(given, tmp_path)
    found = network_of(tmp_path)
    assert torch.equal(found["encoder.conv1.weight"], small("plain").conv1.weight)
    assert not torch.equal(found["encoder.layer1.0.conv1.weight"], small("plain").layer1[0].conv1.weight)


def test_the_trunk_is_trained_without_the_head_that_it_leaves_out(given, tmp_path):
    encoding, *rest = given
    evaluate((encoding.model_copy(update={"layer": "trunk"}), *rest), tmp_path, encoder="expanded")
    found, before = network_of(tmp_path), small("expanded").state_dict()
    assert found["linear.weight"].shape[1] == small("expanded").channels
    assert torch.equal(found["encoder.whole.resizer.conv1.weight"], before["resizer.conv1.weight"])
    assert not torch.equal(found["encoder.whole.conv1.weight"], before["conv1.weight"])


def test_an_encoder_of_timm_is_trained(given, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    encoding, arrays, n_train = given
    encoding = encoding.model_copy(update={"crop": 16, "resize": 16})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = build_encoder(Timm(arch="timm/test_vit", dim=64, patch=8), 16).eval()
    monkeypatch.setattr(hub, "network", lambda name: copy.deepcopy(vit))
    monkeypatch.setattr(encoders, "features", lambda *_: 64)
    evaluate((encoding, arrays, n_train), tmp_path)
    found = network_of(tmp_path)
    assert any(not torch.equal(found[f"encoder.{name}"], parameter) for name, parameter in vit.named_parameters())


def test_a_last_batch_of_one_image_is_left_out(given, tmp_path):
    """Its batch norms would have no variance: 36 and 40 labels less one batch leave one."""
    size = given[2] - 1
    probe = FineTuned(kind="fine_tuned", fraction=1.0, epochs=2, batch_size=size, lr=0.1)
    [score] = evaluate(given, tmp_path, probe)
    assert score.n_labels == size + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 1e30}, r"fine-tuning on \d+ labels diverged in epoch \d: lower lr"),
        ({"fraction": 0.05}, "probes: fraction 0.05: cannot be drawn from"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given, tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as raised:
        evaluate(given, tmp_path, PROBE.model_copy(update=settings))
    assert "\n" not in str(raised.value)
