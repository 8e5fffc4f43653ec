"""LARS against the formula of apex's LARC (clip off) and SGD, written a second time in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from issl.models.lars import LARS

TRUST, DECAY, MOMENTUM, RATE = 0.001, 0.1, 0.9, 0.3


def larc(p: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Where the steps on these gradients end."""
    v = np.zeros_like(p)
    for g in gradients:
        p_norm, g_norm = np.sqrt((p**2).sum()), np.sqrt((g**2).sum())
        if p_norm != 0 and g_norm != 0:
            g = (g + DECAY * p) * TRUST * p_norm / (g_norm + DECAY * p_norm + 1e-8)
        v = MOMENTUM * v + g
        p = p - RATE * v
    return p


def ours(p: np.ndarray, gradients: list[np.ndarray], **group) -> np.ndarray:
    parameter = nn.Parameter(torch.from_numpy(p.copy()))
    optimizer = LARS([{"params": [parameter], "trust": TRUST} | group], momentum=MOMENTUM, weight_decay=DECAY)
    for gradient in gradients:
        optimizer.param_groups[0]["lr"] = RATE
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    return parameter.detach().numpy()


random = np.random.default_rng(0)
PARAMETERS = {
    "a convolution": random.standard_normal((4, 3, 3, 3)),
    "a bias": random.standard_normal(5),
    "a number": np.array(0.7),
    "zeros": np.zeros(5),
}


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("still", [None, 0, 1, 2])
def test_steps_equal_the_formula(name, still):
    """Zeros take their first gradient as it is; a gradient of zero moves by momentum alone, and decays nothing."""
    p = PARAMETERS[name]
    gradients = [np.array(random.standard_normal(p.shape) * 10.0**k) for k in (-3, 0, 2)]
    if still is not None:
        gradients[still] = np.zeros_like(p)
    np.testing.assert_allclose(ours(p, gradients), larc(p, gradients), rtol=1e-12, atol=1e-15)


def test_zero_weights_move_by_the_raw_gradient_first():
    np.testing.assert_allclose(ours(np.zeros(3), [np.array([1.0, -2.0, 3.0])]), [-0.3, 0.6, -0.9])


def test_a_group_without_trust_ratio_equals_torchs_sgd():
    p, gradients = random.standard_normal(5), [random.standard_normal(5) for _ in range(4)]
    parameter = nn.Parameter(torch.from_numpy(p.copy()))
    sgd = torch.optim.SGD([parameter], RATE, momentum=MOMENTUM, weight_decay=DECAY)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient)
        sgd.step()
    np.testing.assert_allclose(ours(p, gradients, trust=None), parameter.detach().numpy(), rtol=1e-12)


def test_closures_get_gradients_and_the_state_is_restored():
    def trained(steps: int, state=None):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = LARS([{"params": list(layer.parameters()), "trust": TRUST, "lr": RATE}], MOMENTUM, DECAY)
        if state:
            layer.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])

        def closure():
            optimizer.zero_grad()
            loss = layer(torch.ones(4, 3)).square().sum()
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(steps)]
        return losses, (layer.state_dict(), optimizer.state_dict())

    losses, _ = trained(6)
    first, state = trained(3)
    second, _ = trained(3, state)
    assert losses == first + second and losses[-1] < losses[0]
