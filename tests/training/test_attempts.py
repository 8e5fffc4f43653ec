"""A training that gets further may begin again as often as it must; one that does not is stopped."""

import pytest

from issl.errors import UserError
from issl.jobs.locks import BEGAN
from issl.training.attempts import begin


def test_a_training_that_advances_may_be_requeued(tmp_path, monkeypatch):
    monkeypatch.setenv(BEGAN, "1.5")
    for step in (0, 0, 0, 7, 7, 7, 8, *range(9, 40)):
        begin(tmp_path, step)


def test_a_training_without_progress_stops_until_called_again(tmp_path, monkeypatch):
    monkeypatch.setenv(BEGAN, "1.5")
    for _ in range(3):
        begin(tmp_path, 7)
    for _ in range(2):
        with pytest.raises(UserError, match="the last 3 attempts began after step 7 like this one, and none"):
            begin(tmp_path, 7)
    monkeypatch.setenv(BEGAN, "2.5")
    begin(tmp_path, 7)


def test_attempts_outside_a_workflow_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.delenv(BEGAN, raising=False)
    for _ in range(9):
        begin(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_a_training_counts_its_attempts(synthetic, make_run, tmp_path, monkeypatch):
    from issl.jobs.execution import Execution
    from issl.training.pretrain import Pretraining, pretrain

    monkeypatch.setenv(BEGAN, "1.5")
    settings = Execution(device="cpu", precision="32", progress=False)

    class Lost(Exception):
        pass

    def lose(*_):
        raise Lost

    monkeypatch.setattr(Pretraining, "training_step", lose)
    for expected in (Lost, Lost, Lost, UserError):
        with pytest.raises(expected):
            pretrain(make_run(), 1, synthetic, tmp_path, settings)
