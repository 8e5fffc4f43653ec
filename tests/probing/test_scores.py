"""Accuracies beside scikit-learn's, and the rows of score files."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from issl.probing.scores import COLUMNS, Score, Tally, named, of_one
from issl.spec.probe import SVM, ProbeGrid


@pytest.fixture
def drawn():
    draws = np.random.default_rng(0)
    labels = np.sort(draws.choice(9, 200, p=np.arange(9) / 36))  # classes of unequal size; class 0 has no image
    logits = draws.normal(size=(200, 3, 9))
    logits[np.arange(200), :, labels] += 1
    return torch.tensor(logits), torch.tensor(labels)


def test_accuracies_equal_scikit_learns_at_any_batch_size(drawn):
    logits, labels = drawn
    tally = Tally(3, 9)
    for rows in torch.randperm(200).split(37):
        tally.add(logits[rows], labels[rows])
    for head, scores in enumerate(tally.scores()):
        of_head, truth = logits[:, head].numpy(), labels.numpy()
        assert scores["top-1"] == pytest.approx(accuracy_score(truth, of_head.argmax(1)))
        assert scores["top-5"] == pytest.approx(top_k_accuracy_score(truth, of_head, k=5, labels=range(9)))
        with pytest.warns(UserWarning) if (np.isin(of_head.argmax(1), truth)).mean() < 1 else _silence():
            assert scores["mean per class"] == pytest.approx(balanced_accuracy_score(truth, of_head.argmax(1)))
        assert of_one(logits[:, head], labels) == scores


def _silence():
    import contextlib

    return contextlib.nullcontext()


def test_of_classes_with_equal_logits_the_first_is_chosen_as_argmax_does():
    every = torch.zeros(9, 1, 9)
    tally = Tally(1, 9)
    tally.add(every, torch.arange(9))
    [scores] = tally.scores()
    assert (scores["top-1"], scores["mean per class"]) == (1 / 9, 1 / 9), "right for class 0 alone"

    draws = np.random.default_rng(1)
    logits, labels = draws.integers(0, 3, (500, 2, 9)).astype(np.float32), draws.integers(0, 9, 500)
    largest = (logits == logits.max(-1, keepdims=True)).sum(-1)
    assert (largest > 1).mean() > 0.8, "ties must be frequent, or this shows nothing"
    tally = Tally(2, 9)
    tally.add(torch.from_numpy(logits), torch.from_numpy(labels))
    for head, scores in enumerate(tally.scores()):
        assert scores["top-1"] == pytest.approx(accuracy_score(labels, logits[:, head].argmax(1)))


def test_top_5_is_perfect_with_fewer_than_five_classes():
    assert of_one(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])) == {
        "top-1": 0.5,
        "top-5": 1.0,
        "mean per class": 0.5,
    }


def test_a_score_file_has_a_row_for_each_metric():
    test = {"top-1": 0.1, "top-5": 0.5, "mean per class": 0.2}
    held_out = {"top-1": 0.3, "top-5": 0.6, "mean per class": 0.4}
    rows = list(Score("lr 0.1", 10, 5, test, held_out, 1e-4, 0.5).rows("cached"))
    assert all(sorted(row) == sorted(COLUMNS) for row in rows)
    assert [tuple(row[column] for column in COLUMNS) for row in rows] == [
        ("cached", "lr 0.1", 1e-4, 0.5, 10, 5, "top-1", 0.1, 0.3),
        ("cached", "lr 0.1", 1e-4, 0.5, 10, 5, "top-5", 0.5, 0.6),
        ("cached", "lr 0.1", 1e-4, 0.5, 10, 5, "mean per class", 0.2, 0.4),
    ]


def test_a_setting_that_no_choice_falls_on_has_no_held_out_accuracy():
    rows = list(Score("C = 1", 10, 5, {"top-1": 0.1, "top-5": 0.5, "mean per class": 0.2}, None).rows("svm"))
    assert [row["holdout_acc"] for row in rows] == [None] * 3
    assert {(row["weight_decay"], row["fraction"]) for row in rows} == {(None, 1.0)}


def test_equal_settings_of_several_probes_are_told_apart():
    score = Score("C = 1", 10, 5, {"top-1": 0.1}, None)
    probes = SVM(kind="svm"), SVM(kind="svm", max_iter=10)
    assert [each.setting for each in named([score], probes[1], ProbeGrid(probes=probes[1:]))] == ["C = 1"]
    both = [each.setting for probe in probes for each in named([score], probe, ProbeGrid(probes=probes))]
    assert both == ["C = 1", "max iter 10, C = 1"]
