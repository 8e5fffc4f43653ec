"""DISSL with many views against loops over pairs, images and classes; the published sizes of its heads."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.dissl import DISSL
from issl.objectives.dissl_multicrop import DISSLMultiCrop
from issl.spec import objective as spec

B, C, DIM = 4, 7, 6
CLOCK = Clock(0, 1, 0, 1)
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def multicrop(**keys) -> DISSLMultiCrop:
    torch.manual_seed(0)
    small = {"classes": C, "hidden": 8, "bottleneck": 5} | keys
    objective = DISSLMultiCrop(spec.DISSLMultiCrop(name="dissl_multicrop", **small), DIM, nn.Identity()).double()
    for parameter in objective.parameters():  # away from the almost uniform start
        nn.init.normal_(parameter, std=0.7)
    return objective


def rows(views: int) -> torch.Tensor:
    return torch.randn(views * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = [math.exp(value) for value in logits]
    return np.array(weights) / sum(weights)


def cross_entropy(p: list[np.ndarray], q: list[np.ndarray]) -> float:
    return -sum(p[b][m] * math.log(q[b][m]) for b in range(B) for m in range(C)) / B


@pytest.mark.parametrize(("views", "pairs"), [(2, 2), (6, 10), (8, 14)])
@pytest.mark.parametrize("keys", [{}, {"teacher": "reduced", "entropy_weight": 1.7, "invariance_weight": 0.9}])
def test_multicrop_equals_loops_over_pairs(views, pairs, keys):
    objective, z = multicrop(**keys), rows(views)
    loss, logs = objective(z, VIEWS, CLOCK)
    o = spec.DISSLMultiCrop(name="dissl_multicrop", **keys)
    p = [softmax(row / 0.5) for row in objective.projector(z[: 2 * B]).detach().numpy()]
    q = [softmax(row) for row in objective.predictor(z).detach().numpy()]
    p, q = [p[i * B : (i + 1) * B] for i in range(2)], [q[j * B : (j + 1) * B] for j in range(views)]

    terms = [cross_entropy(p[i], q[j]) for i in range(2) for j in range(views) if i != j]
    assert len(terms) == pairs
    marginals = [sum(view) / B for view in p]
    maximality = sum(-sum(value * math.log(value) for value in marginal) for marginal in marginals) / 2
    invariance = (cross_entropy(p[0], p[1]) + cross_entropy(p[1], p[0])) / 2
    expected = sum(terms) / pairs + o.invariance_weight * invariance - o.entropy_weight * maximality
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    uncertainty = (cross_entropy(p[0], p[0]) + cross_entropy(p[1], p[1])) / 2
    assert {name: value.item() for name, value in logs.items()} == pytest.approx(
        {
            "log_loss": sum(terms) / pairs,
            "H_M": maximality,
            "H_Mlz": uncertainty,
            "KL_invariance": invariance - uncertainty,
        },
        rel=1e-9,
    )


def test_two_views_with_the_same_heads_equal_dissl():
    ours, z = multicrop(), rows(2)
    theirs = DISSL(
        spec.DISSL(name="dissl", classes=C, invariance_weight=0.6, hidden=8, bottleneck=5), DIM, nn.Identity()
    )
    theirs.predictor, theirs.projector = ours.predictor, ours.projector
    torch.testing.assert_close(ours(z, VIEWS, CLOCK).loss, theirs(z, VIEWS, CLOCK).loss, rtol=1e-12, atol=0)


def test_the_teacher_sees_large_views_and_the_student_all_of_them():
    objective, seen = multicrop(), {}
    for name in ("projector", "predictor"):
        getattr(objective, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, []).append(inputs[0])
        )
    z = rows(6)
    objective(z, VIEWS, CLOCK)
    (teacher,), (student,) = seen["projector"], seen["predictor"]
    assert torch.equal(teacher, z[: 2 * B]) and torch.equal(student, z)


def test_gradients_reach_everything_from_each_term():
    """Nothing is detached: the distillation alone trains the teacher, maximality and invariance the encoder."""
    z = rows(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: multicrop()(z, VIEWS, CLOCK).loss, z, atol=1e-5)
    objective = multicrop(entropy_weight=0.0, invariance_weight=0.0)
    objective(z, VIEWS, CLOCK).loss.backward()
    assert all(parameter.grad.abs().max() > 1e-6 for parameter in objective.parameters() if parameter.ndim > 1)
    assert (z.grad.abs().amax(1) > 0).all()  # small views too


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("dim", "teacher", "sizes"),
    [(2048, "residual", (17_851_392, 9_454_592)), (8192, "reduced", (18_900_992, 12_600_320))],
)
def test_heads_have_the_published_sizes_and_torchs_initialisation(dim, teacher, sizes):
    """17.85 and 9.45 million parameters for 2048 dimensions, 18.90 and 12.60 for 8192."""
    torch.manual_seed(0)
    heads = DISSLMultiCrop(spec.DISSLMultiCrop(name="dissl_multicrop", teacher=teacher), dim, nn.Identity())
    assert (count(heads.projector), count(heads.predictor)) == sizes
    for layer in (part for part in heads.modules() if isinstance(part, nn.Linear)):
        bound = layer.in_features**-0.5  # uniform
        assert layer.weight.abs().max() <= bound and layer.weight.std().item() == pytest.approx(
            bound / 3**0.5, rel=0.01
        )
        assert (layer.bias is not None) == (layer.out_features == 16384)


@pytest.mark.parametrize(
    ("teacher", "layers"),
    [
        ("residual", ["+ L6-8 B R L8-6 B R", "L6-5 B R", "L5-7b"]),
        ("reduced", ["L6-5 B R", "+ L5-8 B R L8-8 B R L8-5 B R", "L5-7b"]),
    ],
)
def test_the_teachers_layers_have_the_released_order(teacher, layers):
    """L: Linear, b with bias; B: BatchNorm; R: ReLU; +: what follows stands beside the identity."""

    def described(part: nn.Module) -> str:
        if isinstance(part, nn.Linear):
            return f"L{part.in_features}-{part.out_features}{'b' if part.bias is not None else ''}"
        if type(part).__name__ == "Residual":
            return " ".join(["+", *map(described, part.layers)])
        return {"BatchNorm1d": "B", "ReLU": "R"}[type(part).__name__]

    objective = multicrop(teacher=teacher)
    assert " ".join(map(described, objective.projector)) == " ".join(layers)
    assert " ".join(map(described, objective.predictor)) == "L6-5 B L5-7b"
    block = next(part for part in objective.projector if type(part).__name__ == "Residual")
    x = rows(1) if teacher == "residual" else rows(1)[:, :5]
    torch.testing.assert_close(block(x), x + block.layers(x))


def test_beta_decays_from_lambda():
    objective = multicrop(invariance_warmup_steps=1000)
    assert objective.beta(0) == pytest.approx(2.3 - 1.7 / 1000)
    assert objective.beta(499) == pytest.approx((2.3 + 0.6) / 2)
    assert [objective.beta(step) for step in (999, 1000, 10**6)] == [0.6] * 3
    assert multicrop().beta(0) == 0.6
    late, early = (objective(rows(2), VIEWS, Clock(0, 4, step, 1000)) for step in (2000, 0))
    gain = early.logs["KL_invariance"] + early.logs["H_Mlz"]  # CE(p^1, p^2)
    torch.testing.assert_close(early.loss - late.loss, (2.3 - 1.7 / 1000 - 0.6) * gain)


def test_each_large_view_has_its_own_marginal():
    """Each view uses one class, but not the same one: the entropy of each marginal is 0, of both together ln 2."""
    objective = multicrop(classes=2)
    objective.predictor = objective.projector = nn.Identity()
    z = torch.tensor([[50.0, 0.0]] * B + [[0.0, 50.0]] * B, dtype=torch.float64)
    assert objective(z, VIEWS, CLOCK).logs["H_M"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "views"), [(9, 8), (4, 8), (12, 7), (15, 8)])
def test_rows_that_are_not_views_of_the_images_are_refused(n, views):
    with pytest.raises(ValueError, match=r"rows cannot be two (or more )?views of"):
        multicrop()(rows(4)[:n], VIEWS[:views], CLOCK)
