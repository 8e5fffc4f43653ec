"""VICReg against its formula in numpy, and against embeddings whose terms are known."""

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.vicreg import VICReg
from issl.spec import objective as spec

CLOCK = Clock(0, 1, 0, 1)
B, DIM, OUT = 8, 6, 5
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def vicreg(**keys) -> VICReg:
    torch.manual_seed(0)
    return VICReg(spec.VICReg(name="vicreg", hidden=7, out=OUT, **keys), DIM, nn.Identity()).double()


def rows() -> torch.Tensor:
    return torch.randn(2 * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("weights"), [(25, 25, 1), (3, 0.5, 7)])
@pytest.mark.parametrize("spread", [0.3, 4.0])  # standard deviations below 1, and above it
def test_the_loss_is_the_formula_of_the_paper(weights, spread):
    objective, z = vicreg(**dict(zip(("invariance", "variance", "covariance"), weights))), rows()
    with torch.no_grad():
        objective.projector[-1].weight.mul_(spread * 2)
    loss, logs = objective(z, VIEWS, CLOCK)
    a, b = objective.projector(z).detach().numpy().reshape(2, B, OUT)
    terms = {"invariance": np.mean([(a[n, i] - b[n, i]) ** 2 for n in range(B) for i in range(OUT)])}
    terms |= {"variance": 0.0, "covariance": 0.0}
    for view in (a, b):
        deviation = np.sqrt(view.var(0, ddof=1) + 1e-4)
        terms["variance"] += sum(max(0, 1 - value) for value in deviation) / OUT / 2
        covariance = np.cov(view.T)
        terms["covariance"] += sum(covariance[i, j] ** 2 for i in range(OUT) for j in range(OUT) if i != j) / OUT
    assert {name: value.item() for name, value in logs.items()} == pytest.approx(terms, rel=1e-9, abs=1e-12)
    assert loss.item() == pytest.approx(sum(w * term for w, term in zip(weights, terms.values())), rel=1e-9)


def terms_of(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Of embeddings, without a projector."""
    objective = vicreg()
    objective.projector = nn.Identity()
    logs = objective(torch.from_numpy(np.concatenate([a, b])), VIEWS, CLOCK).logs
    return {name: value.item() for name, value in logs.items()}


UNCORRELATED = hadamard(B)[:, 1 : 1 + OUT].astype(float)  # columns with mean 0, of which no two are correlated


def test_collapsed_embeddings_have_the_largest_variance_term_and_no_other():
    """A standard deviation of 0 counts as the square root of 1e-4."""
    same = np.full((B, OUT), 2.0)
    expected = {"invariance": 0, "variance": 1 - 0.01, "covariance": 0}
    assert terms_of(same, same) == pytest.approx(expected, abs=1e-12)


def test_equal_views_that_vary_enough_in_uncorrelated_dimensions_have_no_loss():
    assert list(terms_of(UNCORRELATED, UNCORRELATED).values()) == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_shift_between_views_is_a_lack_of_invariance_alone():
    found = terms_of(UNCORRELATED, UNCORRELATED + 3)
    assert found == pytest.approx({"invariance": 9, "variance": 0, "covariance": 0}, abs=1e-12)


def test_gradients_equal_finite_differences():
    objective, z = vicreg(), rows().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, VIEWS, CLOCK).loss, z, atol=1e-4)


def test_default_heads_have_the_published_sizes():
    with torch.device("meta"):
        objective = VICReg(spec.VICReg(name="vicreg"), 2048, nn.Identity())
    weights = 2048 * 8192 + 2 * 8192 * 8192
    assert sum(p.numel() for p in objective.parameters()) == weights + 2 * 2 * 8192  # batch norms of the hidden layers
