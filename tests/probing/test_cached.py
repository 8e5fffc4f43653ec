"""The cached protocol: probes side by side are textbook probes alone."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from issl.errors import UserError
from issl.probing import cached
from issl.probing.heads import hold_out
from issl.probing.scores import of_one
from issl.spec.protocol import Cached, CachedProbe
from issl.views.random import epoch_order, generator

CPU = torch.device("cpu")
SMALL = {"batch_size": 64, "epochs": 6}


@pytest.fixture(scope="module")
def blobs():
    """Features of seven overlapping classes, 210 to train on and 700 to test on, in one tensor; labels."""
    draws = np.random.default_rng(0)
    labels = np.tile(np.arange(7), 130)
    z = 3 * draws.normal(size=(7, 12))[labels] + draws.normal(size=(910, 12)) * 4
    return torch.tensor(z, dtype=torch.float32), labels


TRAIN, TEST = slice(0, 210), slice(210, 910)


def lars_step(parameter, probe):
    """The gradient as apex's LARC leaves it for the optimiser, without clipping."""
    p, g = parameter.detach(), parameter.grad
    p_norm, g_norm = p.norm(), g.norm()
    if p_norm != 0 and g_norm != 0:
        trust = 0.001 * p_norm / (g_norm + p_norm * probe.weight_decay + 1e-8)
        parameter.grad = trust * (g + probe.weight_decay * p)


def plain_probe(probe, z, labels, fit_on, score_on):
    """One probe as a textbook loop over torch's own modules: the reference for the batched code."""
    linear = nn.Linear(12, 7)
    nn.init.trunc_normal_(linear.weight, std=0.02, generator=generator("cached probe", 3))
    nn.init.zeros_(linear.bias)
    model = nn.Sequential(*([nn.BatchNorm1d(12, affine=False)] if probe.batch_norm else []), linear)
    decay = 0 if probe.optimizer == "lars" else probe.weight_decay
    sgd = torch.optim.SGD(model.parameters(), probe.lr * probe.batch_size / 256, momentum=0.9, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, probe.epochs)
    for epoch in range(probe.epochs):
        for rows in epoch_order("cached probe order", 3, epoch, len(fit_on), probe.batch_size):
            rows = torch.from_numpy(fit_on)[rows]
            sgd.zero_grad()
            F.cross_entropy(model(z[rows]), torch.from_numpy(labels)[rows]).backward()
            if probe.optimizer == "lars":
                for parameter in linear.parameters():
                    lars_step(parameter, probe)
            sgd.step()
        schedule.step()
    with torch.no_grad():
        return of_one(model.eval()(z[score_on]), torch.from_numpy(labels[score_on]))


GRID = (
    CachedProbe(**SMALL, lr=0.3, weight_decay=0.1),
    CachedProbe(**SMALL, lr=0.02, weight_decay=0),
    CachedProbe(**SMALL, optimizer="lars", lr=60, weight_decay=1e-2),
    CachedProbe(**SMALL, optimizer="lars", lr=10, weight_decay=0),
    CachedProbe(**SMALL, batch_norm=True, weight_decay=1e-2),
    CachedProbe(**SMALL | {"epochs": 9}, lr=0.05),
    CachedProbe(**SMALL | {"batch_size": 32}, lr=0.05),
)


def grid(*probes):
    return Cached(kind="cached", probes=probes, holdout=0.2)


def test_every_probe_of_a_grid_equals_a_textbook_probe_trained_alone(blobs):
    z, labels = blobs
    rows = cached.evaluate(grid(*GRID), 3, z.__getitem__, labels, TRAIN, TEST, CPU, "32")
    kept, left = hold_out(labels[TRAIN], np.arange(210), 0.2, 3)
    assert [row["setting"] for row in rows] == [probe.setting for probe in GRID]
    for row, probe in zip(rows, GRID):
        tested = plain_probe(probe, z, labels, np.arange(210), np.arange(210, 910))
        held_out = plain_probe(probe, z, labels, kept, left)
        for name in tested:
            assert row[f"test_{name}"] == pytest.approx(tested[name], abs=2 / 700), probe  # a tie may turn
            assert row[f"holdout_{name}"] == pytest.approx(held_out[name]), probe
        assert (row["n_train"], row["n_test"]) == (210, 700)
    assert len({row["test_top1"] for row in rows}) > 4, "settings must differ in effect, or this shows nothing"


@pytest.mark.parametrize(("batch_norm", "last"), [(True, []), (False, [1])])
def test_a_last_batch_of_one_image_has_no_variance_and_is_left_out(blobs, batch_norm, last):
    """Batches of 11 leave one of 210 rows over: batch norm would refuse it. Without batch norm it counts."""
    (z, labels), sizes = blobs, []
    probe = CachedProbe(batch_size=11, epochs=1, batch_norm=batch_norm)
    cached.fit_and_score(
        *([probe], 3, lambda rows: sizes.append(len(rows)) or z[rows], labels),
        *(np.arange(210), np.arange(210, 910), CPU, "32"),
    )
    assert sizes == [1, *[11] * 19, *last, 700]  # a look at the width, the epoch, the test images


def test_only_probes_with_the_same_batches_are_trained_together():
    groups = cached.side_by_side(GRID)
    assert sorted(len(group) for group in groups) == [1, 1, 1, 4]


def test_a_grid_reaches_the_accuracy_of_logistic_regression(blobs):
    z, labels = blobs
    probe = CachedProbe(batch_size=64, epochs=60, lr=0.02)
    [row] = cached.evaluate(grid(probe), 0, z.__getitem__, labels, TRAIN, TEST, CPU, "32")
    reference = LogisticRegression(max_iter=1000).fit(z[TRAIN], labels[TRAIN]).score(z[TEST], labels[TEST])
    assert row["test_top1"] == pytest.approx(reference, abs=0.03)
    assert reference > 0.6


def test_weights_start_from_torchs_truncated_normal():
    heads = cached.Heads(GRID[:2], 4096, 50, generator("cached probe", 0))
    assert torch.equal(heads.weight[0], heads.weight[1]) and not heads.bias.any()
    assert heads.weight.std().item() == pytest.approx(0.02, rel=0.01)


def test_a_diverging_probe_stops_with_an_error(blobs):
    z, labels = blobs
    probe = CachedProbe(**SMALL, lr=1e30)
    with pytest.raises(UserError, match=r"diverged in epoch \d: lower the rate of one of: sgd, lr 1e\+30"):
        cached.evaluate(grid(probe), 0, z.__getitem__, labels, TRAIN, TEST, CPU, "32")
