"""DCL against loops over pairs, against SimCLR, and against values known in closed form."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.contrastive import SimCLR
from issl.objectives.dcl import DCL
from issl.spec import objective as spec

CLOCK = Clock(0, 1, 0, 1)
B, DIM = 5, 6
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def dcl(**keys) -> DCL:
    torch.manual_seed(0)
    return DCL(spec.DCL(name="dcl", hidden=7, out=4, **keys), DIM, nn.Identity()).double()


def rows() -> torch.Tensor:
    return torch.randn(2 * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


@pytest.mark.parametrize(
    "keys", [{}, {"temperature": 0.5}, {"weighted": True}, {"weighted": True, "sigma": 0.2, "temperature": 0.3}]
)
def test_dcl_equals_loops_over_pairs(keys):
    objective, z = dcl(**keys), rows()
    temperature, sigma = keys.get("temperature", 0.1), keys.get("sigma", 0.5)
    u = objective.projector(z).detach().numpy()
    similarity = [math.exp(cosine(u[i], u[(i + B) % (2 * B)]) / sigma) for i in range(2 * B)]
    total = 0.0
    for i in range(2 * B):
        negatives = [j for j in range(2 * B) if j % B != i % B]
        assert len(negatives) == 2 * B - 2
        repulsion = math.log(sum(math.exp(cosine(u[i], u[j]) / temperature) for j in negatives))
        weight = 2 - similarity[i] / (sum(similarity) / (2 * B)) if keys.get("weighted") else 1
        total += repulsion - weight * cosine(u[i], u[(i + B) % (2 * B)]) / temperature
    assert objective(z, VIEWS, CLOCK).loss.item() == pytest.approx(total / (2 * B), rel=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_its_log_loss_is_the_loss_of_simclr(weighted):
    """The same logits, so it means the same; with weights, too, which only say how much each pair is trained."""
    objective, z = dcl(weighted=weighted), rows()
    simclr = SimCLR(spec.SimCLR(name="simclr", hidden=7, out=4, temperature=0.1), DIM, nn.Identity()).double()
    simclr.load_state_dict(objective.state_dict())
    found, expected = objective(z, VIEWS, CLOCK), simclr(z, VIEWS, CLOCK)
    assert found.loss.item() != expected.loss.item() and found.logs.keys() == expected.logs.keys()
    for name, value in expected.logs.items():
        assert found.logs[name].item() == pytest.approx(value.item(), rel=1e-10), name


def test_aligned_orthogonal_views_have_the_closed_form_loss():
    z = torch.eye(DIM, dtype=torch.float64)[:B].repeat(2, 1)
    objective = dcl()
    objective.projector = nn.Identity()
    assert objective(z, VIEWS, CLOCK).loss.item() == pytest.approx(math.log(2 * B - 2) - 1 / 0.1, rel=1e-12)


def test_a_single_image_is_only_attracted():
    z = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    objective = dcl(temperature=0.5)
    objective.projector = nn.Identity()
    loss, logs = objective(z, VIEWS[:2], CLOCK)
    assert loss.item() == pytest.approx(-0.6 / 0.5, rel=1e-12)
    assert logs["log_loss"].item() == 0  # of one candidate


def test_an_easy_positive_keeps_its_gradient():
    """The coupling that DCL removes: as two views meet, SimCLR's gradient vanishes with its loss, and DCL's does not.

    The views of each image are an angle apart, in a plane of its own, so all other cosines are 0.
    """
    temperature, angle = 0.1, torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    first, second = torch.eye(2 * B, dtype=torch.float64).split(B)
    z = torch.cat([first, angle.cos() * first + angle.sin() * second])
    simclr = SimCLR(spec.SimCLR(name="simclr", temperature=temperature), DIM, nn.Identity())
    slope = {}
    for name, objective in (("dcl", dcl()), ("simclr", simclr)):
        objective.projector = nn.Identity()
        [slope[name]] = torch.autograd.grad(objective(z, VIEWS, CLOCK).loss, angle, retain_graph=True)
    attraction = math.exp(math.cos(0.5) / temperature)
    missed = (2 * B - 2) / (attraction + 2 * B - 2)  # the probability that SimCLR's softmax gives to other images
    assert slope["dcl"].item() == pytest.approx(math.sin(0.5) / temperature, rel=1e-9)
    assert slope["simclr"].item() == pytest.approx(missed * math.sin(0.5) / temperature, rel=1e-9)
    assert missed < 0.002


@pytest.mark.parametrize("keys", [{}, {"weighted": True}])
def test_gradients_equal_finite_differences(keys):
    objective, z = dcl(temperature=0.5, **keys), rows().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, VIEWS, CLOCK).loss, z, atol=1e-5)
