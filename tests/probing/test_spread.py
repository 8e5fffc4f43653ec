"""Effective rank and uniformity, against closed forms, numpy's singular values and a slow reference."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from issl.probing import spread


@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_the_rank_is_that_of_the_papers_equation(shape):
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)) ** 3
    singular = np.linalg.svd(z.double().numpy(), compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    assert spread.rank_me(z) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    assert spread.rank_me(64 * z) == pytest.approx(spread.rank_me(z), rel=1e-9)


def test_the_rank_counts_directions_of_equal_weight():
    directions = torch.linalg.qr(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)))[0]  # (40, 5)
    embedded = directions @ torch.eye(5, 9)
    assert spread.rank_me(embedded) == pytest.approx(5, rel=1e-4)
    assert spread.rank_me(torch.ones(8, 3)) == pytest.approx(1, rel=1e-4)
    assert spread.rank_me(torch.zeros(8, 3)) == 0


def test_uniformity_is_the_mean_over_pairs():
    z = torch.randn(17, 4, generator=torch.Generator().manual_seed(0)).double()
    u = (z / z.norm(dim=1, keepdim=True)).numpy()
    pairs = [math.exp(-2 * ((a - b) ** 2).sum()) for a, b in combinations(u, 2)]
    assert spread.uniformity(z) == pytest.approx(math.log(np.mean(pairs)), rel=1e-9)


def test_uniformity_of_known_arrangements():
    assert spread.uniformity(torch.tensor([[1.0, 0], [2, 0], [3, 0]])) == pytest.approx(0, abs=1e-9)
    assert spread.uniformity(torch.tensor([[1.0, 0], [-2, 0]])) == pytest.approx(-8)  # |u - v|^2 = 4
    assert spread.uniformity(torch.eye(6)) == pytest.approx(-4)  # |u - v|^2 = 2
    assert spread.uniformity(torch.ones(1, 3)) == 0


class Held:
    """Features in memory, and the rows that were asked for."""

    def __init__(self, z):
        self.z, self.asked = z, []

    place = staticmethod(lambda rows: rows)

    def __call__(self, rows):
        self.asked.append(rows.tolist())
        return self.z[rows]


def arrays(n_train, n_test):
    class Two:
        labels = np.zeros(n_train + n_test)
        split = staticmethod(lambda name: slice(0, n_train) if name == "train" else slice(n_train, n_train + n_test))

    return Two


def test_the_record_has_the_rank_of_training_and_the_uniformity_of_test_images(monkeypatch):
    monkeypatch.setattr(spread, "ROWS", 5)
    z = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    held = Held(z)
    found = spread.of(held, arrays(21, 9))
    assert held.asked == [[0, 5, 10, 15, 20], list(range(21, 30))]
    assert found == {"rank_me": spread.rank_me(z[0:21:5]), "uniformity": spread.uniformity(z[21:])}


def test_features_that_overflow_have_no_spread():
    z = torch.ones(6, 2)
    z[0, 0] = math.inf
    assert spread.of(Held(z), arrays(4, 2)) == {}
