"""A trial trains each kind of run for some steps, and the plan then knows its time."""

import json

import pytest

from issl.planning import cost, observed, trial


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(trial, "EPOCH", 2)


def test_each_shape_is_tried_once_and_gives_its_time_back(plans, tiny, few_steps):
    """Two of these runs differ in nothing but epochs and augmentation strength; untrained encoders need no trial."""
    names = [run for run in tiny.runs if run.startswith(("simclr-z64-e9", "dissl-z256", "untrained-z64"))]
    assert len(names) == 6
    lines = list(trial.measure(tiny, names, steps=4))
    assert [line.partition(":")[0] for line in lines] == ["1 of 3", "2 of 3", "3 of 3"]
    trials = [json.loads(line) for line in observed.TRIALS.read_text().splitlines()]
    assert [each["steps"] for each in trials] == [4, 4, 4]
    costs = cost.of(tiny, plans)
    for each in trials:
        run = next(name for name in names if tiny.runs[name].model_dump(mode="json") == each["spec"])
        steps = 23 * tiny.runs[run].epochs
        expected = each["seconds"] / 4 * steps
        assert 0.5 * expected < costs.pretraining(run).median < 2 * expected + 10


def test_the_supervised_reference_can_be_tried(plans, few_steps):
    mini = plans["results/mini"]
    (name, *_) = [run for run in mini.runs if run.startswith("supervised")]
    (line,) = trial.measure(mini, [name], steps=2)
    assert line.startswith("1 of 1: supervised-")


def test_photographs_are_left_out(plans):
    imagenet = plans["results/imagenet"]
    lines = list(trial.measure(imagenet, list(imagenet.runs), steps=2))
    assert lines and all("not measured" in line for line in lines)
    assert not observed.TRIALS.exists()
