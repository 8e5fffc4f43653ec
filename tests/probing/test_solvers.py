"""The solvers reach the optima of scikit-learn's classifiers; closed forms where there are some."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from issl.errors import UserError
from issl.probing import solvers

KINDS = ("logistic", "svm")
CS = (1e-4, 1e-2, 1.0, 100.0)


def drawn(n, d, classes, spread, seed=0):
    """Features in [0, 1] with correlated columns, and labels that they tell apart the less the larger `spread` is."""
    draws = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    latent = draws.normal(size=(classes, 10))[labels] + spread * draws.normal(size=(n, 10))
    z = np.maximum(latent @ draws.normal(size=(10, d)) + 0.3 * draws.normal(size=(n, d)), 0)
    return (z / np.maximum(z.max(0), 1e-9)).astype(np.float32), labels


def solved(kind, x, labels, Cs, tol=1e-3, max_iter=1000):
    x = torch.from_numpy(np.array(x, np.float32))
    if kind == "svm":
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
    classes = int(max(labels)) + 1
    return getattr(solvers, kind)(x, torch.as_tensor(labels), classes, Cs, tol, max_iter)


def objective(kind, x, labels, C, weights, intercepts):
    """Of one-dimensional weights for two classes, as scikit-learn has them, or of one vector a class; float64."""
    decisions = x.astype(np.float64) @ weights.T + intercepts
    if kind == "svm":
        signs = (
            np.where(np.arange(len(weights)) == labels[:, None], 1, -1) if len(weights) > 1 else 2 * labels[:, None] - 1
        )
        loss = np.maximum(1 - signs * decisions, 0) ** 2
        return (weights**2).sum() / 2 + (intercepts**2).sum() / 2 + C * loss.sum()
    if len(weights) == 1:
        return (weights**2).sum() / 2 + C * np.logaddexp(0, (1 - 2 * labels[:, None]) * decisions).sum()
    losses = np.logaddexp.reduce(decisions, 1) - decisions[np.arange(len(labels)), labels]
    return (weights**2).sum() / 2 + C * losses.sum()


def scikit_learn(kind, x, labels, C):
    """Weights (K, d) and intercepts at the optimum; one vector for two classes."""
    x = x.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # near the optimum, its line searches give up
        if kind == "logistic":
            found = LogisticRegression(C=C, tol=1e-9, max_iter=20_000).fit(x, labels)
        else:
            found = LinearSVC(C=C, dual=False, tol=1e-7, max_iter=3000).fit(x, labels)
    return found.coef_, found.intercept_


def as_scikit_learn_has_them(fit, kind):
    """Two vectors that differ in sign alone (SVM), or of which the difference counts (logistic), as one."""
    weights, intercepts = (part.double().numpy() for part in (fit.weights, fit.intercepts))
    if len(weights) > 2:
        return weights, intercepts
    if kind == "svm":
        return weights[1:], intercepts[1:]
    return weights[1:] - weights[:1], intercepts[1:] - intercepts[:1]


SHAPES = {
    "overlapping": (300, 20, 5, 2.0),
    "separable": (200, 30, 4, 0.1),
    "two classes": (200, 15, 2, 2.0),
    "fewer rows than columns": (60, 150, 3, 1.0),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_is_that_of_scikit_learn(kind, shape):
    x, labels = drawn(*shape)
    new, _ = drawn(2000, *shape[1:])
    for C, fit in solved(kind, x, labels, CS).items():
        theirs = scikit_learn(kind, x, labels, C)
        ours = as_scikit_learn_has_them(fit, kind)
        least = objective(kind, x, labels, C, *theirs)
        assert -1e-5 < objective(kind, x, labels, C, *ours) / least - 1 < 1e-5, C
        halves = 2 if kind == "svm" and shape[2] == 2 else 1
        assert fit.objective / halves == pytest.approx(least, rel=1e-5)
        decisions, wanted = (new.astype(np.float64) @ weights.T + b for weights, b in (ours, theirs))
        if kind == "logistic" and shape[2] > 2:  # only differences between classes count
            decisions, wanted = (each - each.mean(1, keepdims=True) for each in (decisions, wanted))
        assert np.abs(decisions - wanted).max() < 0.01 * np.abs(wanted).max()


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_optimum_is_where_the_authors_scikit_learn_ended(C):
    """Before version 1.4, the loss was not divided by the number of rows, and tol 1e-3 meant its gradient."""
    x, labels = drawn(400, 30, 4, 1.5)
    rows, chosen = np.hstack([x, np.ones((len(x), 1))]), np.eye(4)[labels]

    def loss_and_gradient(flat):
        theta = flat.reshape(4, -1)
        weights = theta * (np.arange(31) < 30)
        logs = rows @ theta.T
        logs -= np.logaddexp.reduce(logs, 1)[:, None]
        gradient = (np.exp(logs) - chosen).T @ rows + weights / C
        return (weights**2).sum() / (2 * C) - (logs * chosen).sum(), gradient.ravel()

    options = {"gtol": 1e-3, "maxiter": 1000}
    ended = minimize(loss_and_gradient, np.zeros(4 * 31), jac=True, method="L-BFGS-B", options=options)
    assert solved("logistic", x, labels, [C])[C].objective == pytest.approx(C * ended.fun, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_several_values_of_c_give_what_each_gives_alone(kind):
    x, labels = drawn(150, 12, 3, 1.5)
    together = solved(kind, x, labels, CS[::-1])
    assert list(together) == sorted(CS)
    for C in CS:
        alone = solved(kind, x, labels, [C])[C]
        assert together[C].objective == pytest.approx(alone.objective, rel=2e-6)
        torch.testing.assert_close(together[C].weights, alone.weights, rtol=0, atol=3e-3 * alone.weights.norm().item())


def test_the_same_call_gives_the_same_bits():
    x, labels = drawn(150, 12, 3, 1.5)
    for kind in KINDS:
        one, two = (solved(kind, x, labels, CS) for _ in range(2))
        assert all(torch.equal(one[C].weights, two[C].weights) for C in CS)


def test_one_feature_and_two_rows_in_closed_form():
    """Rows 0 and 1, one of each class. SVM: of w x + b by the normal equations, as both rows stay in the margin.

    Logistic: by symmetry b = -w / 2, and w solves w = C / (1 + exp(w / 2)).
    """
    x, labels = np.array([[0.0], [1.0]]), np.array([0, 1])
    for C in (0.01, 1.0, 50.0):
        fit = solved("svm", x, labels, [C], tol=1e-5)[C]
        rows = np.array([[0.0, 1.0], [1.0, 1.0]])
        w, b = np.linalg.solve(np.eye(2) / (2 * C) + rows.T @ rows, rows.T @ np.array([-1.0, 1.0]))
        assert fit.weights[1, 0].item() == pytest.approx(w, rel=1e-4)
        assert fit.intercepts[1].item() == pytest.approx(b, rel=1e-4)
        fit = solved("logistic", x, labels, [C], tol=1e-5)[C]
        w = brentq(lambda w, C=C: w - C / (1 + np.exp(w / 2)), 0, 100)
        weights, intercepts = as_scikit_learn_has_them(fit, "logistic")
        assert weights.item() == pytest.approx(w, rel=1e-4)
        assert intercepts.item() == pytest.approx(-w / 2, rel=1e-4)


def test_constant_features_leave_the_frequencies_of_the_classes():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for value in (0.0, 0.7):
        fit = solved("logistic", np.full((100, 4), value), labels, [1.0])[1.0]
        chances = torch.softmax(fit.weights @ torch.full((4,), value) + fit.intercepts, 0)
        assert chances.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=1e-5)
        assert torch.isfinite(solved("svm", np.full((100, 4), value), labels, [1.0])[1.0].weights).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_feature_among_others_changes_nothing(kind):
    """Scaled, it is 0 everywhere."""
    x, labels = drawn(150, 12, 3, 1.5)
    fit = solved(kind, x, labels, [1.0])[1.0]
    more = solved(kind, np.insert(x, 5, 0, axis=1), labels, [1.0])[1.0]
    assert more.weights[:, 5].abs().max() < 1e-5
    assert more.objective == pytest.approx(fit.objective, rel=2e-6)


def test_features_of_unequal_scale_are_solved():
    """Rows between 0 and 1000 in some columns and 0.001 in others: the rotation is also the preconditioner."""
    x, labels = drawn(300, 20, 3, 2.0)
    x = x * np.float32(10) ** np.linspace(-3, 3, 20, dtype=np.float32)
    fit = solved("logistic", x, labels, [1.0])[1.0]
    scale = 1 / x.max()
    theirs = scikit_learn("logistic", x * scale, labels, 1 / scale**2)  # the same problem in units that lbfgs likes
    least = objective("logistic", x, labels, 1.0, theirs[0] * scale, theirs[1])
    assert objective("logistic", x, labels, 1.0, fit.weights.numpy(), fit.intercepts.numpy()) < least * (1 + 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_does_not_reach_its_optimum_is_one_line(kind):
    x, labels = drawn(150, 12, 3, 1.5)
    with pytest.raises(UserError, match=r"C = 100.*after 1 iterations the gradient is .* above tol 0\.001; raise"):
        solved(kind, x, labels, [100.0], max_iter=1)


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_many_rows_are_overwritten_rather_than_copied(kind):
    x, _ = drawn(500, 40, 3, 1.5)
    x = torch.from_numpy(np.hstack([x, np.ones((500, 1), np.float32)]))
    axes = solvers.principal(x)
    assert axes.z.data_ptr() == x.data_ptr()
    torch.testing.assert_close(axes.z.T @ axes.z, axes.curvature.diag(), rtol=1e-4, atol=1e-2)
    assert solvers.memory(75_000, 8192, 101) < 2 * 4 * 75_000 * 8192


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_ends_close_to_its_optimum_is_used_with_a_warning(kind, caplog):
    """One iteration too few is no reason to lose hours of work: the objective tells hardly anything of it."""
    x, labels = drawn(400, 30, 4, spread=1.0)
    best = solved(kind, x, labels, [1.0])[1.0]
    tighter = next(
        tol for tol in (3e-4, 1e-4, 3e-5) if solved(kind, x, labels, [1.0], tol)[1.0].iterations > best.iterations
    )
    with caplog.at_level("WARNING"):
        close = solved(kind, x, labels, [1.0], tighter, max_iter=best.iterations)[1.0]
    assert "it is taken as it is" in caplog.text
    assert close.objective == pytest.approx(solved(kind, x, labels, [1.0], 1e-5)[1.0].objective, rel=1e-4)
