"""Accuracies beside scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from issl.probing.scores import COLUMNS, Tally, of_one, score_row


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
        said, truth = logits[:, head].numpy(), labels.numpy()
        assert scores["top1"] == pytest.approx(accuracy_score(truth, said.argmax(1)))
        assert scores["top5"] == pytest.approx(top_k_accuracy_score(truth, said, k=5, labels=range(9)))
        with pytest.warns(UserWarning) if (np.isin(said.argmax(1), truth)).mean() < 1 else _silence():
            assert scores["per_class"] == pytest.approx(balanced_accuracy_score(truth, said.argmax(1)))
        assert of_one(logits[:, head], labels) == scores


def _silence():
    import contextlib

    return contextlib.nullcontext()


def test_top_5_is_perfect_with_fewer_than_five_classes():
    assert of_one(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])) == {
        "top1": 0.5,
        "top5": 1.0,
        "per_class": 0.5,
    }


def test_a_score_file_has_the_expected_columns():
    scores = {"top1": 0.1, "top5": 0.5, "per_class": 0.2}
    assert tuple(score_row("C = 1", 10, 5, scores, scores)) == COLUMNS
    assert "holdout_top1" not in score_row("C = 1", 10, 5, scores, None)
