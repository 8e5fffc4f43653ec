"""Transfer by scikit-learn's classifiers: logistic regression and a linear SVM on features scaled to [0, 1]."""

import logging
import time
import warnings
from typing import Any

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

from issl.probing.heads import hold_out
from issl.probing.scores import of_one, score_row
from issl.spec.protocol import SVM, Logistic

log = logging.getLogger(__name__)


def evaluate(
    protocol: Logistic | SVM, seed: int, z: np.ndarray, labels: np.ndarray, train: slice, test: slice, jobs: int
) -> list[dict[str, Any]]:
    """Scores of the classifier with C = 1, and with the C that is best on a stratified part of the training rows.

    `z` (N, dim) float32 and `labels` (N,) are those of all rows, `train` and `test` the rows of the splits. The second
    classifier is refitted on all training rows, and is the only one that has held-out scores: nothing chose the first.
    `jobs` values of C are tried at once. Raises UserError where a class is too small to be held out.
    """
    (z_train, y_train), (z_test, y_test) = ((z[rows], labels[rows]) for rows in (train, test))
    _, left = hold_out(y_train, np.arange(len(y_train)), protocol.holdout, seed)
    fold = np.full(len(y_train), -1)
    fold[left] = 0
    plain = pipeline(protocol, seed)
    step = plain.steps[-1][0]
    search = RandomizedSearchCV(
        plain,
        {f"{step}__C": loguniform(protocol.lowest, protocol.highest)},
        n_iter=protocol.draws,
        scoring="accuracy",
        cv=PredefinedSplit(fold),
        random_state=seed,
        n_jobs=jobs,
        error_score="raise",
    )
    rows = []
    for name, classifier in (("C = 1", plain), ("tuned", search)):
        started = time.monotonic()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ConvergenceWarning)
            classifier.fit(z_train, y_train)
        for warning in {str(each.message).splitlines()[0] for each in said}:
            log.warning("%s, %s: %s", protocol.kind, name, warning)
        held_out = None
        if classifier is search:
            name = f"tuned, C = {search.best_params_[f'{step}__C']:.4g}"
            held_out = accuracies(
                clone(search.best_estimator_).fit(z_train[fold < 0], y_train[fold < 0]), z_train[left], y_train[left]
            )
        tested = accuracies(classifier, z_test, y_test)
        rows.append(score_row(name, len(y_train), len(y_test), tested, held_out))
        log.info("%s, %s: top-1 %.2f %%, %.0f s", protocol.kind, name, 100 * tested["top1"], time.monotonic() - started)
    return rows


def pipeline(protocol: Logistic | SVM, seed: int) -> Pipeline:
    """Scaler and classifier, C = 1. The scaler is fitted on what the classifier is fitted on."""
    shared = {"C": 1.0, "tol": protocol.tol, "max_iter": protocol.max_iter, "random_state": seed}
    if isinstance(protocol, SVM):
        return make_pipeline(MinMaxScaler(), LinearSVC(dual=False, **shared))
    return make_pipeline(MinMaxScaler(), LogisticRegression(solver="lbfgs", **shared))


def accuracies(classifier: ClassifierMixin, z: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracies of a fitted classifier."""
    decisions = classifier.decision_function(z)
    if decisions.ndim == 1:  # two classes
        decisions = np.stack([-decisions, decisions], 1)
    return of_one(torch.from_numpy(decisions), torch.from_numpy(labels))
