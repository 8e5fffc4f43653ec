"""Cached probes: trained side by side they equal textbook probes trained alone."""

import numpy as np
import pytest
import torch
from in_memory import task
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

from issl.probing import cached
from issl.probing.scores import of_one
from issl.probing.side_by_side import groups
from issl.spec.probe import Cached, ProbeGrid, setting
from issl.views.random import epoch_order, generator

SMALL = {"kind": "cached", "batch_size": 64, "epochs": 6, "holdout": 0.2}


@pytest.fixture(scope="module")
def blobs():
    """Features of seven overlapping classes, 210 to train on and 700 to test on, in one tensor; labels."""
    draws = np.random.default_rng(0)
    labels = np.tile(np.arange(7), 130)
    z = 3 * draws.normal(size=(7, 12))[labels] + draws.normal(size=(910, 12)) * 4
    return torch.tensor(z, dtype=torch.float32), labels


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
    Cached(**SMALL, lr=0.3, weight_decay=0.1),
    Cached(**SMALL, lr=0.02, weight_decay=0),
    Cached(**SMALL, optimizer="lars", lr=60, weight_decay=1e-2),
    Cached(**SMALL, optimizer="lars", lr=10, weight_decay=0),
    Cached(**SMALL, batch_norm=True, weight_decay=1e-2),
    Cached(**SMALL | {"epochs": 9}, lr=0.05),
    Cached(**SMALL | {"batch_size": 32}, lr=0.05),
)


def test_every_probe_of_a_grid_equals_a_textbook_probe_trained_alone(blobs):
    z, labels = blobs
    scores = cached.evaluate(ProbeGrid(probes=GRID), task(z, labels, 210, seed=3))
    kept, left = train_test_split(np.arange(210), test_size=0.2, stratify=labels[:210], random_state=3)
    assert [score.setting for score in scores] == [setting(probe) for probe in GRID]
    for score, probe in zip(scores, GRID):
        tested = plain_probe(probe, z, labels, np.arange(210), np.arange(210, 910))
        held_out = plain_probe(probe, z, labels, kept, left)
        assert score.test == pytest.approx(tested, abs=2 / 700), probe  # a tie may turn
        assert score.holdout == pytest.approx(held_out), probe
        assert (score.n_labels, score.n_test) == (210, 700)
    assert len({score.test["top-1"] for score in scores}) > 4, "settings must differ in effect, or this shows nothing"


def test_probes_of_every_rate_decay_and_optimiser_are_trained_together():
    assert sorted(len(group) for group in groups(GRID, cached.RECIPE.own)) == [1, 1, 1, 4]


def test_a_grid_reaches_the_accuracy_of_logistic_regression(blobs):
    z, labels = blobs
    probe = Cached(kind="cached", batch_size=64, epochs=60, lr=0.02)
    [score] = cached.evaluate(ProbeGrid(probes=(probe,)), task(z, labels, 210))
    reference = LogisticRegression(max_iter=1000).fit(z[:210], labels[:210]).score(z[210:], labels[210:])
    assert score.test["top-1"] == pytest.approx(reference, abs=0.03)
    assert reference > 0.6


def test_weights_start_from_torchs_truncated_normal():
    heads = cached.Heads(GRID[:2], 4096, 50, generator("cached probe", 0))
    assert torch.equal(heads.weight[0], heads.weight[1]) and not heads.bias.any()
    assert heads.weight.std().item() == pytest.approx(0.02, rel=0.01)
