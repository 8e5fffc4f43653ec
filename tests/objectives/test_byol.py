"""BYOL: its loss by loops, its extremes in closed form, and a target network that no gradient reaches."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from issl.objectives.base import Clock
from issl.objectives.byol import BYOL
from issl.spec import objective as spec

B, DIM = 5, 6
START = Clock(0, 4, 0, 10)


def encoder() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, DIM), nn.BatchNorm1d(DIM), nn.ReLU()).double()


def byol(online: nn.Module | None = None, **keys) -> BYOL:
    torch.manual_seed(0)
    small = {"hidden": 7, "out": 4} | keys
    return BYOL(spec.BYOL(name="byol", **small), DIM, online or encoder()).double()


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(x: np.ndarray, part: nn.Module) -> np.ndarray:
    if isinstance(part, nn.Linear):
        x = x @ part.weight.detach().numpy().T
        return x if part.bias is None else x + part.bias.detach().numpy()
    if isinstance(part, nn.BatchNorm1d):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + part.eps)  # scale 1 and shift 0, as at the start
    return np.maximum(x, 0) if isinstance(part, nn.ReLU) else x.reshape(len(x), -1)


def through(x: Tensor, *parts: nn.Module) -> np.ndarray:
    """What the layers give in train mode at their initial scales, in numpy."""
    result = x.numpy()
    for part in parts:
        result = layer(result, part)
    return result


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared distance of two vectors after l2-normalisation."""
    a, b = (v / math.sqrt(sum(value**2 for value in v)) for v in (a, b))
    return sum((x - y) ** 2 for x, y in zip(a, b))


def test_the_loss_equals_loops_over_images():
    objective, z, views = byol(), draws(2 * B, DIM), draws(2 * B, 3, 2, 2, seed=2)
    for parameter in objective.teacher.parameters():  # the target network is another network than the online one
        if parameter.ndim > 1:
            parameter.data.add_(0.3 * draws(*parameter.shape, seed=3))
    loss, logs = objective(z, views, START)
    q = through(z, *objective.projector, *objective.predictor)
    target_encoder, target_projector = objective.teacher
    t = through(views, *target_encoder, *target_projector)
    expected = sum(distance(q[i], t[B + i]) + distance(q[B + i], t[i]) for i in range(B)) / B
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert logs == {}


@pytest.mark.parametrize(("sign", "expected"), [(1, 0), (-1, 8)])
def test_the_loss_is_0_for_equal_directions_and_8_for_opposite_ones(sign, expected):
    objective, z = byol(), draws(2 * B, DIM)
    objective.projector = objective.predictor = nn.Identity()
    other = torch.cat([z[B:], z[:B]])
    objective.teacher = nn.Identity()
    assert objective(z, 3 * sign * other, START).loss.item() == pytest.approx(expected, abs=1e-12)


def test_the_loss_is_2_minus_2_cosines_of_each_direction():
    """At angles a and b of the two directions it is 4 - 2 cos a - 2 cos b, whatever the lengths."""
    objective = byol()
    objective.projector = objective.predictor = objective.teacher = nn.Identity()
    z = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    angles = torch.tensor([0.3, 1.1])
    targets = torch.stack(
        [7 * torch.stack([angles[1].sin(), angles[1].cos()]), torch.stack([angles[0].cos(), angles[0].sin()])]
    )
    expected = 4 - 2 * math.cos(0.3) - 2 * math.cos(1.1)
    assert objective(z, targets, START).loss.item() == pytest.approx(expected, rel=1e-6)


def test_no_gradient_reaches_the_target_network():
    objective, z, views = byol(), draws(2 * B, DIM).requires_grad_(), draws(2 * B, 3, 2, 2, seed=2).requires_grad_()
    objective(z, views, START).loss.backward()
    assert views.grad is None and z.grad.abs().max() > 0
    for name, parameter in objective.named_parameters():
        assert parameter.requires_grad != name.startswith("teacher."), name
        assert (parameter.grad is None) == name.startswith("teacher."), name


def test_the_gradient_equals_finite_differences():
    objective, views = byol(), draws(2 * B, 3, 2, 2, seed=2)
    z = draws(2 * B, DIM).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, views, START).loss, z, atol=1e-5)


def test_the_target_network_starts_as_the_online_one_with_buffers_of_its_own():
    online = encoder()
    objective = byol(online)
    torch.testing.assert_close(objective.teacher[0].state_dict(), online.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(objective.teacher[1].state_dict(), objective.projector.state_dict(), rtol=0, atol=0)
    objective(draws(2 * B, DIM), draws(2 * B, 3, 2, 2), START)
    assert objective.teacher[0][2].running_mean.any() and not online[2].running_mean.any()


@pytest.mark.parametrize(("step", "decay"), [(0, 0.9), (10, 1 - 0.1 * (2 + 2**0.5) / 4), (20, 0.95)])
def test_the_target_network_follows_with_a_momentum_that_rises_as_a_cosine(step, decay):
    """tau = 1 - (1 - 0.9) (cos(pi k / K) + 1) / 2 for K = 40."""
    online = encoder()
    objective = byol(online, ema=0.9)
    for parameter in [*online.parameters(), *objective.projector.parameters()]:
        parameter.data.add_(1.0)
    before = copy.deepcopy(dict(objective.teacher.named_parameters()))
    objective.after_step(online, Clock(step // 10, 4, step, 10))
    students = nn.Sequential(online, objective.projector)
    for name, parameter in objective.teacher.named_parameters():
        expected = decay * before[name] + (1 - decay) * students.get_parameter(name)
        torch.testing.assert_close(parameter, expected, rtol=1e-12, atol=0)


def test_the_online_encoder_is_the_result():
    online = encoder()
    assert byol(online).evaluated(online) is online


def test_the_heads_have_the_published_sizes():
    """Behind a ResNet-50: 2048 or 256 to 4096, batch norm, to 256."""
    with torch.device("meta"):
        objective = BYOL(spec.BYOL(name="byol"), 2048, nn.Identity())
    sizes = [sum(p.numel() for p in head.parameters()) for head in (objective.projector, objective.predictor)]
    assert sizes == [2048 * 4096 + 2 * 4096 + 4096 * 256, 256 * 4096 + 2 * 4096 + 4096 * 256]
