"""Transfer: scikit-learn called through the protocol is scikit-learn called plainly."""

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import ParameterSampler, train_test_split
from sklearn.svm import LinearSVC

from issl.errors import UserError
from issl.probing import classifiers
from issl.spec.protocol import SVM, Logistic

TRAIN, TEST = slice(0, 160), slice(160, 460)


@pytest.fixture(scope="module")
def blobs():
    """Features of six overlapping classes of unequal size on unequal scales, 160 to train on and 300 to test on."""
    draws = np.random.default_rng(1)
    labels = np.concatenate([draws.permutation(np.repeat(np.arange(6), (10, 20, 30, 40, 50, 10))), np.arange(300) % 6])
    z = draws.normal(size=(6, 9))[labels] + draws.normal(size=(460, 9)) * 1.2
    return (z * 10.0 ** np.arange(-4, 5)).astype(np.float32), labels


def plainly(kind, C):
    if kind == "svm":
        return LinearSVC(C=C, dual=False, tol=1e-3, random_state=0)
    return LogisticRegression(C=C, solver="lbfgs", max_iter=1000, tol=1e-3, random_state=0)


def scaled(z, fitted_on):
    low, high = z[fitted_on].min(0), z[fitted_on].max(0)
    return (z - low) / (high - low)


@pytest.mark.parametrize("protocol", [Logistic(kind="logistic"), SVM(kind="svm")], ids=lambda protocol: protocol.kind)
def test_both_classifiers_equal_a_plain_loop(blobs, protocol):
    z, labels = blobs
    fixed, tuned = classifiers.evaluate(protocol, 0, z, labels, TRAIN, TEST, jobs=1)

    everything = scaled(z, TRAIN)
    plain = plainly(protocol.kind, 1).fit(everything[TRAIN], labels[TRAIN])
    said = plain.predict(everything[TEST])
    assert fixed["setting"] == "C = 1" and "holdout_top1" not in fixed
    assert fixed["test_top1"] == pytest.approx(accuracy_score(labels[TEST], said))
    assert fixed["test_per_class"] == pytest.approx(balanced_accuracy_score(labels[TEST], said))
    ours = classifiers.pipeline(protocol, 0).fit(z[TRAIN], labels[TRAIN])
    apart = ours.decision_function(z[TEST]) - plain.decision_function(everything[TEST])
    assert np.abs(apart).max() < {"svm": 1e-4, "logistic": 1e-2}[protocol.kind]  # the dual SVM is 3e-3 away

    kept, left = train_test_split(np.arange(160), test_size=0.1, stratify=labels[TRAIN], random_state=0)
    part = scaled(z, kept)
    draws = [d["C"] for d in ParameterSampler({"C": loguniform(1e-4, 100)}, 10, random_state=0)]
    assert 1e-4 <= min(draws) < max(draws) <= 100
    fits = [plainly(protocol.kind, C).fit(part[kept], labels[kept]) for C in draws]
    found = [fit.score(part[left], labels[left]) for fit in fits]
    best = int(np.argmax(found))
    again = plainly(protocol.kind, draws[best]).fit(everything[TRAIN], labels[TRAIN])
    assert tuned["setting"] == f"tuned, C = {draws[best]:.4g}"
    assert tuned["holdout_top1"] == pytest.approx(found[best])
    assert tuned["test_top1"] == pytest.approx(again.score(everything[TEST], labels[TEST]))
    assert len(set(found)) > 2, "values of C must differ in effect, or this shows nothing"


def test_values_of_c_tried_in_parallel_give_the_same_result(blobs):
    z, labels = blobs
    protocol = SVM(kind="svm", draws=4)
    assert classifiers.evaluate(protocol, 0, z, labels, TRAIN, TEST, jobs=2) == classifiers.evaluate(
        protocol, 0, z, labels, TRAIN, TEST, jobs=1
    )


def test_two_classes_are_scored(blobs):
    z, labels = blobs
    rows = classifiers.evaluate(Logistic(kind="logistic", draws=2), 0, z, labels // 3, TRAIN, TEST, jobs=1)
    assert all(row["test_top1"] > 0.5 and row["test_top5"] == 1 for row in rows)


def test_a_class_too_small_to_hold_out_is_one_line(blobs):
    z, labels = blobs
    labels = labels.copy()
    labels[0] = 6
    with pytest.raises(UserError, match=r"holdout 0\.1 of 160 labels: cannot be drawn"):
        classifiers.evaluate(SVM(kind="svm"), 0, z, labels, TRAIN, TEST, jobs=1)
