"""MoCo v3: InfoNCE by loops, its chance level in closed form, and a momentum encoder that no gradient reaches."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from issl.objectives.base import Clock
from issl.objectives.moco_v3 import MoCoV3
from issl.spec import objective as spec

B, DIM = 5, 6
START = Clock(0, 4, 0, 10)


def encoder() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, DIM), nn.BatchNorm1d(DIM), nn.ReLU()).double()


def moco(trained: nn.Module | None = None, **keys) -> MoCoV3:
    torch.manual_seed(0)
    small = {"hidden": 7, "out": 4} | keys
    return MoCoV3(spec.MoCoV3(name="moco_v3", **small), DIM, trained or encoder()).double()


def rows() -> Tensor:
    return torch.randn(2 * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def views() -> Tensor:
    return torch.randn(2 * B, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def info_nce(q: np.ndarray, k: np.ndarray, temperature: float) -> float:
    """-log of the share of the query's own key, averaged over images."""
    total = 0.0
    for i in range(B):
        weights = [math.exp(cosine(q[i], k[j]) / temperature) for j in range(B)]
        total -= math.log(weights[i] / sum(weights))
    return total / B


@pytest.mark.parametrize("keys", [{}, {"temperature": 0.2, "heads": "vit"}])
def test_the_loss_equals_loops_over_queries_and_keys(keys):
    objective, z, images = moco(**keys), rows(), views()
    with torch.no_grad():  # batch statistics: a second call gives the same
        q = objective.predictor(objective.projector(z)).numpy()
        k = objective.teacher(images).numpy()
    loss, logs = objective(z, images, START)
    temperature = keys.get("temperature", 1.0)
    contrasts = info_nce(q[:B], k[B:], temperature), info_nce(q[B:], k[:B], temperature)
    assert loss.item() == pytest.approx(2 * temperature * sum(contrasts), rel=1e-10)
    assert logs["log_loss"].item() == pytest.approx(sum(contrasts) / 2, rel=1e-10)
    assert logs["hat_H_m"].item() == pytest.approx(math.log(B), rel=1e-10)
    assert logs["I_q_zm"].item() == pytest.approx(math.log(B) - sum(contrasts) / 2, rel=1e-9)


def test_keys_that_are_all_equal_give_the_chance_level():
    """Every key is found with probability 1 / B: the log loss is ln B, and the loss 4 temperature ln B."""
    objective = moco(temperature=0.3)
    objective.teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 4).double())
    nn.init.zeros_(objective.teacher[1].weight)
    loss, logs = objective(rows(), views(), START)
    assert logs["log_loss"].item() == pytest.approx(math.log(B), rel=1e-12)
    assert loss.item() == pytest.approx(4 * 0.3 * math.log(B), rel=1e-12)


def test_orthogonal_images_give_the_closed_form():
    """Cosine 1 for the positive and 0 for B - 1 others: log(1 + (B - 1) exp(-1 / temperature))."""
    objective = moco(temperature=0.5)
    objective.projector = objective.predictor = objective.teacher = nn.Identity()
    z = torch.eye(B, dtype=torch.float64).repeat(2, 1)
    expected = math.log(1 + (B - 1) * math.exp(-2))
    assert objective(z, z, START).logs["log_loss"].item() == pytest.approx(expected, rel=1e-12)


def test_no_gradient_reaches_the_momentum_encoder():
    objective, z, images = moco(), rows().requires_grad_(), views().requires_grad_()
    objective(z, images, START).loss.backward()
    assert images.grad is None and z.grad.abs().max() > 0
    for name, parameter in objective.named_parameters():
        assert parameter.requires_grad != name.startswith("teacher."), name
        assert (parameter.grad is None) == name.startswith("teacher."), name


def test_the_gradient_equals_finite_differences():
    objective, images = moco(temperature=0.2), views()
    assert torch.autograd.gradcheck(lambda z: objective(z, images, START).loss, rows().requires_grad_(), atol=1e-5)


@pytest.mark.parametrize(("step", "decay"), [(0, 0.9), (20, 0.95), (30, 1 - 0.1 * (2 - 2**0.5) / 4)])
def test_the_momentum_encoder_follows_with_a_momentum_that_rises_as_a_cosine(step, decay):
    """m = 1 - (1 - 0.9) (cos(pi k / K) + 1) / 2 for K = 40."""
    trained = encoder()
    objective = moco(trained, ema=0.9)
    for parameter in [*trained.parameters(), *objective.projector.parameters()]:
        parameter.data.add_(1.0)
    trained[2].running_mean.add_(5.0)
    before = copy.deepcopy(dict(objective.teacher.named_parameters()))
    objective.after_step(trained, Clock(step // 10, 4, step, 10))
    students = nn.Sequential(trained, objective.projector)
    for name, parameter in objective.teacher.named_parameters():
        expected = decay * before[name] + (1 - decay) * students.get_parameter(name)
        torch.testing.assert_close(parameter, expected, rtol=1e-12, atol=0)
    assert not objective.teacher[0][2].running_mean.any()  # buffers are its own
    assert objective.evaluated(trained) is trained


@pytest.mark.parametrize(
    ("heads", "dim", "projector", "predictor"),
    [
        ("resnet", 2048, "L2048-4096 B R L4096-256 Bn", "L256-4096 B R L4096-256"),
        ("vit", 384, "L384-4096 B R L4096-4096 B R L4096-256 Bn", "L256-4096 B R L4096-256 Bn"),
    ],
)
def test_the_heads_have_the_published_layers(heads, dim, projector, predictor):
    """L: Linear without bias; B: batch norm, n without scale and shift; R: ReLU (the authors' code)."""

    def described(part: nn.Module) -> str:
        if isinstance(part, nn.Linear):
            assert part.bias is None
            return f"L{part.in_features}-{part.out_features}"
        return "R" if isinstance(part, nn.ReLU) else "B" if part.affine else "Bn"

    with torch.device("meta"):
        objective = MoCoV3(spec.MoCoV3(name="moco_v3", heads=heads), dim, nn.Identity())
    assert " ".join(map(described, objective.projector)) == projector
    assert " ".join(map(described, objective.predictor)) == predictor
