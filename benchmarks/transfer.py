"""The classifiers of transfer for ten values of C, beside scikit-learn's.

First both use one thread, and the figures are CPU seconds, whatever else runs on the machine. Then, with more and wider
features, ours uses all cores and scikit-learn one, and the figures are seconds.

scikit-learn's logistic regression gets the tolerance with which its objectives come near the smallest, within 3e-4; its
SVM would then take minutes for one large C, so it keeps the protocol's. The objectives are among the details.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import loguniform
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Row, compared, slope, take_turns
from benchmarks.pretraining import cores
from issl.probing import solvers
from issl.spec.probe import Logistic

LEAST = 5
N, DIM, CLASSES = 4_000, 1024, 10
LARGE = 25_000, 2048  # images and dimensions
GROWTH = (1_000, 2_000, 4_000, 8_000, 16_000)
NOISE = 4.0  # with this, test accuracies lie between 80 and 97 %
TEST = 3_000
ROUNDS = 3  # at most: a round of both contenders takes minutes
PROTOCOL = Logistic(kind="logistic")  # for its values of C, its tolerance and its iterations
ALIKE = 1e-4  # relative: how far above scikit-learn's objective ours may be

Kind = Literal["logistic", "svm"]
LOGISTIC = Row("transfer_logistic", "s", f"ratio >= {LEAST}", "scikit-learn's LogisticRegression, tol 1e-6")
MACHINE = replace(LOGISTIC, name="transfer_svm", beside="scikit-learn's LinearSVC, tol 1e-3")
BESIDE: dict[Kind, Row] = {"logistic": LOGISTIC, "svm": MACHINE}
NAMES = tuple(f"{row.name}{size}" for size in ("", "_large") for row in BESIDE.values())
ROWS = 1024  # that are drawn or converted at once


@dataclass(frozen=True)
class Contest:
    """The seconds of both contenders, and of each contender the objective and the test accuracy for each C."""

    ours: list[float]
    peer: list[float]
    found: dict[str, dict[float, tuple[float, float]]]

    def details(self) -> dict[str, Any]:
        """Of a row."""
        return {
            "largest_relative_difference_of_objectives": {
                name: max(self.found[name][C][0] / self.found["ours"][C][0] - 1 for C in self.found[name])
                for name in self.found.keys() - {"ours"}
            },
            "test_accuracies": {name: {f"{C:.2g}": at[C][1] for C in sorted(at)} for name, at in self.found.items()},
        }


def logistic(rounds: int) -> Iterator[Row]:
    """CPU seconds of one thread for all values of C. Raises RuntimeError where our objective is larger."""
    yield on_one_core("logistic", min(rounds, ROUNDS))


def svm(rounds: int) -> Iterator[Row]:
    """As `logistic`."""
    yield on_one_core("svm", min(rounds, ROUNDS))


def large(rounds: int) -> Iterator[Row]:
    """Seconds on all cores beside scikit-learn's on one, once each, for as many images as a small data set has."""
    for kind, row in BESIDE.items():
        yield on_all_cores(kind, *LARGE, f"{row.name}_large")


def on_one_core(kind: Kind, rounds: int, n: int = N, growth: Sequence[int] = GROWTH) -> Row:
    """The row with the CPU seconds of both, and ours for other numbers of images."""
    x, labels = drawn(max(n, *growth) + TEST, DIM)
    part, new = (x[:n], labels[:n]), (x[-TEST:], labels[-TEST:])
    timed = partial(_timed, clock=time.process_time, threads=1)
    contest = beside_scikit_learn(kind, rounds, part, new, timed, timed)
    loose = None
    if _tol(kind) < PROTOCOL.tol:
        loose = timed("protocol", contest.found, new, partial(_scikit_learn, kind, *part, PROTOCOL.tol))
    seconds = [timed("", {}, new, partial(_ours, kind, x[:size], labels[:size])) for size in growth]
    more = {"sizes": list(growth), "figures": seconds, "slope": slope(growth, seconds)}
    return _row(BESIDE[kind].name, kind, contest, peer_with_the_protocols_tolerance=loose, **more)


def on_all_cores(kind: Kind, n: int, dim: int, name: str) -> Row:
    """The row with the seconds of both, once, scikit-learn's on one core."""
    x, labels = drawn(n + TEST, dim)
    part, new = (x[:n], labels[:n]), (x[n:], labels[n:])
    ours = partial(_timed, clock=time.perf_counter, threads=cores())
    peer = partial(_timed, clock=time.perf_counter, threads=1)
    contest = beside_scikit_learn(kind, None, part, new, ours, peer)
    return _row(name, kind, contest, images=n, dim=dim, cores=cores())


def beside_scikit_learn(
    kind: Kind,
    rounds: int | None,
    part: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    time_ours: Callable[..., float],
    time_peer: Callable[..., float],
) -> Contest:
    """Both contenders on the same images, in turns; once and without a turn to warm up where there are no rounds.

    Raises RuntimeError where our objective is larger.
    """
    found: dict[str, dict[float, tuple[float, float]]] = {}
    turns = (
        partial(time_ours, "ours", found, new, partial(_ours, kind, *part)),
        partial(time_peer, "scikit-learn", found, new, partial(_scikit_learn, kind, *part, _tol(kind))),
    )
    ours, peer = take_turns(*turns, rounds=rounds) if rounds else [[turn()] for turn in turns]
    above = {C: found["ours"][C][0] / found["scikit-learn"][C][0] - 1 for C in found["ours"]}
    if max(above.values()) > ALIKE:
        raise RuntimeError(f"transfer, {kind}: objectives above scikit-learn's by {above}")
    return Contest(ours, peer, found)


def drawn(n: int, dim: int) -> tuple[Tensor, Tensor]:
    """Features in [0, 1] of n images, not negative and correlated, as an encoder gives them; classes take turns."""
    draws = torch.Generator().manual_seed(1)
    latent, labels = 512, torch.arange(n) % CLASSES
    scale = torch.arange(1, latent + 1) ** -0.5
    centres = torch.randn(CLASSES, latent, generator=draws)
    hidden = (centres[labels] + NOISE * torch.randn(n, latent, generator=draws)) * scale
    z = hidden @ torch.randn(latent, dim, generator=draws) / 2
    for rows in z.split(ROWS):
        rows += 0.3 * torch.randn(rows.shape, generator=draws)
    z = z.clamp_(min=0)
    return z.div_(z.amax(0)), labels


def values_of_c() -> list[float]:
    """Those of the protocol with seed 0."""
    draws = loguniform(PROTOCOL.lowest, PROTOCOL.highest).rvs(PROTOCOL.draws, random_state=np.random.RandomState(0))
    return draws.tolist()


# --- the contenders: for each C, weights and intercepts --------------------------------------------------------------

Fits = dict[float, tuple[float, Tensor, Tensor]]  # objective, weights, intercepts


def _ours(kind: Kind, x: Tensor, labels: Tensor) -> Fits:
    if kind == "svm":
        own, solve = torch.cat([x, torch.ones(len(x), 1)], 1), solvers.svm
    else:
        own, solve = x.clone(), solvers.logistic
    fits = solve(own, labels, CLASSES, values_of_c(), PROTOCOL.tol, PROTOCOL.max_iter)
    return {C: (fit.objective, fit.weights, fit.intercepts) for C, fit in fits.items()}


def _scikit_learn(kind: Kind, x: Tensor, labels: Tensor, tol: float) -> Fits:
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


def objective(kind: Kind, x: Tensor, labels: Tensor, C: float, weights: Tensor, intercepts: Tensor) -> float:
    """½ ‖w‖² + C Σ loss, in float64."""
    decisions = torch.cat([rows.double() @ weights.T for rows in x.split(ROWS)]) + intercepts
    if kind == "logistic":
        return (weights.square().sum() / 2 + C * F.cross_entropy(decisions, labels, reduction="sum")).item()
    slack = (1 - (2 * F.one_hot(labels, CLASSES) - 1) * decisions).clamp(min=0)
    return ((weights.square().sum() + intercepts.square().sum()) / 2 + C * slack.square().sum()).item()


def _timed(
    name: str,
    found: dict[str, Any],
    new: tuple[Tensor, Tensor],
    fit: Callable[[], Fits],
    clock: Callable[[], float],
    threads: int,
) -> float:
    """Seconds of all fits on so many threads; puts objectives and test accuracies (%) into `found`."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            started = clock()
            fits = fit()
            seconds = clock() - started
    finally:
        torch.set_num_threads(before)
    z, labels = new
    found[name] = {
        C: (value, 100 * ((z @ weights.T + intercepts).argmax(1) == labels).double().mean().item())
        for C, (value, weights, intercepts) in fits.items()
    }
    return seconds


def _tol(kind: Kind) -> float:
    """Of scikit-learn."""
    return 1e-6 if kind == "logistic" else PROTOCOL.tol


def _row(name: str, kind: Kind, contest: Contest, **details: Any) -> Row:
    row = replace(BESIDE[kind], name=name)
    return compared(row, contest.ours, contest.peer, LEAST, **contest.details(), **details)
