"""W-MSE against numpy's Cholesky factors in loops, and against what whitening must do whatever its factor."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.wmse import WMSE, whitened
from issl.spec import objective as spec
from issl.views.random import generator

B, DIM, OUT = 12, 6, 3
STEP = 7
CLOCK = Clock(0, 1, STEP, 10)
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def wmse(**keys) -> WMSE:
    torch.manual_seed(0)
    small = {"size": B, "hidden": 7, "out": OUT, "epsilon": 0} | keys
    return WMSE(spec.WMSE(name="wmse", **small), DIM, nn.Identity()).double()


def rows(views: int = 2, dim: int = DIM) -> torch.Tensor:
    return torch.randn(views * B, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(embeddings: torch.Tensor, **keys) -> float:
    """Without a projector."""
    objective = wmse(**keys)
    objective.projector = nn.Identity()
    return objective(embeddings, VIEWS, CLOCK).loss.item()


def test_whitened_rows_have_mean_0_and_covariance_1():
    x = torch.randn(2, 40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x @ torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 10
    for part in whitened(x, 0).numpy():
        assert part.mean(0) == pytest.approx(np.zeros(5), abs=1e-12)
        assert np.cov(part.T) == pytest.approx(np.eye(5), abs=1e-12)


def test_whitening_multiplies_by_the_inverse_of_the_cholesky_factor_of_the_shrunk_covariance():
    x = rows(1).numpy()
    for epsilon in (0, 0.2):
        covariance = (1 - epsilon) * np.cov(x.T) + epsilon * np.eye(DIM)
        expected = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
        assert whitened(torch.from_numpy(x), epsilon).numpy() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize(("size", "iterations"), [(12, 1), (6, 1), (5, 3), (4, 2)])
def test_the_loss_equals_loops_over_divisions_parts_and_pairs(views, size, iterations):
    """A batch of 12 makes 1, 2, 2 and 3 parts, of at least the size."""
    objective, z = wmse(size=size, iterations=iterations), rows(views)
    u = objective.projector(z).detach().numpy().reshape(views, B, OUT)
    total = 0.0
    for iteration in range(iterations):
        order = torch.randperm(B, generator=generator("whitening", STEP, iteration)).numpy()
        unit = np.empty_like(u)
        for part in np.split(order, B // size):
            assert len(part) >= size
            for view in range(views):
                x = u[view, part] - u[view, part].mean(0)
                factor = np.linalg.cholesky(np.cov(u[view, part].T))
                for image, row in zip(part, x):
                    white = np.linalg.solve(factor, row)
                    unit[view, image] = white / math.sqrt(white @ white)
        pairs = list(combinations(range(views), 2))
        for a, b in pairs:
            total += sum(np.sum((unit[a, n] - unit[b, n]) ** 2) for n in range(B)) / B / len(pairs) / iterations
    assert objective(z, VIEWS, CLOCK).loss.item() == pytest.approx(total, rel=1e-9)


def test_equal_views_have_no_loss_and_opposite_ones_4():
    u = rows(1, OUT)
    assert loss_of(torch.cat([u, u])) == pytest.approx(0, abs=1e-12)
    assert loss_of(torch.cat([u, 5 - u])) == pytest.approx(4, rel=1e-9)


def test_the_scale_and_the_skew_of_an_embedding_do_not_matter():
    """A lower triangular map changes the covariance's factor by itself, and so not what is whitened."""
    u, lower = rows(2, OUT), torch.tensor([[2.0, 0, 0], [-1, 0.5, 0], [3, 1, 9]], dtype=torch.float64)
    assert loss_of(u @ lower.T + 4) == pytest.approx(loss_of(u), rel=1e-9)
    assert loss_of(u) == pytest.approx(2, abs=1)  # unrelated views are orthogonal on average


def test_the_parts_change_with_the_step_alone():
    objective, z = wmse(size=4), rows()
    losses = [objective(z, VIEWS, Clock(0, 1, step, 10)).loss.item() for step in (3, 3, 4)]
    assert losses[0] == losses[1] != pytest.approx(losses[2], abs=1e-6)


def test_fewer_images_than_dimensions_have_a_finite_loss_and_gradient():
    """As the last batch of an epoch may have: nothing but epsilon keeps their covariance from being singular."""
    for images in (1, 2, OUT):
        z = rows()[: 2 * images].float().requires_grad_()
        objective = wmse(epsilon=1e-6).float().eval()
        loss = objective(z, VIEWS[: 2 * images], CLOCK).loss
        loss.backward()
        assert 0 <= loss <= 4.001 and z.grad.isfinite().all()


def test_nearly_dependent_dimensions_are_whitened_in_float32_inputs():
    """Standard deviations of 1e-3 along one direction: their square is close to float32's resolution of the others."""
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 30 * x[:, 0] + 1e-3 * x[:, 3]
    white = whitened(x, 0)
    assert white.dtype == torch.float32
    assert np.cov(white.numpy().T) == pytest.approx(np.eye(4), abs=1e-2)


def test_gradients_equal_finite_differences():
    objective, z = wmse(size=6, iterations=2), rows().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, VIEWS, CLOCK).loss, z, atol=1e-4)


def test_views_of_different_numbers_of_images_are_refused():
    with pytest.raises(ValueError, match="30 rows cannot be two or more views of 12 images"):
        wmse()(rows(3)[:30], VIEWS, CLOCK)


def test_parts_that_cannot_be_whitened_are_refused():
    with pytest.raises(ValueError, match="size 64 must exceed out 64: fewer images have no full covariance"):
        spec.WMSE(name="wmse", size=64)
