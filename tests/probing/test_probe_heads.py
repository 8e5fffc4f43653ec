"""Linear and MLP probes trained side by side equal textbook probes trained alone."""

import math

import numpy as np
import pytest
import torch
from in_memory import task
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

from issl.probing import heads
from issl.probing.scores import of_one
from issl.probing.side_by_side import fit_and_score
from issl.spec.probe import MLP, Linear, ProbeGrid
from issl.views.random import epoch_order, generator


def plain_probe(probe, seed, train, test, classes):
    """One probe as a textbook loop over torch's own modules: the reference for the batched code."""
    z, labels = train[0].float(), train[1]
    draws = generator("probe", seed)

    def linear(inputs, outputs, bias=False):
        layer = nn.Linear(inputs, outputs, bias=bias)
        nn.init.normal_(layer.weight, 0, 0.02, generator=draws)
        if bias:
            nn.init.zeros_(layer.bias)
        return layer

    if probe.kind == "linear":
        model = linear(z.shape[1], classes, bias=True)
    else:
        model = nn.Sequential(
            *(linear(z.shape[1], probe.hidden), nn.BatchNorm1d(probe.hidden), nn.ReLU()),
            *(linear(probe.hidden, probe.hidden), nn.BatchNorm1d(probe.hidden), nn.ReLU()),
            linear(probe.hidden, classes, bias=True),
        )
    sgd = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=probe.weight_decay)
    for epoch in range(probe.epochs):
        cosine = (1 + math.cos(math.pi * epoch / probe.epochs)) / 2
        sgd.param_groups[0]["lr"] = probe.lr * probe.batch_size / 256 * cosine
        for rows in epoch_order("probe order", seed, epoch, len(labels), probe.batch_size):
            sgd.zero_grad()
            F.cross_entropy(model(z[rows]), labels[rows]).backward()
            nn.utils.clip_grad_value_(model.parameters(), 2.0)
            sgd.step()
    with torch.no_grad():
        return of_one(model.eval()(test[0].float()), test[1])


@pytest.mark.parametrize(
    "like",
    [Linear(kind="linear", epochs=10, batch_size=64), MLP(kind="mlp", epochs=10, batch_size=64, hidden=16)],
    ids=lambda probe: probe.kind,
)
def test_heads_trained_together_equal_heads_trained_alone(blobs, like):
    (z, labels), targets = blobs, torch.from_numpy(blobs[1])
    group = [like.model_copy(update={"weight_decay": decay}) for decay in (1e-1, 1e-2, 0.0)]
    scores = heads.evaluate(ProbeGrid(probes=group), task(*blobs, 200, seed=3))
    assert [score.weight_decay for score in scores] == [0.1, 0.01, 0.0]
    kept, left = train_test_split(np.arange(200), test_size=0.1, stratify=labels[:200], random_state=3)
    for probe, score in zip(group, scores):
        tested = plain_probe(probe, 3, (z[:200], targets[:200]), (z[200:], targets[200:]), 4)
        assert score.test == pytest.approx(tested, abs=2 / 2000)  # float addition order may turn a tie or two
        held_out = plain_probe(probe, 3, (z[kept], targets[kept]), (z[left], targets[left]), 4)
        assert score.holdout == pytest.approx(held_out)
        assert (score.n_labels, score.n_test, score.fraction) == (200, 2000, 1.0)
    assert len({score.test["top-1"] for score in scores}) > 1, "weight decays must differ in effect"


def test_a_probe_on_few_labels_equals_a_textbook_probe_on_them(blobs):
    (z, labels), targets = blobs, torch.from_numpy(blobs[1])
    probe = Linear(kind="linear", fraction=0.2, epochs=10, batch_size=16)
    [score] = heads.evaluate(ProbeGrid(probes=(probe,)), task(*blobs, 200, seed=3))
    _, few = train_test_split(np.arange(200), test_size=0.2, stratify=labels[:200], random_state=3)
    expected = plain_probe(probe, 3, (z[few], targets[few]), (z[200:], targets[200:]), 4)
    assert score.test == pytest.approx(expected, abs=2 / 2000)
    assert (score.n_labels, score.fraction) == (40, 0.2)


def test_a_linear_probe_reaches_the_accuracy_of_logistic_regression(blobs):
    z, labels = blobs
    probe, given = Linear(kind="linear", weight_decay=1e-4), task(*blobs, 200, seed=1)
    [scores] = fit_and_score([probe], heads.RECIPE, given, given.train, given.test)
    reference = LogisticRegression(max_iter=1000).fit(z[:200].numpy(), labels[:200])
    reference = reference.score(z[200:].numpy(), labels[200:])
    assert scores["top-1"] == pytest.approx(reference, abs=0.02)
    assert reference > 0.7


def test_bf16_probes_are_close_to_float32(blobs):
    seen = []

    class Watched(heads.Heads):
        def forward(self, z):
            logits = super().forward(z)
            seen.append(logits.dtype)
            return logits

    probe, recipe = Linear(kind="linear", weight_decay=1e-4, epochs=30), heads.RECIPE._replace(heads=Watched)
    exact, mixed = task(*blobs, 200, seed=1), task(*blobs, 200, seed=1, precision="bf16")
    [expected] = fit_and_score([probe], recipe, exact, exact.train, exact.test)
    assert set(seen) == {torch.float32}
    seen.clear()
    assert fit_and_score([probe], recipe, mixed, mixed.train, mixed.test) == [pytest.approx(expected, abs=0.02)]
    assert set(seen) == {torch.bfloat16}
