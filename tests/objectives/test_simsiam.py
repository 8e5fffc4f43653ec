"""SimSiam: its loss by loops, its extremes in closed form, and the stop-gradient by finite differences."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from issl.objectives.base import Clock
from issl.objectives.simsiam import SimSiam
from issl.spec import objective as spec

B, DIM = 4, 6
START = Clock(0, 1, 0, 1)
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def simsiam(**keys) -> SimSiam:
    torch.manual_seed(0)
    small = {"hidden": 7, "out": 5, "bottleneck": 3} | keys
    return SimSiam(spec.SimSiam(name="simsiam", **small), DIM, nn.Identity()).double()


def rows() -> Tensor:
    return torch.randn(2 * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def heads(objective: SimSiam, z: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Projections and predictions."""
    with torch.no_grad():  # batch statistics: a second call gives the same
        u = objective.projector(z)
        return u.numpy(), objective.predictor(u).numpy()


def by_loops(p: np.ndarray, u: np.ndarray) -> float:
    total = 0.0
    for i in range(B):
        for a, b in ((p[i], u[B + i]), (p[B + i], u[i])):
            total -= sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)) / 2
    return total / B


@pytest.mark.parametrize("layers", [2, 3])
def test_the_loss_equals_loops_over_images(layers):
    objective, z = simsiam(layers=layers), rows()
    u, p = heads(objective, z)
    loss, logs = objective(z, VIEWS, START)
    assert loss.item() == pytest.approx(by_loops(p, u), rel=1e-10)
    assert logs == {}


@pytest.mark.parametrize(("sign", "expected"), [(1, -1), (-1, 1)])
def test_the_loss_is_minus_1_for_equal_directions_and_1_for_opposite_ones(sign, expected):
    objective, z = simsiam(), rows()[:B]
    objective.projector = objective.predictor = nn.Identity()
    assert objective(torch.cat([z, 2 * sign * z]), VIEWS, START).loss.item() == pytest.approx(expected, abs=1e-12)


def slopes(objective: SimSiam, z: Tensor, fixed: np.ndarray | None) -> np.ndarray:
    """Central differences of the loss, with the projections that are predicted at their values in `fixed`, if given."""

    def loss(x: Tensor) -> float:
        u, p = heads(objective, x)
        return by_loops(p, u if fixed is None else fixed)

    found, step = np.zeros(z.shape), 1e-5
    for place in np.ndindex(*z.shape):
        up, down = z.clone(), z.clone()
        up[place] += step
        down[place] -= step
        found[place] = (loss(up) - loss(down)) / (2 * step)
    return found


def test_the_gradient_treats_the_other_views_projection_as_a_constant():
    objective, z = simsiam(), rows()
    fixed, _ = heads(objective, z)
    given = z.clone().requires_grad_()
    objective(given, VIEWS, START).loss.backward()
    stopped, whole = slopes(objective, z, fixed), slopes(objective, z, None)
    np.testing.assert_allclose(given.grad.numpy(), stopped, atol=1e-8)
    assert np.abs(stopped - whole).max() > 1e-2  # what a gradient through both sides would be


def test_gradients_reach_both_heads():
    objective = simsiam()
    objective(rows(), VIEWS, START).loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in objective.parameters() if parameter.ndim > 1)


def test_the_heads_have_the_published_layers():
    """L: Linear, b with bias; B: batch norm, n without scale and shift; R: ReLU (Chen & He 2021, section 3)."""

    def described(part: nn.Module) -> str:
        if isinstance(part, nn.Linear):
            return f"L{part.in_features}-{part.out_features}{'b' if part.bias is not None else ''}"
        return "R" if isinstance(part, nn.ReLU) else "B" if part.affine else "Bn"

    with torch.device("meta"):
        published = SimSiam(spec.SimSiam(name="simsiam"), 2048, nn.Identity())
        cifar = SimSiam(spec.SimSiam(name="simsiam", layers=2), 512, nn.Identity())
    assert " ".join(map(described, published.projector)) == "L2048-2048 B R L2048-2048 B R L2048-2048 Bn"
    assert " ".join(map(described, published.predictor)) == "L2048-512 B R L512-2048b"
    assert " ".join(map(described, cifar.projector)) == "L512-2048 B R L2048-2048 Bn"
