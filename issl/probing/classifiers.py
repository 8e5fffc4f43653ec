"""Transfer: logistic regression and a linear SVM on features scaled to [0, 1], as scikit-learn defines them."""

import logging
import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import loguniform
from torch import Tensor

from issl.probing import solvers
from issl.probing.scores import Accuracies, Score, Tally, named
from issl.probing.subsets import hold_out
from issl.probing.task import Task
from issl.spec.probe import SVM, Logistic, ProbeGrid

log = logging.getLogger(__name__)

ROWS = 8192  # that are read and scored at once


def evaluate(grid: ProbeGrid, task: Task) -> list[Score]:
    """Scores of each classifier with C = 1, and with the best C on a stratified held-out part of the training rows.

    The second is refitted on all training rows. Only it has held-out scores: the first was not selected.
    Raises UserError if a class is too small to hold out images, or if a fit does not reach its optimum.
    """
    return [score for probe in grid.probes for score in named(_evaluate(probe, task), probe, grid)]


def _evaluate(probe: Logistic | SVM, task: Task) -> Iterator[Score]:
    kept, left = hold_out(task.labels[task.train], task.train, probe.holdout, task.seed)
    tried = loguniform(probe.lowest, probe.highest).rvs(probe.draws, random_state=np.random.RandomState(task.seed))
    searched = fitted(probe, task, kept, tried.tolist())
    held_out = {C: accuracies(searched[C], task, left) for C in tried.tolist()}
    best = max(held_out, key=lambda C: held_out[C]["top-1"])  # of equal ones the first
    final = fitted(probe, task, task.train, [1.0, best])
    for name, C, selected_by in (("C = 1", 1.0, None), (f"tuned, C = {best:.4g}", best, held_out[best])):
        found = accuracies(final[C], task, task.test)
        score = Score(name, len(task.train), len(task.test), found, selected_by)
        log.info("%s, %s", probe.kind, score)
        yield score


class Classifier:
    """Decisions of a fitted classifier on features as they are: the scaling is that of its training rows."""

    def __init__(self, fit: solvers.Fit, scaling: tuple[Tensor, Tensor], present: Tensor, classes: int):
        self.fit, (self.low, self.range) = fit, scaling
        self.present, self.classes = present, classes

    def __call__(self, z: Tensor) -> Tensor:
        """Features (n, d) -> decisions (n, classes); a class without training rows is never chosen."""
        decisions = z.new_full((len(z), self.classes), -float("inf"))
        scaled = (z - self.low) / self.range
        decisions[:, self.present] = torch.addmm(self.fit.intercepts, scaled, self.fit.weights.T)
        return decisions


def fitted(probe: Logistic | SVM, task: Task, rows: np.ndarray, Cs: list[float]) -> dict[float, Classifier]:
    """Classifiers on some rows, for each C. Their features are in memory once, as float32."""
    started = time.monotonic()
    svm = isinstance(probe, SVM)
    x, scaling = scaled(task, rows, extra=svm)
    present, labels = torch.from_numpy(task.labels[rows]).to(task.device).unique(return_inverse=True)
    need = solvers.memory(len(rows), task.features.dim, len(present))
    log.info("%s: %d rows, %d values of C; up to %.1f GB", probe.kind, len(rows), len(Cs), need / 1e9)
    solve = solvers.svm if svm else solvers.logistic
    fits = solve(x, labels, len(present), Cs, probe.tol, probe.max_iter)
    log.info("%s: solved in %.0f s", probe.kind, time.monotonic() - started)
    return {C: Classifier(fit, scaling, present, task.classes) for C, fit in fits.items()}


def scaled(task: Task, rows: np.ndarray, extra: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Features (n, d) of some rows, each scaled to [0, 1]; the smallest value of each, and its range, 1 if that is 0.

    With `extra`, a last column of 1 is added.
    """
    dim = task.features.dim
    x = torch.ones(len(rows), dim + extra, device=task.device)
    places = task.features.place(torch.from_numpy(rows)).split(ROWS)
    for part, place in zip(x.split(ROWS), places):
        part[:, :dim] = task.features(place)
    low, high = x[:, :dim].amin(0), x[:, :dim].amax(0)
    size = high - low
    size[size == 0] = 1
    x[:, :dim].sub_(low).div_(size)
    return x, (low, size)


def accuracies(classifier: Classifier, task: Task, rows: np.ndarray) -> Accuracies:
    """Accuracies of a fitted classifier on some rows."""
    tally = Tally(1, task.classes, task.device)
    for part in torch.from_numpy(rows).split(ROWS):
        labels = torch.from_numpy(task.labels[part.numpy()]).to(task.device)
        tally.add(classifier(task.features(task.features.place(part)))[:, None], labels)
    return tally.scores()[0]
