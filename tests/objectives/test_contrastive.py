"""SimCLR and CISSL against loops over the formulas, and against values known in closed form."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.contrastive import CISSL, SimCLR, cosines, entry
from issl.spec import objective as spec

CLOCK = Clock(0, 1, 0, 1)
B, DIM = 5, 6
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def simclr(**keys) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(spec.SimCLR(name="simclr", hidden=7, out=4, **keys), DIM, nn.Identity()).double()


def cissl(**keys) -> CISSL:
    torch.manual_seed(0)
    return CISSL(spec.CISSL(name="cissl", hidden=7, mlp_hidden=8, out=4, **keys), DIM, nn.Identity()).double()


def rows(n: int = 2 * B) -> torch.Tensor:
    return torch.randn(n, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_simclr_equals_loops_over_pairs(temperature):
    objective, z = simclr(temperature=temperature), rows()
    loss, logs = objective(z, VIEWS, CLOCK)
    u, total = array(objective.projector(z)), 0.0
    for i in range(2 * B):
        positive = math.exp(cosine(u[i], u[(i + B) % (2 * B)]) / temperature)
        others = sum(math.exp(cosine(u[i], u[j]) / temperature) for j in range(2 * B) if j != i)
        total -= math.log(positive / others)
    assert loss.item() == pytest.approx(total / (2 * B), rel=1e-10)
    assert logs["hat_H_m"].item() == pytest.approx(math.log(2 * B - 1))
    assert logs["I_q_zm"].item() == pytest.approx(math.log(2 * B - 1) - loss.item())


@pytest.mark.parametrize("predictor", ["linear", "mlp"])
def test_cissl_equals_loops_over_pairs(predictor):
    objective, z = cissl(predictor=predictor), rows()
    loss, logs = objective(z, VIEWS, CLOCK)
    a, b, total = array(objective.predictor(z)), array(objective.projector(z)), 0.0
    for i in range(2 * B):
        weights = [math.exp(cosine(a[i], b[j]) / 0.07) for j in range(2 * B)]
        itself, other = weights[i] / sum(weights), weights[(i + B) % (2 * B)] / sum(weights)
        total -= (math.log(itself) + math.log(other)) / 2
    assert loss.item() == pytest.approx(total / (2 * B), rel=1e-10)
    assert logs["hat_H_m"].item() == pytest.approx(math.log(2 * B))
    assert logs["I_q_zm"].item() == pytest.approx(math.log(2 * B) - loss.item())


def test_identical_embeddings_give_the_loss_of_a_uniform_guess():
    z = torch.ones(2 * B, DIM, dtype=torch.float64)
    # Identical rows would be 0 after BatchNorm in train mode; running statistics keep them.
    assert simclr().eval()(z, VIEWS, CLOCK).loss.item() == pytest.approx(math.log(2 * B - 1))
    assert cissl().eval()(z, VIEWS, CLOCK).loss.item() == pytest.approx(math.log(2 * B))


def through(objective: nn.Module) -> nn.Module:
    """The objective with its heads replaced by the identity."""
    for name, _ in list(objective.named_children()):
        setattr(objective, name, nn.Identity())
    return objective


def test_aligned_orthogonal_views_reach_the_closed_form_minimum():
    """Orthogonal images whose views coincide: SimCLR near 0, CISSL at its minimum ln 2 (two equal positives)."""
    z = torch.eye(DIM, dtype=torch.float64)[:B].repeat(2, 1)
    others = math.exp(-1 / 0.07)  # of an orthogonal row relative to a positive
    simclr_loss = through(simclr())(z, VIEWS, CLOCK).loss.item()
    assert simclr_loss == pytest.approx(math.log(1 + (2 * B - 2) * others), rel=1e-9)
    cissl_loss = through(cissl())(z, VIEWS, CLOCK).loss.item()
    assert cissl_loss == pytest.approx(math.log(2) + math.log(1 + (B - 1) * others), rel=1e-9)
    assert cissl_loss - math.log(2) < 1e-5


def test_the_diagonal_counts_for_cissl_only():
    """One image with orthogonal views: SimCLR has one candidate and no choice, CISSL still has two."""
    z = torch.eye(2, dtype=torch.float64)
    views = torch.zeros(2, 3, 1, 1)
    assert through(simclr())(z, views, CLOCK).loss.item() == 0
    p = math.exp(1 / 0.07) / (1 + math.exp(1 / 0.07))
    assert through(cissl())(z, views, CLOCK).loss.item() == pytest.approx(-(math.log(p) + math.log(1 - p)) / 2)


def test_default_heads_have_the_published_sizes():
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(SimCLR(spec.SimCLR(name="simclr"), 512, nn.Identity())) == 657_792
    heads = CISSL(spec.CISSL(name="cissl"), 512, nn.Identity())
    assert (count(heads.predictor), count(heads.projector)) == (65_920, 657_792)
    heads = CISSL(spec.CISSL(name="cissl", predictor="mlp"), 512, nn.Identity())
    assert (count(heads.predictor), count(heads.projector)) == (5_513_600, 5_513_600)
    assert not torch.equal(heads.predictor[0].weight, heads.projector[0].weight)


@pytest.mark.parametrize("make", [simclr, cissl, lambda: cissl(predictor="mlp")])
def test_gradients_equal_finite_differences_and_reach_every_head(make):
    objective, z = make(), rows().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, VIEWS, CLOCK).loss, z, atol=1e-5)
    objective(z, VIEWS, CLOCK).loss.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for head in objective.children():
        assert head[0].weight.grad.any()


def test_cosine_similarities_are_computed_in_full_precision():
    a = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = cosines(a, a)
    torch.testing.assert_close(inside, cosines(a, a), rtol=0, atol=0)
    assert cosines(a.bfloat16(), a.bfloat16()).dtype == torch.float32


def test_entry_picks_one_column_of_each_row():
    assert entry(torch.arange(16).reshape(4, 4), torch.tensor([2, 3, 0, 1])).tolist() == [2, 7, 8, 13]
