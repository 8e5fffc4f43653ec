"""LeJEPA: the Epps-Pulley statistic against its closed form and SciPy's integral, and the loss against loops."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.lejepa import LeJEPA, directions, epps_pulley
from issl.spec import objective as spec

B, DIM, OUT = 6, 5, 4
STEP = 3
CLOCK = Clock(0, 1, STEP, 10)
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def lejepa(**keys) -> LeJEPA:
    torch.manual_seed(0)
    small = {"hidden": 7, "out": OUT, "slices": 9} | keys
    return LeJEPA(spec.LeJEPA(name="lejepa", **small), DIM, nn.Identity()).double()


def rows(views: int = 2) -> torch.Tensor:
    return torch.randn(views * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


SAMPLES = {
    "normal": torch.randn(50, generator=torch.Generator().manual_seed(0)),
    "shifted": torch.randn(20, generator=torch.Generator().manual_seed(1)) + 2,
    "uniform": torch.rand(31, generator=torch.Generator().manual_seed(2)),
    "constant": torch.full((7,), -0.5),
    "single": torch.tensor([1.5]),
}
samples = pytest.mark.parametrize("x", [x.double() for x in SAMPLES.values()], ids=SAMPLES)


def integrated(x: np.ndarray, t_max: float) -> float:
    """The definition: N times the weighted distance between the characteristic functions."""

    def distance(t: float) -> float:
        return abs(np.exp(1j * t * x).mean() - math.exp(-(t**2) / 2)) ** 2 * math.exp(-(t**2) / 2)

    return len(x) * quad(distance, -t_max, t_max, limit=200)[0]


def closed_form(x: np.ndarray) -> float:
    """The integral over all t, term by term: each is one over a normal density and a cosine."""
    pairs = sum(math.exp(-((a - b) ** 2) / 2) for a in x for b in x)
    singles = sum(math.exp(-(a**2) / 4) for a in x)
    return (
        math.sqrt(2 * math.pi) / len(x) * pairs - 2 * math.sqrt(math.pi) * singles + len(x) * math.sqrt(2 * math.pi / 3)
    )


@samples
def test_the_statistic_is_the_integral_of_its_definition(x):
    found = epps_pulley(x[:, None], t_max=3.0, points=2001).item()
    assert found == pytest.approx(integrated(x.numpy(), 3.0), rel=1e-5)


@samples
def test_the_statistic_tends_to_its_closed_form(x):
    assert epps_pulley(x[:, None], t_max=9.0, points=201).item() == pytest.approx(closed_form(x.numpy()), rel=1e-9)


@samples
@pytest.mark.parametrize(("t_max", "points"), [(3.0, 17), (5.0, 9)])  # the authors' code, and the paper
def test_few_points_are_enough(x, t_max, points):
    assert epps_pulley(x[:, None], t_max, points).item() == pytest.approx(closed_form(x.numpy()), rel=0.02)


def test_the_statistic_of_a_normal_sample_has_its_expected_value():
    """E T is the integral of (1 - phi^2) phi, whatever the number of rows."""
    x = torch.randn(30, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    found = epps_pulley(x, 9.0, 61)
    assert found.shape == (4000,)
    assert found.mean().item() == pytest.approx(expected, abs=5 * found.std().item() / math.sqrt(4000))


@pytest.mark.parametrize("views", [2, 5])
@pytest.mark.parametrize("keys", [{}, {"sigreg_weight": 0.6, "t_max": 5.0, "points": 9}])
def test_the_loss_equals_loops_over_views_slices_and_points(views, keys):
    objective, z = lejepa(**keys), rows(views)
    loss, logs = objective(z, VIEWS, CLOCK)
    weight, t_max, points = (keys.get(k, d) for k, d in (("sigreg_weight", 0.05), ("t_max", 3.0), ("points", 17)))
    u = objective.projector(z).detach().numpy().reshape(views, B, OUT)
    invariance = np.mean([(u[v, n, i] - (u[0, n, i] + u[1, n, i]) / 2) ** 2 for v, n, i in np.ndindex(u.shape)])
    slices, t = directions(OUT, 9, STEP).double().numpy(), np.linspace(-t_max, t_max, 2 * points - 1)
    statistics = []
    for view in u:
        for s in range(9):
            phi = [np.exp(1j * value * (view @ slices[:, s])).mean() for value in t]
            distance = [abs(a - math.exp(-(b**2) / 2)) ** 2 * math.exp(-(b**2) / 2) for a, b in zip(phi, t)]
            statistics.append(B * np.trapezoid(distance, t))
    sigreg = np.mean(statistics)
    assert {name: value.item() for name, value in logs.items()} == pytest.approx(
        {"invariance": invariance, "sigreg": sigreg}, rel=1e-9
    )
    assert loss.item() == pytest.approx((1 - weight) * invariance + weight * sigreg, rel=1e-9)


def test_the_regulariser_draws_a_sample_to_a_standard_normal():
    """Mean, covariance and fourth moments of what was uniform, narrow in one direction, wide in the other, and off."""
    torch.manual_seed(0)
    x = ((torch.rand(128, 2, dtype=torch.float64) - 0.5) * torch.tensor([0.6, 3.0]) + 0.5).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.1)
    for step in range(150):
        optimizer.zero_grad()
        epps_pulley(x @ directions(2, 8, step).double(), 3.0, 9).mean().backward()
        optimizer.step()
    found = x.detach().numpy()
    assert found.mean(0) == pytest.approx([0, 0], abs=0.1)
    assert np.cov(found.T) == pytest.approx(np.eye(2), abs=0.15)
    assert (found**4).mean(0) == pytest.approx([3, 3], abs=0.9)  # of a uniform sample: 1.8


def test_directions_are_unit_vectors_of_each_step():
    first, again, other = (directions(OUT, 9, step) for step in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(9))
    many = directions(3, 5000, 0)
    torch.testing.assert_close(many @ many.T / 5000, torch.eye(3) / 3, atol=0.02, rtol=0)  # no direction is preferred


def test_gradients_equal_finite_differences():
    objective, z = lejepa(), rows(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, VIEWS, CLOCK).loss, z, atol=1e-5)
