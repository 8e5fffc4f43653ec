"""What jobs took beside what others predicted."""

import pytest
from click.testing import CliRunner
from left_behind import DEVICE, finish, named

from issl.cli import issl
from issl.errors import UserError
from issl.planning import actual
from issl.planning.calibration import Measured
from issl.planning.work import Work


def job(steps, seconds, name="run.json"):
    return Measured(Work("pretrain", "shape", 1, steps, steps * 1e9), seconds, name)


def test_a_job_is_predicted_by_the_others_alone():
    """The others take 0.1 s a step; the last one took twice as long."""
    jobs = [job(steps, steps / 10) for steps in (1000, 2000, 3000, 4000)] + [job(2000, 400)]
    *usual, slow = actual.outcomes({DEVICE: {"pretrain": jobs}})
    assert slow.seconds == 400 and slow.predicted == pytest.approx(200, rel=0.05)
    assert slow.error == pytest.approx(-50, abs=3)
    assert slow.ninety < 400 and all(each.seconds < each.ninety for each in usual)
    (line,) = actual.summary([*usual, slow])
    assert line.startswith(f"{DEVICE}, pretrain: 5 jobs, median error ") and line.endswith("4 below their 90 % point")


def test_what_is_no_whole_job_or_has_no_others_is_left_out():
    assert not list(actual.outcomes({DEVICE: {"pretrain": [job(10, 1)], "featurize": [job(10, 1)]}}))
    found = list(actual.outcomes({DEVICE: {"pretrain": [job(10, 1), job(20, 2, name="")]}}))
    assert [each.seconds for each in found] == [1]


def test_the_command_lists_jobs_by_their_record(tiny):
    command = ["times", "results/tiny", "--all"]
    for seconds, run in ((20, "simclr-z64-e9"), (21, "cissl-z64-e9")):
        finish(tiny, named(tiny, run), seconds=seconds)
    output = CliRunner().invoke(issl, command).output
    assert f"results/tiny/runs/{named(tiny, 'simclr-z64-e9')}/s1/run.json" in output
    assert "pretrain: 2 jobs, median error " in output


def test_nothing_to_compare_is_said(tiny):
    with pytest.raises(UserError, match="fewer than two finished jobs"):
        CliRunner().invoke(issl, ["times"], catch_exceptions=False, standalone_mode=False)
