"""Subsets of the labels are scikit-learn's draws."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from issl.errors import UserError
from issl.probing.subsets import hold_out, stratified


@pytest.mark.parametrize(("fraction", "each"), [(0.002, 1), (0.01, 5), (0.02, 10), (0.1, 50)])
def test_few_shot_subsets_of_tinyimagenet_are_balanced(fraction, each):
    labels = np.repeat(np.arange(200), 500)
    rows = stratified(labels, fraction, seed=1)
    assert (np.bincount(labels[rows]) == each).all()
    assert len(set(rows)) == 200 * each


def test_a_subset_equals_the_draw_of_the_released_code():
    labels = np.repeat(np.arange(10), 50)
    _, expected = train_test_split(np.arange(500), test_size=0.1, stratify=labels, random_state=1)
    assert (stratified(labels, 0.1, seed=1) == expected).all()


def test_the_subset_draw_is_pinned():
    assert stratified(np.repeat(np.arange(3), 4), 0.5, seed=1).tolist() == [7, 9, 8, 0, 5, 1]


def test_the_held_out_part_is_stratified_and_disjoint():
    labels = np.repeat(np.arange(10), 50)
    subset = stratified(labels, 0.4, seed=1)
    kept, left = hold_out(labels, subset, 0.1, seed=1)
    assert sorted([*kept, *left]) == sorted(subset)
    assert (np.bincount(labels[left]) == 2).all()


def test_a_subset_that_leaves_out_a_class_is_refused():
    with pytest.raises(UserError, match=r"fraction 0\.002: cannot be drawn from 100 labels"):
        stratified(np.repeat(np.arange(10), 10), 0.002, seed=1)


def test_one_label_a_class_leaves_nothing_to_hold_out():
    labels = np.repeat(np.arange(10), 10)
    with pytest.raises(UserError, match="holdout"):
        hold_out(labels, stratified(labels, 0.1, seed=1), 0.1, seed=1)
