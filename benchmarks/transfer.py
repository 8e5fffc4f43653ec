"""The classifiers of transfer for ten values of C, beside scikit-learn's.

The figures are CPU seconds, so set OMP_NUM_THREADS=1: what one thread takes, whatever else runs on the machine.

scikit-learn's logistic regression gets the tolerance with which its objectives come near the smallest, within 3e-4; its
SVM would then take minutes for one large C, so it keeps the protocol's. The objectives are among the details.
"""

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import loguniform
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Row, compared, slope, take_turns
from issl.probing import solvers
from issl.spec.probe import Logistic

LEAST = 5
N, DIM, CLASSES = 4_000, 1024, 10
GROWTH = (1_000, 2_000, 4_000, 8_000, 16_000)
NOISE = 4.0  # with this, test accuracies lie between 80 and 97 %
TEST = 3_000
ROUNDS = 3  # at most: a round of both contenders takes minutes
PROTOCOL = Logistic(kind="logistic")  # for its values of C, its tolerance and its iterations
ALIKE = 1e-4  # relative: how far above scikit-learn's objective ours may be

LOGISTIC = Row("transfer_logistic", "s", f"ratio >= {LEAST}", "scikit-learn's LogisticRegression, tol 1e-6")
MACHINE = replace(LOGISTIC, name="transfer_svm", beside="scikit-learn's LinearSVC, tol 1e-3")
NAMES = (LOGISTIC.name, MACHINE.name)


def logistic(rounds: int, n: int = N, growth: Sequence[int] = GROWTH) -> list[Row]:
    """CPU seconds of one thread for all values of C. Raises RuntimeError where our objective is larger."""
    return [beside_scikit_learn(LOGISTIC, min(rounds, ROUNDS), n, growth)]


def svm(rounds: int, n: int = N, growth: Sequence[int] = GROWTH) -> list[Row]:
    """As `logistic`."""
    return [beside_scikit_learn(MACHINE, min(rounds, ROUNDS), n, growth)]


def beside_scikit_learn(row: Row, rounds: int, n: int, growth: Sequence[int]) -> Row:
    """The row with the seconds of both, and ours for other numbers of images."""
    kind = row.name.removeprefix("transfer_")
    x, labels = drawn(max(n, *growth) + TEST)
    part, new = (x[:n], labels[:n]), (x[-TEST:], labels[-TEST:])
    found: dict[str, dict[float, tuple[float, float]]] = {}  # by contender and C: objective, accuracy
    tol = 1e-6 if kind == "logistic" else PROTOCOL.tol
    ours, peer = take_turns(
        partial(_timed, "ours", found, new, partial(_ours, kind, *part)),
        partial(_timed, "scikit-learn", found, new, partial(_scikit_learn, kind, *part, tol)),
        rounds=rounds,
    )
    above = {C: found["ours"][C][0] / found["scikit-learn"][C][0] - 1 for C in found["ours"]}
    if max(above.values()) > ALIKE:
        raise RuntimeError(f"{row.name}: objectives above scikit-learn's by {above}")
    loose = None
    if tol < PROTOCOL.tol:
        loose = _timed("protocol", found, new, partial(_scikit_learn, kind, *part, PROTOCOL.tol))
    seconds = [_timed("", {}, new, partial(_ours, kind, x[:size], labels[:size])) for size in growth]
    return compared(
        row,
        ours,
        peer,
        LEAST,
        peer_with_the_protocols_tolerance=loose,
        largest_relative_difference_of_objectives={
            name: max(found[name][C][0] / found["ours"][C][0] - 1 for C in found[name])
            for name in found.keys() - {"ours"}
        },
        test_accuracies={name: {f"{C:.2g}": at[C][1] for C in sorted(at)} for name, at in found.items()},
        sizes=list(growth),
        figures=seconds,
        slope=slope(growth, seconds),
    )


def drawn(n: int) -> tuple[Tensor, Tensor]:
    """Features in [0, 1] of n images, not negative and correlated, as an encoder gives them; classes take turns."""
    draws = torch.Generator().manual_seed(1)
    latent, labels = 512, torch.arange(n) % CLASSES
    scale = torch.arange(1, latent + 1) ** -0.5
    centres = torch.randn(CLASSES, latent, generator=draws)
    hidden = (centres[labels] + NOISE * torch.randn(n, latent, generator=draws)) * scale
    z = hidden @ torch.randn(latent, DIM, generator=draws) / 2 + 0.3 * torch.randn(n, DIM, generator=draws)
    z = z.clamp_(min=0)
    return z / z.amax(0), labels


def values_of_c() -> list[float]:
    """Those of the protocol with seed 0."""
    draws = loguniform(PROTOCOL.lowest, PROTOCOL.highest).rvs(PROTOCOL.draws, random_state=np.random.RandomState(0))
    return draws.tolist()


# --- the contenders: for each C, weights and intercepts --------------------------------------------------------------

Fits = dict[float, tuple[float, Tensor, Tensor]]  # objective, weights, intercepts


def _ours(kind: str, x: Tensor, labels: Tensor) -> Fits:
    if kind == "svm":
        own, solve = torch.cat([x, torch.ones(len(x), 1)], 1), solvers.svm
    else:
        own, solve = x.clone(), solvers.logistic
    fits = solve(own, labels, CLASSES, values_of_c(), PROTOCOL.tol, PROTOCOL.max_iter)
    return {C: (fit.objective, fit.weights, fit.intercepts) for C, fit in fits.items()}


def _scikit_learn(kind: str, x: Tensor, labels: Tensor, tol: float) -> Fits:
    fits = {}
    for C in values_of_c():
        shared = {"C": C, "tol": tol, "max_iter": PROTOCOL.max_iter}
        model = LinearSVC(dual=False, **shared) if kind == "svm" else LogisticRegression(**shared)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x.numpy(), labels.numpy())
        weights, intercepts = (torch.from_numpy(np.float64(part)) for part in (model.coef_, model.intercept_))
        fits[C] = (objective(kind, x, labels, C, weights, intercepts), weights.float(), intercepts.float())
    return fits


def objective(kind: str, x: Tensor, labels: Tensor, C: float, weights: Tensor, intercepts: Tensor) -> float:
    """½ ‖w‖² + C Σ loss, in float64."""
    decisions = x.double() @ weights.T + intercepts
    if kind == "logistic":
        return (weights.square().sum() / 2 + C * F.cross_entropy(decisions, labels, reduction="sum")).item()
    slack = (1 - (2 * F.one_hot(labels, CLASSES) - 1) * decisions).clamp(min=0)
    return ((weights.square().sum() + intercepts.square().sum()) / 2 + C * slack.square().sum()).item()


def _timed(name: str, found: dict[str, Any], new: tuple[Tensor, Tensor], fit: Callable[[], Fits]) -> float:
    """CPU seconds of all fits; puts objectives and test accuracies (%) into `found`."""
    started = time.process_time()
    fits = fit()
    seconds = time.process_time() - started
    z, labels = new
    found[name] = {
        C: (value, 100 * ((z @ weights.T + intercepts).argmax(1) == labels).double().mean().item())
        for C, (value, weights, intercepts) in fits.items()
    }
    return seconds


if __name__ == "__main__":
    print(json.dumps([row.record() for row in (*logistic(1), *svm(1))], indent=2))
