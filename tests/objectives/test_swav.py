"""SwAV: Sinkhorn against optimal transport and the formula of the paper, the loss by loops, queue and prototypes."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from issl.objectives.base import Clock
from issl.objectives.swav import SwAV, sinkhorn
from issl.spec import objective as spec

B, K, DIM, OUT = 5, 7, 6, 4
VIEWS = torch.zeros(2 * B, 3, 1, 1)


def swav(**keys) -> SwAV:
    torch.manual_seed(0)
    small = {"prototypes": K, "hidden": 8, "out": OUT} | keys
    return SwAV(spec.SwAV(name="swav", **small), DIM, nn.Identity()).double()


def rows(views: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(views * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at(epoch: int) -> Clock:
    return Clock(epoch, 9, 10 * epoch, 10)


# --- sinkhorn ---


def logits(n: int, k: int, seed: int = 0) -> np.ndarray:
    """Cosines over 0.05."""
    return np.random.default_rng(seed).uniform(-1, 1, (n, k)) / 0.05


def published(logits: np.ndarray, iterations: int) -> np.ndarray:
    """Pseudo-code of Caron et al. 2020, appendix A: the matrix Q is (K, n), and exp is taken of it at the start."""
    q = np.exp(logits).T
    q /= q.sum()
    k, n = q.shape
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * k  # total weight of each prototype: 1 / K
        q /= q.sum(0, keepdims=True) * n  # total weight of each image: 1 / n
    return (q * n).T


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_sinkhorn_equals_the_published_iterations(iterations):
    given = logits(11, 6)
    found = sinkhorn(torch.from_numpy(given), iterations).exp().numpy()
    np.testing.assert_allclose(found, published(given, iterations), rtol=1e-9)


def test_sinkhorn_converges_to_the_transport_of_least_cost_with_its_entropy():
    """The solution is the only matrix exp(logits + a_i + b_k) whose rows sum to 1 and columns to n / K."""
    given = logits(12, 5)
    log_q = sinkhorn(torch.from_numpy(given), 5000).numpy()
    np.testing.assert_allclose(np.exp(log_q).sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_q).sum(0), 12 / 5, rtol=1e-8)
    shift = log_q - given
    additive = shift.mean(1, keepdims=True) + shift.mean(0, keepdims=True) - shift.mean()
    np.testing.assert_allclose(shift, additive, atol=1e-9)


def test_sinkhorn_without_smoothness_is_the_best_assignment():
    """For as many images as prototypes and a tiny epsilon: a permutation, found by the Hungarian algorithm."""
    cosines = np.random.default_rng(3).uniform(-1, 1, (8, 8))
    _, best = linear_sum_assignment(cosines, maximize=True)
    assert (best != cosines.argmax(1)).any()  # images compete for prototypes
    q = sinkhorn(torch.from_numpy(cosines) / 0.005, 3000).exp()
    assert q.argmax(1).tolist() == best.tolist() and q.amax(1).min() > 0.99


def test_sinkhorn_does_not_overflow_in_float32():
    log_q = sinkhorn(torch.from_numpy(logits(64, 30)).float() * 50, 3)
    assert log_q.isfinite().all()
    torch.testing.assert_close(log_q.exp().sum(1), torch.ones(64))


# --- loss ---


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def unit_projections(objective: SwAV, z: Tensor) -> np.ndarray:
    with torch.no_grad():  # batch statistics: a second call gives the same
        u = objective.projector(z).numpy()
    return np.stack([row / math.sqrt(sum(value**2 for value in row)) for row in u])


def by_loops(u: np.ndarray, prototypes: np.ndarray, codes: list[np.ndarray], temperature: float) -> float:
    views = len(u) // B
    p = softmax(u @ prototypes.T / temperature).reshape(views, B, K)
    pairs = [(i, j) for i in range(2) for j in range(views) if i != j]
    total = sum(codes[i][b, k] * math.log(p[j, b, k]) for i, j in pairs for b in range(B) for k in range(K))
    return -total / (len(pairs) * B)


@pytest.mark.parametrize("views", [2, 6])
@pytest.mark.parametrize("keys", [{}, {"temperature": 0.3, "epsilon": 0.2, "sinkhorn_iterations": 2}])
def test_the_loss_equals_loops_over_pairs_of_views(views, keys):
    objective, z = swav(**keys), rows(views)
    loss, logs = objective(z, VIEWS, at(1))
    o = spec.SwAV(name="swav", **keys)
    u, c = unit_projections(objective, z), objective.prototypes.weight.detach().numpy()
    codes = [published(u[i * B : (i + 1) * B] @ c.T / o.epsilon, o.sinkhorn_iterations) for i in range(2)]
    expected = by_loops(u, c, codes, o.temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert logs["log_loss"].item() == loss.item()
    uncertainty = -sum((q * np.log(q)).sum() for q in codes) / (2 * B)
    assert logs["H_Mlz"].item() == pytest.approx(uncertainty, rel=1e-8)


def test_prototypes_that_are_all_equal_give_the_chance_level():
    objective = swav()
    nn.init.ones_(objective.prototypes.weight)
    loss, logs = objective(rows(), VIEWS, at(1))
    assert loss.item() == pytest.approx(math.log(K), rel=1e-12)
    assert logs["H_Mlz"].item() == pytest.approx(math.log(K), rel=1e-12)


def test_the_gradient_treats_the_codes_as_constants():
    objective, z = swav(), rows().requires_grad_()
    log_q = [code.clone() for code in objective.codes(torch.from_numpy(unit_projections(objective, z.detach())), at(1))]
    objective(z, VIEWS, at(1)).loss.backward()
    found = z.grad.clone()
    fixed = copy.deepcopy(objective)
    fixed.codes = lambda u, clock: log_q
    assert torch.autograd.gradcheck(lambda z: fixed(z, VIEWS, at(1)).loss, z, atol=1e-5)
    z.grad = None
    fixed(z, VIEWS, at(1)).loss.backward()
    torch.testing.assert_close(found, z.grad)


@pytest.mark.parametrize("n", [9, 8])
def test_rows_that_are_not_views_of_the_images_are_refused(n):
    with pytest.raises(ValueError, match=r"rows cannot be two or more views of 5 images"):
        swav()(rows(3)[:n], VIEWS, at(1))


# --- prototypes ---


def lengths(objective: SwAV) -> Tensor:
    return objective.prototypes.weight.detach().norm(dim=1)


def test_prototypes_are_unit_vectors_at_the_start_and_after_each_step():
    objective = swav()
    torch.testing.assert_close(lengths(objective), torch.ones(K).double())
    objective.prototypes.weight.data.mul_(3.0)
    objective.eval().after_step(nn.Identity(), at(1))
    torch.testing.assert_close(lengths(objective), torch.full((K,), 3.0).double())
    objective.train().after_step(nn.Identity(), at(1))
    torch.testing.assert_close(lengths(objective), torch.ones(K).double())


@pytest.mark.parametrize(("epochs", "frozen"), [(0, []), (1, [0]), (2, [0, 1])])
def test_prototypes_are_frozen_in_the_first_epochs(epochs, frozen):
    objective = swav(freeze_prototypes_epochs=epochs)
    for epoch in range(3):
        objective.zero_grad()
        objective(rows(), VIEWS, at(epoch)).loss.backward()
        assert (objective.prototypes.weight.grad is None) == (epoch in frozen)
        assert objective.projector[-1].weight.grad.any()


def test_the_heads_have_the_published_sizes():
    """2048 to 2048 to 128, 3000 prototypes."""
    objective = SwAV(spec.SwAV(name="swav"), 2048, nn.Identity())
    assert [tuple(p.shape) for p in objective.projector.parameters() if p.ndim > 1] == [(2048, 2048), (128, 2048)]
    assert objective.projector[-1].bias.shape == (128,) and objective.prototypes.weight.shape == (3000, 128)


# --- queue ---


def test_the_queue_holds_the_newest_unit_projections_of_each_view():
    objective = swav(queue=12)
    batches = [rows(seed=seed) for seed in (1, 2, 3)]
    seen = []
    for z in batches:
        seen.insert(0, unit_projections(objective, z).reshape(2, B, OUT))
        objective(z, VIEWS, at(0))
        expected = np.concatenate(seen, axis=1)[:, :12]
        np.testing.assert_allclose(objective.queue[:, : expected.shape[1]], expected, rtol=1e-12)
    before = objective.queue.clone()
    objective.eval()(batches[0], VIEWS, at(0))
    assert torch.equal(objective.queue, before)


def test_codes_are_balanced_over_batch_and_queue_from_the_queues_epoch_on():
    objective = swav(queue=10, queue_start_epoch=2)
    for seed in (2, 3):
        objective(rows(seed=seed), VIEWS, at(0))
    held, z = objective.queue.numpy().copy(), rows()
    u, c = unit_projections(objective, z), objective.prototypes.weight.detach().numpy()
    views = u.reshape(2, B, OUT)
    alone = [published(view @ c.T / 0.05, 3) for view in views]
    together = [published(np.concatenate([view, old]) @ c.T / 0.05, 3)[:B] for view, old in zip(views, held)]
    losses = [by_loops(u, c, codes, 0.1) for codes in (alone, together)]
    assert abs(losses[0] - losses[1]) > 1e-3
    for epoch, expected in ((1, losses[0]), (2, losses[1])):
        again = copy.deepcopy(objective)
        assert again(z, VIEWS, at(epoch)).loss.item() == pytest.approx(expected, rel=1e-9)


def test_there_is_no_queue_unless_it_is_asked_for():
    assert swav().queue is None and "queue" not in swav().state_dict()
