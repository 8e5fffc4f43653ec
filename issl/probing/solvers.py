"""Multinomial logistic regression and one-against-rest linear SVMs, each solved to its optimum for many values of C.

Both minimise f = ½ ‖w‖² + C Σ loss over the rows, like scikit-learn's `LogisticRegression` and `LinearSVC(dual=False)`:
the intercepts of a logistic regression are not penalised, those of an SVM are; the loss of an SVM is the squared hinge.

The features are rotated to their principal axes first. There, a diagonal preconditioner is close to the inverse of the
Hessian, and features with more columns than rows lose the columns that no row reaches. Values of C are solved in
ascending order, each from the solution of the one before.

A fit ends when ‖∇f‖ <= tol ‖w‖. As f is strongly convex in w with modulus 1, the relative error of w is then at most
tol, and that of f tol² (Boyd and Vandenberghe, Convex Optimization, 9.1.2). A bound on f alone would not do: with a
small C, f hardly depends on w. Intercepts that are not penalised may have a gradient of tol C / 10 000 a row more.

Features and products with them are float32; sums over rows, line searches and small systems are float64.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from issl.errors import UserError

log = logging.getLogger(__name__)

MEMORY = 10  # steps that L-BFGS remembers
ROWS = 1024  # that are rotated or converted at once
FORCING = 0.1  # conjugate gradients end when the residual, in the preconditioner's norm, has fallen to this
SHARE = 0.75  # of the columns: with fewer active rows, a system of rows is smaller than conjugate gradients are long
ROUNDING = 3e-7  # of a sum of float32 terms, relative to the sum of their sizes
CLOSE = 10  # times tol: such a fit is still used, for its objective is within 100 tol² of the optimum
RESOLVED = 1e-10  # of the largest eigenvalue: what float32 features cannot tell from 0


class Fit(NamedTuple):
    """A fitted classifier: decisions are ``x @ weights.T + intercepts``, the largest wins."""

    weights: Tensor  # (K, d) float32
    intercepts: Tensor  # (K,)
    objective: float  # f; of an SVM, the sum over its classes
    iterations: int


@dataclass(frozen=True)
class Axes:
    """Rows in their principal axes: ``z = x @ directions``, with ``z.T @ z`` diagonal."""

    z: Tensor  # (n, r) float32
    directions: Tensor  # (d, r) float32, orthonormal columns
    curvature: Tensor  # (r,) diagonal of z.T @ z


def memory(n: int, d: int, classes: int) -> int:
    """Bytes that a fit of n rows takes at its peak, about; the features included, which are in memory once."""
    rank = min(n, d + 1)
    axes = 4 * 8 * rank**2  # float64: the matrix, its eigenvectors, and twice as much for LAPACK
    newton = 4 * 16 * n * classes + 18 * rank**2  # scores and the like of all rows; the system of one class of an SVM
    parts = 16 * ROWS * n if n <= d else 4 * ROWS * d
    return 4 * (n + rank) * (d + 1) + max(axes, newton) + parts


def logistic(
    x: Tensor, labels: Tensor, classes: int, Cs: Sequence[float], tol: float, max_iter: int
) -> dict[float, Fit]:
    """Logistic regressions of (n, d) float32 features with labels (n,) below K, for each C. **Overwrites x.**

    Raises UserError if one is not close to its optimum after `max_iter` iterations.
    """
    mean = (sum(rows.double().sum(0) for rows in x.split(ROWS)) / len(x)).float()
    axes = principal(x.sub_(mean))
    start = torch.zeros(classes, axes.z.shape[1] + 1, device=x.device)
    fits = {}
    for C in sorted(set(Cs)):
        # Two classes have one weight vector in scikit-learn, w, and ± w / 2 here, whose penalty is half as large.
        ours = C / 2 if classes == 2 else C
        start, objective, iterations = _logistic(axes, labels, start, ours, tol, max_iter, f"C = {C:.4g}")
        weights = start[:, :-1] @ axes.directions.T
        objective *= C / ours
        fits[C] = Fit(weights, start[:, -1] - weights @ mean, objective, iterations)
    return fits


def svm(x: Tensor, labels: Tensor, classes: int, Cs: Sequence[float], tol: float, max_iter: int) -> dict[float, Fit]:
    """SVMs of (n, d + 1) float32 features, the last a 1, with labels (n,) below K, for each C. **Overwrites x.**

    Raises UserError if one is not close to its optimum after `max_iter` iterations.
    """
    axes = principal(x)
    signs = 2.0 * F.one_hot(labels, classes).float() - 1
    start = torch.zeros(classes, axes.z.shape[1], dtype=torch.float64, device=x.device)
    fits = {}
    for C in sorted(set(Cs)):
        start, objective, iterations = _svm(axes, signs, start, C, tol, max_iter)
        weights = start.float() @ axes.directions.T
        fits[C] = Fit(weights[:, :-1], weights[:, -1], objective, iterations)
    return fits


def principal(x: Tensor) -> Axes:
    """The principal axes of (n, d) rows, without centring them. Overwrites x, unless it has more columns than rows."""
    n, d = x.shape
    if n >= d:
        curvature, directions = torch.linalg.eigh(_product(x.T, x, torch.float32))
        directions = directions.float()
        for rows in x.split(ROWS):
            rows.copy_(rows @ directions)
        return Axes(x, directions, curvature.clamp_(min=0).float())
    squares, sides = torch.linalg.eigh(_product(x, x.T, torch.float64))
    kept = squares > RESOLVED * squares[-1]
    lengths, sides = squares[kept].sqrt(), sides[:, kept]
    directions = torch.cat([(columns.double() @ sides / lengths).float() for columns in x.T.split(ROWS)])
    return Axes((sides * lengths).float(), directions, squares[kept].float())


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b in float64, the sum of products of parts in `dtype`.

    float32 will do where eigenvectors are only directions to rotate to: they are orthonormal, whatever the matrix.
    """
    total = torch.zeros(len(a), b.shape[1], dtype=torch.float64, device=a.device)
    for left, right in zip(a.split(ROWS, dim=1), b.split(ROWS)):
        total += left.to(dtype) @ right.to(dtype)
    return total


# --- logistic regression: L-BFGS -------------------------------------------------------------------------------------


def _logistic(
    axes: Axes, labels: Tensor, theta: Tensor, C: float, tol: float, max_iter: int, name: str
) -> tuple[Tensor, float, int]:
    """L-BFGS on weights and intercepts (K, r + 1), with the preconditioner as its first matrix in every iteration."""
    penalty = torch.ones_like(theta[0])
    penalty[-1] = 0
    curvature = torch.cat([axes.curvature, axes.curvature.new_tensor([len(axes.z)])])
    scores, steps = _decisions(axes.z, theta), []
    loss, residuals, weights = _softmax(scores, labels)
    gradient = _gradient(axes.z, residuals, C) + penalty * theta
    for iteration in range(max_iter + 1):
        squared = _dot(penalty * theta, theta)
        of_weights, of_intercepts = (part.double().norm() for part in (gradient[:, :-1], gradient[:, -1]))
        size = squared.sqrt()
        if of_weights <= tol * size and of_intercepts <= tol * (size + 1e-4 * C * len(labels)):
            return theta, (squared / 2 + C * loss).item(), iteration
        inverse = 1 / (penalty + C * weights[:, None] * curvature)
        direction = -_inverse_times(steps, inverse, gradient)
        along = _decisions(axes.z, direction)
        flat, steep = _dot(penalty * theta, direction), _dot(penalty * direction, direction)

        def slope(t: Tensor, scores=scores, along=along, flat=flat, steep=steep) -> Tensor:
            _, residuals, _ = _softmax(scores + t.float() * along, labels)
            return _resolved(flat + t * steep, C * (residuals * along)[None])

        t = _flattened(slope, _dot(gradient, direction)[None], enough=0.3).float()
        theta, scores, before = theta + t * direction, scores.add_(along, alpha=t.item()), gradient
        loss, residuals, weights = _softmax(scores, labels)
        gradient = _gradient(axes.z, residuals, C) + penalty * theta
        change = gradient - before
        if (product := t * _dot(direction, change)) > 0:
            steps = [*steps[-MEMORY + 1 :], (t * direction, change, product)]
    _accept(name, of_weights.hypot(of_intercepts) / size, tol, max_iter)
    return theta, (squared / 2 + C * loss).item(), max_iter


def _decisions(z: Tensor, theta: Tensor) -> Tensor:
    return torch.addmm(theta[:, -1], z, theta[:, :-1].T)


def _gradient(z: Tensor, residuals: Tensor, C: float) -> Tensor:
    """Of C Σ loss by weights and intercepts, (K, r + 1)."""
    intercepts = residuals.sum(0, dtype=torch.float64).float()
    return C * torch.cat([residuals.T @ z, intercepts[:, None]], 1)


def _softmax(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of scores (n, K): the loss of all rows; its derivative (n, K); the mean second derivative of each class, (K,)."""
    logs = F.log_softmax(scores, 1)
    loss = F.nll_loss(logs.double(), labels, reduction="sum")
    residuals = logs.exp_()
    weights = (residuals - residuals.square()).mean(0).clamp(min=1e-8)
    residuals.scatter_add_(1, labels[:, None], residuals.new_full((len(labels), 1), -1))
    return loss, residuals, weights


def _inverse_times(steps: Sequence[tuple[Tensor, Tensor, Tensor]], inverse: Tensor, gradient: Tensor) -> Tensor:
    """L-BFGS's two loops (Nocedal and Wright, algorithm 7.4): approximate inverse Hessian times gradient."""
    result, parts = gradient.clone(), []
    for step, change, product in reversed(steps):
        parts.append((_dot(step, result) / product).float())
        result -= parts[-1] * change
    result *= inverse
    if steps:
        _, change, product = steps[-1]
        result *= (product / _dot(change, inverse * change)).float()
    for (step, change, product), part in zip(steps, reversed(parts)):
        result += (part - (_dot(change, result) / product).float()) * step
    return result


# --- SVM: Newton's method --------------------------------------------------------------------------------------------


def _svm(axes: Axes, signs: Tensor, weights: Tensor, C: float, tol: float, max_iter: int) -> tuple[Tensor, float, int]:
    """Newton's method on weights (K, r) float64, each class by itself; classes that have reached their optimum rest.

    f is quadratic as long as the same rows are active, i.e. within the margin (Keerthi and DeCoste, 2005).
    """
    z, weights = axes.z, weights.clone()
    scores = z @ weights.float().T
    left = torch.arange(len(weights), device=z.device)
    for iteration in range(max_iter + 1):
        sign, score, weight = signs[:, left], scores[:, left], weights[left]
        slack = (1 - sign * score).clamp_(min=0)
        gradient = weight - 2 * C * ((sign * slack).T @ z)
        errors, sizes = gradient.norm(dim=1), weight.norm(dim=1)
        few = slack.count_nonzero(0) < SHARE * z.shape[1]
        # float32 may not resolve the gradients of these:
        for number in (few & (errors > tol * sizes)).nonzero()[:, 0].tolist():
            rows = slack[:, number].nonzero()[:, 0]
            gradient[number] = _gradient_of_rows(z[rows].double(), sign[rows, number].double(), weight[number], C)
            errors[number] = gradient[number].norm()
        open_ = errors > tol * sizes
        if not open_.any():
            return weights, _svm_objective(weights, signs, scores, C), iteration
        left, sign, score, weight = left[open_], sign[:, open_], score[:, open_], weight[open_]
        direction = _newton(axes, slack[:, open_] > 0, sign, weight, gradient[open_], C)
        along = z @ direction.float().T
        flat, steep = ((other * direction).sum(1) for other in (weight, direction))

        def slope(t: Tensor, sign=sign, score=score, along=along, flat=flat, steep=steep) -> Tensor:
            slack = (1 - sign * (score + t.float() * along)).clamp_(min=0)
            return _resolved(flat + t * steep, -2 * C * (slack * sign * along).T)

        t = _flattened(slope, (gradient[open_] * direction).sum(1), enough=0.1)
        weights[left] = weight + t[:, None] * direction
        scores[:, left] = score + t.float() * along
    _accept(f"C = {C:.4g}, {len(left)} of {len(weights)} classes", (errors / sizes).max(), tol, max_iter)
    return weights, _svm_objective(weights, signs, scores, C), max_iter


def _svm_objective(weights: Tensor, signs: Tensor, scores: Tensor, C: float) -> float:
    losses = (1 - signs * scores).clamp_(min=0).square().sum(dtype=torch.float64)
    return (weights.square().sum() / 2 + C * losses).item()


def _gradient_of_rows(z: Tensor, signs: Tensor, weights: Tensor, C: float) -> Tensor:
    """The gradient (r,) where these rows (m, r) are the active ones."""
    return weights - 2 * C * (signs * (1 - signs * (z @ weights)).clamp_(min=0)) @ z


def _newton(axes: Axes, active: Tensor, signs: Tensor, weights: Tensor, gradient: Tensor, C: float) -> Tensor:
    """Newton's direction of each class (P, r): exact with few active rows, else by conjugate gradients.

    The solution of the active rows is z.T @ a with (z @ z.T + 1 / 2C) a = signs, one system of rows.
    """
    few = active.sum(0) < SHARE * axes.z.shape[1]
    direction = torch.empty_like(gradient)
    for number in few.nonzero()[:, 0].tolist():
        rows = active[:, number].nonzero()[:, 0]
        z = axes.z[rows].double()
        system = z @ z.T
        system.diagonal().add_(1 / (2 * C))
        solution = torch.cholesky_solve(signs[rows, number, None].double(), torch.linalg.cholesky(system))
        direction[number] = solution[:, 0] @ z - weights[number]
    many = (~few).nonzero()[:, 0]
    if len(many):
        direction[many] = _conjugate_gradients(axes, active[:, many].float(), -gradient[many].float(), C).double()
    return direction


def _conjugate_gradients(axes: Axes, active: Tensor, right: Tensor, C: float) -> Tensor:
    """Solves (1 + 2C z.T @ active @ z) x = right for each of P systems, (n, P) and (P, r) -> (P, r), to `FORCING`."""
    inverse = 1 / (1 + 2 * C * active.mean(0)[:, None] * axes.curvature)
    found, residual = torch.zeros_like(right), right.clone()
    along = inverse * residual
    size = (residual * along).sum(1)
    enough, left = FORCING**2 * size, torch.arange(len(right), device=right.device)
    for _ in range(axes.z.shape[1]):
        each = along[left]
        image = each + 2 * C * ((active[:, left] * (axes.z @ each.T)).T @ axes.z)
        step = (size[left] / (each * image).sum(1))[:, None]
        found[left] += step * each
        residual[left] -= step * image
        steepest = inverse[left] * residual[left]
        now = (residual[left] * steepest).sum(1)
        along[left] = steepest + (now / size[left])[:, None] * each
        size[left] = now
        left = left[now > enough[left]]
        if not len(left):
            break
    return found


# --- both ------------------------------------------------------------------------------------------------------------


def _flattened(slope: Callable[[Tensor], Tensor], first: Tensor, enough: float) -> Tensor:
    """Step lengths (P,) where the slopes of P convex functions have fallen to a part of their first ones (P,).

    Starts from 1, doubles until the slope is positive, then narrows the bracket by secants, kept within it.
    """
    t, low, high = torch.ones_like(first), torch.zeros_like(first), torch.full_like(first, float("inf"))
    at_low, at_high = first.clone(), torch.zeros_like(first)
    for _ in range(30):
        here = slope(t)
        done = here.abs() <= enough * first.abs()
        if done.all():
            break
        rising = here > 0
        low, at_low = torch.where(rising, low, t), torch.where(rising, at_low, here)
        high, at_high = torch.where(rising, t, high), torch.where(rising, here, at_high)
        secant = low - at_low * (high - low) / (at_high - at_low)
        margin = 0.1 * (high - low)
        inside = torch.minimum(torch.maximum(secant, low + margin), high - margin)
        t = torch.where(done, t, torch.where(high.isinf(), 2 * t, inside))
    return t


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b).sum()


def _resolved(value: Tensor, terms: Tensor) -> Tensor:
    """value + terms.sum(1), (P,) float64; 0 where float32 terms (P, ...) do not tell it from 0."""
    terms = terms.flatten(1)
    total = value + terms.sum(1, dtype=torch.float64)
    return total.where(total.abs() > ROUNDING * terms.abs().sum(1, dtype=torch.float64), 0)


def _accept(what: str, error: Tensor, tol: float, max_iter: int) -> None:
    """Warns of a fit that ended short of its optimum. Raises UserError if it is not even close to it."""
    short = f"{what}: after {max_iter} iterations the gradient is {error:.1e} times the weights, above tol {tol:g}"
    if error > CLOSE * tol:
        raise UserError(f"probes: {short}; raise the probe's max_iter or tol")
    log.warning("%s; as float32 may resolve no more, it is taken as it is", short)
