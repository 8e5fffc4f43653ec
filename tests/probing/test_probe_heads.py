"""Probes trained side by side equal probes trained alone; subsets are scikit-learn's draws."""

import csv
import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from issl.data.arrays import Content, write
from issl.errors import UserError
from issl.jobs import fingerprint
from issl.jobs.execution import Execution
from issl.probing.heads import fit_and_score, hold_out, probe, stratified
from issl.spec.data import Synthetic
from issl.spec.probe import ProbeGrid, ProbeSpec, grid_id
from issl.views.random import epoch_order, generator

CPU = Execution(device="cpu")


@pytest.fixture(scope="module")
def blobs():
    """Features of four overlapping classes: (z, labels) for train and test."""
    draws = np.random.default_rng(0)
    centers = draws.normal(size=(4, 8))

    def split(n):
        labels = np.tile(np.arange(4), n // 4)
        z = centers[labels] + draws.normal(size=(n, 8)) * 1.2
        return torch.tensor(z, dtype=torch.float16), torch.tensor(labels)

    return split(200), split(2000)


def plain_probe(spec, seed, train, test, classes):
    """One probe as a textbook loop over torch's own modules: the reference for the batched code."""
    z, labels = train[0].float(), train[1]
    draws = generator("probe", seed)

    def linear(inputs, outputs, bias=False):
        layer = nn.Linear(inputs, outputs, bias=bias)
        nn.init.normal_(layer.weight, 0, 0.02, generator=draws)
        if bias:
            nn.init.zeros_(layer.bias)
        return layer

    if spec.kind == "linear":
        model = linear(z.shape[1], classes, bias=True)
    else:
        model = nn.Sequential(
            *(linear(z.shape[1], spec.hidden), nn.BatchNorm1d(spec.hidden), nn.ReLU()),
            *(linear(spec.hidden, spec.hidden), nn.BatchNorm1d(spec.hidden), nn.ReLU()),
            linear(spec.hidden, classes, bias=True),
        )
    sgd = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=spec.weight_decay)
    for epoch in range(spec.epochs):
        sgd.param_groups[0]["lr"] = spec.lr * spec.batch_size / 256 * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2
        for rows in epoch_order("probe order", seed, epoch, len(labels), spec.batch_size):
            sgd.zero_grad()
            F.cross_entropy(model(z[rows]), labels[rows]).backward()
            nn.utils.clip_grad_value_(model.parameters(), 2.0)
            sgd.step()
    with torch.no_grad():
        return (model.eval()(test[0].float()).argmax(1) == test[1]).float().mean().item()


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_trained_together_equal_heads_trained_alone(blobs, kind):
    train, test = blobs
    group = [
        ProbeSpec(kind=kind, weight_decay=decay, epochs=10, batch_size=64, hidden=16) for decay in (1e-1, 1e-2, 0.0)
    ]
    together = fit_and_score(group, 3, train, test, 4, "32")
    alone = [plain_probe(spec, 3, train, test, 4) for spec in group]
    assert together == pytest.approx(alone, abs=2 / len(test[1]))  # float addition order may turn a tie or two
    assert len(set(together)) > 1, "the weight decays must differ in effect, or the test shows nothing"


def test_a_linear_probe_reaches_the_accuracy_of_logistic_regression(blobs):
    (z, labels), (z_test, labels_test) = blobs
    ours = fit_and_score([ProbeSpec(weight_decay=1e-4)], 1, *blobs, 4, "32")[0]
    reference = LogisticRegression(max_iter=1000).fit(z.numpy(), labels).score(z_test.numpy(), labels_test)
    assert ours == pytest.approx(reference, abs=0.02)
    assert reference > 0.7


def test_bf16_probes_are_close_to_float32(blobs):
    group = [ProbeSpec(weight_decay=1e-4, epochs=30)]
    assert fit_and_score(group, 1, *blobs, 4, "bf16") == pytest.approx(
        fit_and_score(group, 1, *blobs, 4, "32"), abs=0.02
    )


@pytest.mark.parametrize(("precision", "expected"), [("fp16", True), ("bf16", False), ("32", False)])
def test_the_loss_is_scaled_where_gradients_are_in_float16(blobs, monkeypatch, precision, expected):
    scaled, scale = [], torch.amp.GradScaler.scale
    monkeypatch.setattr(
        *(torch.amp.GradScaler, "scale"),
        lambda self, loss: scaled.append(bool(scale(self, loss) != loss)) or scale(self, loss),
    )
    fit_and_score([ProbeSpec(epochs=1, batch_size=100)], 1, *blobs, 4, precision)
    assert scaled == [expected] * 2


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_training_on_row_numbers_equals_training_on_copies(blobs, kind):
    """129 rows are two batches of 64 and one of a single row, which an MLP's batch norm leaves out."""
    (z, labels), (z_test, labels_test) = blobs
    draws = np.random.default_rng(1)
    fit_on, score_on = torch.tensor(draws.permutation(200)[:129]), torch.tensor(draws.permutation(2000)[:1500])
    group = [ProbeSpec(kind=kind, weight_decay=decay, epochs=3, batch_size=64, hidden=16) for decay in (1e-1, 0.0)]
    copies = (z[fit_on], labels[fit_on]), (z_test[score_on], labels_test[score_on])
    assert fit_and_score(group, 3, *blobs, 4, "32", fit_on, score_on) == fit_and_score(group, 3, *copies, 4, "32")


def test_a_diverging_probe_stops_with_an_error(blobs):
    (z, labels), test = blobs
    with pytest.raises(UserError, match="linear probe on 200 labels diverged"):
        fit_and_score([ProbeSpec(lr=1e30, epochs=3)], 1, (z, labels), test, 4, "32")


# --- subsets ---


@pytest.mark.parametrize(("fraction", "each"), [(0.002, 1), (0.01, 5), (0.02, 10), (0.1, 50)])
def test_few_shot_subsets_of_tinyimagenet_are_balanced(fraction, each):
    labels = np.repeat(np.arange(200), 500)
    rows = stratified(labels, fraction, seed=1)
    assert (np.bincount(labels[rows]) == each).all()
    assert len(set(rows)) == 200 * each


def test_a_subset_equals_the_draw_of_the_released_code():
    labels = np.repeat(np.arange(10), 50)
    _, expected = train_test_split(np.arange(500), test_size=0.1, stratify=labels, random_state=1)
    assert (stratified(labels, 0.1, seed=1) == expected).all()


def test_the_subset_draw_is_pinned():
    assert stratified(np.repeat(np.arange(3), 4), 0.5, seed=1).tolist() == [7, 9, 8, 0, 5, 1]


def test_the_held_out_part_is_stratified_and_disjoint():
    labels = np.repeat(np.arange(10), 50)
    subset = stratified(labels, 0.4, seed=1)
    kept, left = hold_out(labels, subset, 0.1, seed=1)
    assert sorted([*kept, *left]) == sorted(subset)
    assert (np.bincount(labels[left]) == 2).all()


def test_a_subset_that_leaves_out_a_class_is_refused():
    with pytest.raises(UserError, match=r"fraction 0\.002: cannot be drawn from 100 labels"):
        stratified(np.repeat(np.arange(10), 10), 0.002, seed=1)


def test_one_label_a_class_leaves_nothing_to_hold_out():
    labels = np.repeat(np.arange(10), 10)
    with pytest.raises(UserError, match="holdout"):
        hold_out(labels, stratified(labels, 0.1, seed=1), 0.1, seed=1)


# --- the stage ---


def prepare(folder, labels, n_train):
    """A prepared data set of four classes with black images: probes read labels and splits only."""
    images = Content(
        labels=labels,
        splits={"train": n_train, "test": len(labels) - n_train},
        classes=list("abcd"),
        image_size=1,
        open=lambda: lambda start, stop: np.zeros((stop - start, 1, 1, 3), np.uint8),
        source={"name": "test"},
        parallel=False,
    )
    write(folder, images, Synthetic(kind="synthetic"))


@pytest.fixture
def prepared(tmp_path, blobs):
    """Features and a prepared data set on disk whose labels they fit."""
    (z, labels), (z_test, labels_test) = blobs
    prepare(tmp_path / "data", torch.cat([labels, labels_test]).numpy(), len(labels))
    np.save(tmp_path / "features.npy", torch.cat([z, z_test]).numpy())
    return tmp_path


def test_scores_have_a_row_for_each_probe_and_a_held_out_accuracy(prepared):
    grid = ProbeGrid(
        probes=(
            *(ProbeSpec(weight_decay=decay, epochs=5) for decay in (1e-4, 1e-1)),
            ProbeSpec(fraction=0.2, epochs=5),
        )
    )
    probe(grid, 1, prepared / "features.npy", prepared / "data", prepared / "scores.csv", CPU)
    with (prepared / "scores.csv").open() as file:
        rows = {(float(r["weight_decay"]), float(r["fraction"])): r for r in csv.DictReader(file)}
    assert set(rows) == {(1e-4, 1.0), (1e-1, 1.0), (1e-6, 0.2)}
    assert rows[1e-6, 0.2]["holdout_acc"] == "" and rows[1e-6, 0.2]["n_labels"] == "40"
    assert all(0 < float(rows[decay, 1.0]["holdout_acc"]) <= 1 for decay in (1e-4, 1e-1))
    assert all(0.25 < float(row["test_acc"]) <= 1 for row in rows.values())
    assert {row["n_test"] for row in rows.values()} == {"2000"}
    about = json.loads((prepared / "scores.json").read_text())
    assert (about["grid"], about["seed"]) == (grid_id(grid), 1)
    assert about["spec"] == grid.model_dump(mode="json") and about["code"] == fingerprint.current("probe")


def test_a_probe_does_not_depend_on_the_others_of_its_grid(prepared):
    one, other = ProbeSpec(epochs=5), ProbeSpec(fraction=0.5, epochs=7)
    scores = []
    for probes in ((one,), (other, one)):
        probe(ProbeGrid(probes=probes), 1, prepared / "features.npy", prepared / "data", prepared / "s.csv", CPU)
        with (prepared / "s.csv").open() as file:
            scores.append(next(r for r in csv.DictReader(file) if r["fraction"] == "1.0"))
    assert scores[0] == scores[1]


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest memory that an operation of torch made, rather than looked at or wrote into."""

    size = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        made = function(*arguments, **(named or {}))
        taken = {a.untyped_storage().data_ptr() for a in tree_leaves((arguments, named)) if isinstance(a, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in taken:
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return made


def test_the_features_are_never_copied(tmp_path):
    """Neither for all rows, nor for a subset, nor for the part held out; largest are batches and row numbers."""
    z = np.random.default_rng(0).normal(size=(40_000, 128)).astype(np.float16)  # 10 MB
    np.save(tmp_path / "features.npy", z)
    prepare(tmp_path / "data", np.tile(np.arange(4), 10_000), 30_000)
    grid = ProbeGrid(
        probes=tuple(ProbeSpec(weight_decay=decay, fraction=f, epochs=1) for f in (1.0, 0.8) for decay in (0.0, 1e-1))
    )
    stratified(np.arange(4).repeat(9), 0.5, 1)  # imports scikit-learn, whose modules are larger than the features
    tracemalloc.start()  # sees what NumPy allocates; torch allocates past it
    try:
        with LargestTensor() as largest:
            probe(grid, 1, tmp_path / "features.npy", tmp_path / "data", tmp_path / "scores.csv", CPU)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 512 * 128 * 4 <= largest.size < z.nbytes / 4, "a batch in float32 at least, or the spy saw nothing"
    assert peak < z.nbytes / 2


def test_features_of_another_data_set_are_refused(prepared):
    np.save(prepared / "features.npy", np.zeros((3, 8), np.float16))
    with pytest.raises(UserError, match="3 rows, but"):
        probe(
            ProbeGrid(probes=(ProbeSpec(),)),
            *(1, prepared / "features.npy", prepared / "data", prepared / "scores.csv", CPU),
        )
    assert not (prepared / "scores.csv").exists()


def test_the_spec_travels_as_json():
    grid = ProbeGrid(probes=(ProbeSpec(weight_decay=1e-4),))
    assert json.loads(grid.canonical()) == {"probes": [{"weight_decay": 0.0001}]}
