"""DISSL against loops over the formulas, its initial values, and its limits."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.dissl import DISSL, entropy
from issl.spec import objective as spec

CLOCK = Clock(0, 1, 0, 1)
B, C, DIM = 4, 9, 6
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def dissl(**keys) -> DISSL:
    torch.manual_seed(0)
    small = {"classes": C, "hidden": 7, "mlp_hidden": 8, "bottleneck": 5} | keys
    objective = DISSL(spec.DISSL(name="dissl", **small), DIM, nn.Identity()).double()
    for parameter in objective.parameters():  # away from the almost uniform start
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.7)
    return objective


def rows() -> torch.Tensor:
    return torch.randn(2 * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = [math.exp(value) for value in logits]
    return np.array(weights) / sum(weights)


def slow_entropy(p: np.ndarray) -> float:
    return -sum(value * math.log(value) for value in p)


def slow_cross_entropy(p: list[np.ndarray], q: list[np.ndarray]) -> float:
    return -sum(p[i][c] * math.log(q[i][c]) for i in range(len(p)) for c in range(C)) / len(p)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"predictor": "mlp"},
        {"entropy_weight": 1.7, "invariance_weight": 0.3, "student_temperature": 1.5, "teacher_temperature": 0.9},
    ],
)
def test_dissl_equals_loops_over_views(keys):
    objective, z = dissl(**keys), rows()
    loss, logs = objective(z, VIEWS, CLOCK)
    o = spec.DISSL(name="dissl", **keys)
    t = [softmax(row / o.teacher_temperature) for row in objective.projector(z).detach().numpy()]
    s = [softmax(row / o.student_temperature) for row in objective.predictor(z).detach().numpy()]
    (t1, t2), (s1, s2) = (t[:B], t[B:]), (s[:B], s[B:])

    distillation = (slow_cross_entropy(t1, s2) + slow_cross_entropy(t2, s1)) / 2
    maximality = (slow_entropy(sum(t1) / B) + slow_entropy(sum(t2) / B)) / 2
    invariance = (slow_cross_entropy(t1, t2) + slow_cross_entropy(t2, t1)) / 2
    uncertainty = sum(map(slow_entropy, t)) / (2 * B)
    expected = distillation - o.entropy_weight * maximality + o.invariance_weight * invariance

    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert {name: value.item() for name, value in logs.items()} == pytest.approx(
        {
            "H_M": maximality,
            "H_Mlz": uncertainty,
            "KL_invariance": invariance - uncertainty,
            "KL_distillation": (slow_cross_entropy(t1, s1) + slow_cross_entropy(t2, s2)) / 2 - uncertainty,
            "log_loss": distillation,
        },
        rel=1e-9,
    )


def test_the_initial_terms_follow_from_the_variance_of_the_logits():
    """At the start logits are normal with variance 512 * 0.02^2, so every term is known."""
    torch.manual_seed(0)
    objective = DISSL(spec.DISSL(name="dissl"), 512, nn.Identity())
    z = torch.randn(128, 512).relu()
    with torch.no_grad():
        loss, logs = objective(z, torch.zeros(128, 3, 1, 1), CLOCK)
    student, teacher = 512 * 0.02**2, 512 * 0.02**2 / 0.5**2  # variances
    assert logs["H_M"].item() == pytest.approx(9.69, abs=0.01)
    assert logs["H_Mlz"].item() == pytest.approx(9.29, abs=0.01)
    assert logs["H_Mlz"].item() == pytest.approx(math.log(16384) - teacher / 2, abs=0.01)
    assert logs["log_loss"].item() == pytest.approx(9.81, abs=0.01)
    assert logs["log_loss"].item() == pytest.approx(math.log(16384) + student / 2, abs=0.01)
    assert loss.item() == pytest.approx(-4.39, abs=0.03)


def test_default_heads_have_the_published_sizes():
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    heads = DISSL(spec.DISSL(name="dissl"), 512, nn.Identity())
    assert (count(heads.predictor), count(heads.projector)) == (8_668_160, 9_456_640)
    heads = DISSL(spec.DISSL(name="dissl", predictor="mlp"), 512, nn.Identity())
    assert (count(heads.predictor), count(heads.projector)) == (14_705_664, 14_705_664)


@pytest.mark.parametrize("predictor", ["linear", "mlp"])
def test_cosine_heads_start_as_the_code_before_the_release_drew_them(predictor):
    """Standard deviations that its heads of this size had: 0.0441 and 0.0442 for the student's bottleneck."""
    torch.manual_seed(0)
    objective = DISSL(spec.DISSL(name="dissl", predictor=predictor, heads="cosine"), 512, nn.Identity())
    teacher, student = objective.projector, objective.predictor
    assert student[-3].weight.std().item() == pytest.approx(0.0442, rel=0.02)
    assert teacher[-3].weight.std().item() == pytest.approx(0.02, rel=0.02)
    torch.testing.assert_close(teacher[-1].weight.norm(dim=1), torch.ones(16384))
    assert teacher[-1].bias is None and student[-1].bias is not None


def test_the_prototypes_of_cosine_heads_keep_their_length():
    objective = dissl(heads="cosine")
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    before = objective.projector[-1].weight.detach().clone()
    objective(rows(), VIEWS, CLOCK).loss.backward()
    optimizer.step()
    after = objective.projector[-1].weight.detach()
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after.norm(dim=1), torch.ones(C, dtype=torch.float64))


def test_a_uniform_teacher_has_maximal_entropies():
    objective = dissl()
    nn.init.zeros_(objective.projector[-1].weight), nn.init.zeros_(objective.projector[-1].bias)
    logs = objective(rows(), VIEWS, CLOCK).logs
    for name in ("H_M", "H_Mlz"):
        assert logs[name].item() == pytest.approx(math.log(C))
    assert logs["KL_invariance"].item() == pytest.approx(0, abs=1e-12)


def test_the_ideal_solution_reaches_the_lowest_loss():
    """Invariant, certain and evenly used classes, with a student that agrees: the loss is -lambda ln C."""
    objective = dissl(classes=B, entropy_weight=2.3)
    objective.predictor = objective.projector = nn.Identity()
    z = 1000 * torch.eye(B, dtype=torch.float64).repeat(2, 1)
    loss, logs = objective(z, VIEWS, CLOCK)
    assert loss.item() == pytest.approx(-2.3 * math.log(B))
    assert logs["H_M"].item() == pytest.approx(math.log(B))
    assert [logs[name].item() for name in ("H_Mlz", "KL_invariance", "KL_distillation")] == pytest.approx([0, 0, 0])


def test_each_view_has_its_own_marginal():
    """Each view uses one class, but not the same one: the entropy of each marginal is 0, that of both would be ln 2."""
    objective = dissl(classes=2)
    objective.predictor = objective.projector = nn.Identity()
    z = torch.tensor([[50.0, 0.0]] * B + [[0.0, 50.0]] * B, dtype=torch.float64)
    assert objective(z, VIEWS, CLOCK).logs["H_M"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("predictor", ["linear", "mlp"])
def test_gradients_reach_both_branches(predictor):
    objective, z = dissl(predictor=predictor), rows().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, VIEWS, CLOCK).loss, z, atol=1e-5)
    objective(z, VIEWS, CLOCK).loss.backward()
    for head in (objective.predictor, objective.projector):
        assert all(parameter.grad.any() for parameter in (head[0].weight, head[-1].weight, head[-1].bias))


def test_the_distillation_term_trains_the_teacher():
    """No stop-gradient: without maximality and invariance the projector still learns."""
    objective = dissl(entropy_weight=0.0, invariance_weight=0.0)
    objective(rows(), VIEWS, CLOCK).loss.backward()
    assert objective.projector[0].weight.grad.abs().max() > 1e-3


def test_the_entropy_is_exact_at_its_extremes_with_a_finite_gradient():
    assert entropy(torch.full((8,), 1 / 8)).item() == pytest.approx(math.log(8))
    assert entropy(torch.full((8,), 1.0)).item() == pytest.approx(math.log(8))  # renormalised
    certain = torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    value = entropy(certain)
    assert value.item() == pytest.approx(0, abs=1e-6)
    value.backward()
    assert certain.grad.isfinite().all()  # the logarithm is clamped
