"""Transfer with scikit-learn's classifiers: logistic regression and a linear SVM on features scaled to [0, 1]."""

import logging
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import loguniform
from sklearn.base import ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, RandomizedSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC

from issl.probing.scores import Accuracies, Score, named, of_one
from issl.probing.subsets import hold_out
from issl.probing.task import Task
from issl.spec.probe import SVM, Logistic, ProbeGrid

log = logging.getLogger(__name__)


def evaluate(grid: ProbeGrid, task: Task) -> list[Score]:
    """Scores of each classifier with C = 1, and with the best C on a stratified held-out part of the training rows.

    The second is refitted on all training rows. Only it has held-out scores: the first was not selected. `task.threads`
    values of C are tried in parallel. Raises UserError if a class is too small to hold out images.
    """
    z = task.features(torch.arange(len(task.labels))).numpy()
    return [score for probe in grid.probes for score in named(_evaluate(probe, task, z), probe, grid)]


def _evaluate(probe: Logistic | SVM, task: Task, z: np.ndarray) -> Iterator[Score]:
    (z_train, y_train), (z_test, y_test) = ((z[rows], task.labels[rows]) for rows in (task.train, task.test))
    _, left = hold_out(y_train, np.arange(len(y_train)), probe.holdout, task.seed)
    fold = np.full(len(y_train), -1)
    fold[left] = 0
    plain = pipeline(probe, task.seed)
    step = plain.steps[-1][0]
    search = RandomizedSearchCV(
        plain,
        {f"{step}__C": loguniform(probe.lowest, probe.highest)},
        n_iter=probe.draws,
        scoring="accuracy",
        cv=PredefinedSplit(fold),
        random_state=task.seed,
        n_jobs=task.threads,
        error_score="raise",
    )
    for name, classifier in (("C = 1", plain), ("tuned", search)):
        started = time.monotonic()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            classifier.fit(z_train, y_train)
        for warning in {str(each.message).splitlines()[0] for each in caught}:
            log.warning("%s, %s: %s", probe.kind, name, warning)
        held_out = None
        if classifier is search:
            name = f"tuned, C = {search.best_params_[f'{step}__C']:.4g}"
            held_out = accuracies(
                clone(search.best_estimator_).fit(z_train[fold < 0], y_train[fold < 0]), z_train[left], y_train[left]
            )
        score = Score(name, len(y_train), len(y_test), accuracies(classifier, z_test, y_test), held_out)
        log.info("%s, %s, %.0f s", probe.kind, score, time.monotonic() - started)
        yield score


def pipeline(probe: Logistic | SVM, seed: int) -> Pipeline:
    """Scaler and classifier with C = 1; both are fitted on the same rows."""
    shared = {"C": 1.0, "tol": probe.tol, "max_iter": probe.max_iter, "random_state": seed}
    if isinstance(probe, SVM):
        return make_pipeline(MinMaxScaler(), LinearSVC(dual=False, **shared))
    return make_pipeline(MinMaxScaler(), LogisticRegression(solver="lbfgs", **shared))


def accuracies(classifier: ClassifierMixin, z: np.ndarray, labels: np.ndarray) -> Accuracies:
    """Accuracies of a fitted classifier."""
    decisions = classifier.decision_function(z)
    if decisions.ndim == 1:  # two classes
        decisions = np.stack([-decisions, decisions], 1)
    return of_one(torch.from_numpy(decisions), torch.from_numpy(labels))
