"""Nearest neighbours are those of scikit-learn, weighted as in the paper."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from issl.errors import UserError
from issl.probing import neighbours
from issl.probing.subsets import hold_out
from issl.probing.task import Task
from issl.spec.probe import KNN, ProbeGrid

CLASSES = 7


class Features:
    """Features in memory."""

    def __init__(self, z):
        self.z = z

    def place(self, rows):
        return rows

    def __call__(self, rows):
        return self.z[rows]


@pytest.fixture
def task():
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 400)
    centres = random.normal(size=(CLASSES, 8))
    z = torch.from_numpy(centres[labels] + random.normal(size=(400, 8))).float()
    rows = np.arange(400)
    device = torch.device("cpu")
    return Task(3, labels, rows[:300], rows[300:], CLASSES, device, "32", features=Features(z))


def reference(probe, task, bank, rows):
    """Class weights by scikit-learn, (rows, classes)."""
    z = task.features.z.numpy()
    cosine = probe.distance == "cosine"
    weight = "uniform"
    if probe.temperature is not None:

        def weight(distance):  # scikit-learn's cosine distance is 1 - cosine
            return np.exp((1 - distance) / probe.temperature)

    model = KNeighborsClassifier(probe.k, weights=weight, metric="cosine" if cosine else "euclidean", algorithm="brute")
    return model.fit(z[bank], task.labels[bank]).predict_proba(z[rows])


@pytest.mark.parametrize(
    "settings",
    [
        {"k": 20},
        {"k": 20, "temperature": 0.5},
        {"k": 1},
        {"k": 5, "temperature": None, "distance": "euclidean"},
        {"k": 5, "temperature": None},
        {"k": 250},
    ],
)
@pytest.mark.parametrize("chunks", [(512, 65_536), (7, 11), (300, 1)])
def test_accuracies_are_those_of_scikit_learn(task, monkeypatch, settings, chunks):
    for name, size in zip(("QUERIES", "BANK"), chunks):
        monkeypatch.setattr(neighbours, name, size)
    probe = KNN(kind="knn", **settings)
    (score,) = neighbours.evaluate(ProbeGrid(probes=(probe,)), task)
    kept, left = hold_out(task.labels[task.train], task.train, 0.1, task.seed)
    for found, bank, rows in ((score.test, task.train, task.test), (score.holdout, kept, left)):
        expected = (reference(probe, task, bank, rows).argmax(1) == task.labels[rows]).mean()
        assert found["top-1"] == pytest.approx(expected)
    assert (score.n_labels, score.n_test) == (300, 100)


def test_a_vote_is_weighted_as_in_the_paper():
    """One neighbour of cosine 0.9 outweighs two of 0.8 at temperature 0.07, and loses to them in a majority."""
    nearness, labels = torch.tensor([[0.9, 0.8, 0.8]]), torch.tensor([[0, 1, 1]])
    weighted, plain = (
        neighbours.votes(KNN(kind="knn", k=3, temperature=temperature), nearness, labels, 2)[0]
        for temperature in (0.07, None)
    )
    assert float(weighted[0] / weighted[1]) == pytest.approx(np.exp(0.1 / 0.07) / 2)
    assert plain.tolist() == [1, 2]


def test_a_small_temperature_does_not_overflow():
    probe = KNN(kind="knn", k=2, temperature=1e-4)
    weights = neighbours.votes(probe, torch.tensor([[1.0, 0.5]]), torch.tensor([[1, 0]]), 2)
    assert weights.tolist() == [[0.0, 1.0]]


def test_several_settings_are_named(task):
    probes = tuple(KNN(kind="knn", k=k, temperature=None) for k in (1, 5))
    found = neighbours.evaluate(ProbeGrid(probes=probes), task)
    assert [score.setting for score in found] == ["k 1, temperature None", "k 5, temperature None"]


def test_more_neighbours_than_images_are_refused(task):
    with pytest.raises(UserError, match="k 271 exceeds the 270 training images that are not held out"):
        neighbours.evaluate(ProbeGrid(probes=(KNN(kind="knn", k=271),)), task)


def test_a_temperature_of_a_euclidean_distance_is_refused():
    with pytest.raises(ValueError, match="set 'temperature: null'"):
        KNN(kind="knn", distance="euclidean")
