"""Transfer scores as scikit-learn's classifiers do, taken to their optimum."""

import numpy as np
import pytest
import torch
from in_memory import task
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import ParameterSampler, train_test_split
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC

from issl.errors import UserError
from issl.probing import classifiers
from issl.spec.probe import SVM, Logistic, ProbeGrid

TRAIN, TEST = slice(0, 160), slice(160, 460)


@pytest.fixture(scope="module")
def blobs():
    """Features of six overlapping classes of unequal size on unequal scales, 160 to train on and 300 to test on."""
    draws = np.random.default_rng(1)
    labels = np.concatenate([draws.permutation(np.repeat(np.arange(6), (10, 20, 30, 40, 50, 10))), np.arange(300) % 6])
    z = draws.normal(size=(6, 9))[labels] + draws.normal(size=(460, 9)) * 1.2
    return (z * 10.0 ** np.arange(-4, 5)).astype(np.float32), labels


def evaluate(probe, z, labels):
    return classifiers.evaluate(ProbeGrid(probes=(probe,)), task(torch.from_numpy(z), labels, 160))


def plainly(kind, C):
    if kind == "svm":
        return LinearSVC(C=C, dual=False, tol=1e-6, max_iter=10_000, random_state=0)
    return LogisticRegression(C=C, solver="lbfgs", max_iter=10_000, tol=1e-8, random_state=0)


def scaled(z, fitted_on):
    return MinMaxScaler().fit(z[fitted_on]).transform(z).astype(np.float64)


@pytest.mark.parametrize(
    "probe", [Logistic(kind="logistic", tol=1e-4), SVM(kind="svm", tol=1e-4)], ids=lambda probe: probe.kind
)
def test_both_classifiers_equal_a_plain_loop(blobs, probe):
    z, labels = blobs
    fixed, tuned = evaluate(probe, z, labels)

    everything = scaled(z, TRAIN)
    plain = plainly(probe.kind, 1).fit(everything[TRAIN], labels[TRAIN])
    predicted = plain.predict(everything[TEST])
    assert fixed.setting == "C = 1" and fixed.holdout is None
    assert fixed.test["top-1"] == pytest.approx(accuracy_score(labels[TEST], predicted))
    assert fixed.test["mean per class"] == pytest.approx(balanced_accuracy_score(labels[TEST], predicted))
    assert {(score.n_labels, score.n_test, score.fraction) for score in (fixed, tuned)} == {(160, 300, 1.0)}
    kept, left = train_test_split(np.arange(160), test_size=0.1, stratify=labels[TRAIN], random_state=0)
    part = scaled(z, kept)
    draws = [d["C"] for d in ParameterSampler({"C": loguniform(1e-4, 100)}, 10, random_state=0)]
    assert 1e-4 <= min(draws) < max(draws) <= 100
    fits = [plainly(probe.kind, C).fit(part[kept], labels[kept]) for C in draws]
    found = [fit.score(part[left], labels[left]) for fit in fits]
    best = int(np.argmax(found))
    again = plainly(probe.kind, draws[best]).fit(everything[TRAIN], labels[TRAIN])
    assert tuned.setting == f"tuned, C = {draws[best]:.4g}"
    assert tuned.holdout["top-1"] == pytest.approx(found[best])
    assert tuned.test["top-1"] == pytest.approx(again.score(everything[TEST], labels[TEST]))
    assert len(set(found)) > 2, "values of C must differ in effect, or this shows nothing"


def test_features_are_scaled_by_the_rows_of_the_fit_and_chunks_change_nothing(blobs, monkeypatch):
    z, labels = blobs
    given = task(torch.from_numpy(z), labels, 160)
    monkeypatch.setattr(classifiers, "ROWS", 7)
    x, (low, size) = classifiers.scaled(given, np.arange(100), extra=True)
    scaler = MinMaxScaler().fit(z[:100])
    np.testing.assert_allclose(x[:, :-1], scaler.transform(z[:100]), atol=1e-6)
    np.testing.assert_array_equal(x[:, -1], 1)
    np.testing.assert_allclose((torch.from_numpy(z) - low) / size, scaler.transform(z), rtol=1e-5, atol=1e-5)


def test_a_class_without_training_rows_is_never_chosen(blobs):
    z, labels = blobs
    labels = np.where(labels == 2, 3, labels)
    given = task(torch.from_numpy(z), labels, 160)
    for probe in (Logistic(kind="logistic"), SVM(kind="svm")):
        decisions = classifiers.fitted(probe, given, given.train, [1.0])[1.0](torch.from_numpy(z[TEST]))
        plain = plainly(probe.kind, 1).fit(scaled(z, TRAIN)[TRAIN], labels[TRAIN])
        assert decisions.shape == (300, 6) and (decisions[:, 2] == -float("inf")).all()
        assert np.mean(decisions.argmax(1).numpy() == plain.predict(scaled(z, TRAIN)[TEST])) > 0.99


def test_two_classes_are_scored(blobs):
    z, labels = blobs
    scores = evaluate(Logistic(kind="logistic", draws=2), z, labels // 3)
    assert all(score.test["top-1"] > 0.5 and score.test["top-5"] == 1 for score in scores)


def test_several_classifiers_of_a_grid_are_each_as_alone_and_told_apart(blobs):
    z, labels = blobs
    few, wide = SVM(kind="svm", draws=2), SVM(kind="svm", draws=3, lowest=1e-3)
    both = classifiers.evaluate(ProbeGrid(probes=(few, wide)), task(torch.from_numpy(z), labels, 160))
    expected = [(f"draws 2, {score.setting}", score.test) for score in evaluate(few, z, labels)]
    expected += [(f"draws 3, lowest 0.001, {score.setting}", score.test) for score in evaluate(wide, z, labels)]
    assert [(score.setting, score.test) for score in both] == expected


def test_a_class_too_small_to_hold_out_is_one_line(blobs):
    z, labels = blobs
    labels = labels.copy()
    labels[0] = 6
    with pytest.raises(UserError, match=r"holdout 0\.1 of 160 labels: cannot be drawn"):
        evaluate(SVM(kind="svm"), z, labels)
