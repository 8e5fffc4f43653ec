"""Barlow Twins against the authors' batch norm and product, and against matrices whose correlations are known."""

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from issl.objectives.barlow_twins import BarlowTwins
from issl.objectives.base import Clock
from issl.spec import objective as spec

CLOCK = Clock(0, 1, 0, 1)
B, DIM, OUT = 8, 6, 5
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def barlow(**keys) -> BarlowTwins:
    torch.manual_seed(0)
    settings = spec.BarlowTwins(name="barlow_twins", hidden=7, out=OUT, **keys)
    return BarlowTwins(settings, DIM, nn.Identity()).double()


def rows() -> torch.Tensor:
    return torch.randn(2 * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(a: np.ndarray, b: np.ndarray, **keys) -> tuple[float, dict[str, float]]:
    """Of embeddings, without a projector."""
    objective = barlow(**keys)
    objective.projector = nn.Identity()
    loss, logs = objective(torch.from_numpy(np.concatenate([a, b])), VIEWS, CLOCK)
    return loss.item(), {name: value.item() for name, value in logs.items()}


@pytest.mark.parametrize("keys", [{}, {"redundancy": 0.3, "scale": 0.1}])
def test_the_loss_equals_the_authors_batch_norm_and_product(keys):
    objective, z = barlow(**keys), rows()
    loss = objective(z, VIEWS, CLOCK).loss
    with torch.no_grad():
        norm = nn.BatchNorm1d(OUT, affine=False).double()
        a, b = (norm(view).numpy() for view in objective.projector(z).chunk(2))
    expected = 0.0
    for i in range(OUT):
        for j in range(OUT):
            correlation = sum(a[n, i] * b[n, j] for n in range(B)) / B
            expected += (1 - correlation) ** 2 if i == j else keys.get("redundancy", 0.0051) * correlation**2
    assert loss.item() == pytest.approx(keys.get("scale", 1) * expected, rel=1e-10)


# Columns with mean 0 and variance 1, of which no two are correlated.
UNCORRELATED = hadamard(B)[:, 1:].astype(float)


def test_equal_views_without_redundancy_have_no_loss():
    a = 3 + 2 * UNCORRELATED[:, :OUT]
    assert loss_of(a, a - 7)[0] == pytest.approx(0, abs=1e-9)


def test_unrelated_views_have_a_loss_of_1_for_each_dimension():
    loss, logs = loss_of(UNCORRELATED[:, :3], UNCORRELATED[:, 3:6])
    assert loss == pytest.approx(3, rel=1e-9) and logs["invariance"] == pytest.approx(3, rel=1e-9)


def test_repeated_dimensions_are_redundant():
    """Three dimensions are copies: each of the 3 x 2 entries off the diagonal is 1, or -1 for the inverted one."""
    a = np.stack([UNCORRELATED[:, 0], UNCORRELATED[:, 0], -UNCORRELATED[:, 0]], 1)
    loss, logs = loss_of(a, a, redundancy=0.25)
    assert logs == pytest.approx({"invariance": 0, "redundancy": 6}, abs=1e-3)
    assert loss == pytest.approx(0.25 * 6, abs=1e-3)


def test_the_correlations_of_random_views_are_those_of_numpy():
    a, b = np.random.default_rng(0).normal(size=(2, B, OUT))
    correlations = np.corrcoef(a.T, b.T)[:OUT, OUT:]
    _, logs = loss_of(a, b)
    assert logs["invariance"] == pytest.approx(((1 - correlations.diagonal()) ** 2).sum(), rel=1e-3)
    off = correlations[~np.eye(OUT, dtype=bool)]
    assert logs["redundancy"] == pytest.approx((off**2).sum(), rel=1e-3)


def test_gradients_equal_finite_differences():
    objective, z = barlow(redundancy=0.5), rows().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, VIEWS, CLOCK).loss, z, atol=1e-5)


def test_default_heads_have_the_published_sizes():
    with torch.device("meta"):
        objective = BarlowTwins(spec.BarlowTwins(name="barlow_twins"), 2048, nn.Identity())
    weights = 2048 * 8192 + 2 * 8192 * 8192
    assert sum(p.numel() for p in objective.parameters()) == weights + 2 * 2 * 8192  # batch norms of the hidden layers
