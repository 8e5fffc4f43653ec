"""Probes: one class for each kind; a grid of them has one kind, and each a name among its competitors."""

import json
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from issl.spec import probe
from issl.spec.probe import KNN, MLP, SVM, Augmented, Cached, FineTuned, Linear, Logistic, ProbeGrid, grid_id, setting


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (Linear(kind="linear"), "linear-a9c7eb8c"),
        (MLP(kind="mlp", hidden=16), "mlp-b147e8b6"),
        (Cached(kind="cached", lr=0.3), "cached-8a4a1aee"),
        (Augmented(kind="augmented"), "augmented-621760b5"),
        (FineTuned(kind="fine_tuned"), "fine_tuned-a60474c7"),
        (Logistic(kind="logistic"), "logistic-c2f4fca8"),
        (SVM(kind="svm"), "svm-2871c393"),
    ],
)
def test_ids_are_pinned_and_name_the_kind(one, expected):
    assert grid_id(ProbeGrid(probes=(one,))) == expected


def test_every_probe_of_a_grid_is_part_of_its_identity():
    one, other = Linear(kind="linear"), Linear(kind="linear", weight_decay=1e-4)
    assert len({grid_id(ProbeGrid(probes=probes)) for probes in ((one,), (other,), (one, other))}) == 3


def test_a_grid_travels_as_json():
    grid = ProbeGrid(probes=(Linear(kind="linear", weight_decay=1e-4), Linear(kind="linear", fraction=0.5)))
    assert json.loads(grid.canonical()) == {
        "probes": [{"kind": "linear", "weight_decay": 0.0001}, {"kind": "linear", "fraction": 0.5}]
    }
    assert ProbeGrid.model_validate_json(grid.canonical()) == grid


def test_every_kind_is_in_the_table_of_kinds():
    assert list(probe.KINDS.values()) == [Linear, MLP, Cached, Augmented, FineTuned, Logistic, SVM, KNN]
    assert all(get_args(model.model_fields["kind"].annotation) == (kind,) for kind, model in probe.KINDS.items())
    assert probe.KINDS.keys() > probe.READS_IMAGES | probe.ON_CPU


@pytest.mark.parametrize("kind", probe.KINDS)
def test_a_probe_says_what_kind_it_is(kind):
    """So that its identity, which leaves defaults out, says it too."""
    with pytest.raises(ValidationError, match="kind"):
        probe.KINDS[kind]()
    assert json.loads(probe.KINDS[kind](kind=kind).canonical()) == {"kind": kind}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (Linear(kind="linear"), "weight decay 1e-06"),
        (Linear(kind="linear", weight_decay=0, fraction=0.5), "weight decay 0"),
        (Linear(kind="linear", weight_decay=1.0000001e-4), "weight decay 0.00010000001"),
        (MLP(kind="mlp", hidden=16, epochs=7), "weight decay 1e-06, epochs 7, hidden 16"),
        (Cached(kind="cached", optimizer="lars", lr=12.8), "optimizer lars, lr 12.8, weight decay 1e-06"),
        (Logistic(kind="logistic"), ""),
        (SVM(kind="svm", max_iter=10), "max iter 10"),
    ],
)
def test_a_setting_is_the_weight_decay_and_what_differs_from_the_defaults(one, expected):
    assert setting(one) == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"kind": "linear", "fraction": 1.5}, "less than or equal to 1"),
        ({"kind": "linear", "fraction": 0}, "greater than 0"),
        ({"kind": "linear", "holdout": 1}, "less than 1"),
        ({"kind": "linear", "hidden": 16}, "Extra inputs are not permitted"),
        ({"kind": "svm", "lowest": 1, "highest": 1}, r"lowest 1\.0 must be below highest 1.0"),
        ({"kind": "cached", "batch_size": 1}, "greater than or equal to 2"),
        ({"kind": "tree"}, "does not match any of the expected tags"),
    ],
)
def test_impossible_probes_are_refused(content, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(probe.Probe).validate_python(content)


@pytest.mark.parametrize(
    ("probes", "says"),
    [
        ([], "at least 1 item"),
        ([{"kind": "cached"}, {"kind": "cached"}], "the same probe is listed twice"),
        ([{"kind": "linear"}, {"kind": "linear", "epochs": 100}], "the same probe is listed twice"),
        ([{"kind": "linear"}, {"kind": "mlp"}], "all probes of a grid must be of one kind"),
    ],
)
def test_impossible_grids_are_refused(probes, says):
    with pytest.raises(ValidationError, match=says):
        ProbeGrid(probes=probes)
