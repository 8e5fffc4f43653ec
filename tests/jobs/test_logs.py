"""Which logs of a job's attempts stay, under which name."""

import logging
import os
from pathlib import Path

import pytest

from issl.errors import UserError
from issl.jobs.logs import to_file

pytestmark = pytest.mark.usefixtures("logging_as_before")

log = logging.getLogger(__name__)


def texts(folder):
    return [path.read_text().split(maxsplit=2)[2].strip() for path in sorted(folder.glob("*.log"))]


@pytest.mark.parametrize("kind", [Path, str])
def test_a_successful_job_leaves_one_log(tmp_path, kind):
    with to_file(kind(tmp_path / "run.log")):
        log.info("trained")
    assert texts(tmp_path) == ["trained"]


def test_the_log_of_a_failed_attempt_stays_beside_the_next(tmp_path):
    name = tmp_path / "run.log"
    with pytest.raises(SystemExit), to_file(name):
        raise UserError("no memory")
    name.unlink()  # as Snakemake does before it starts a job
    with to_file(name):
        log.info("trained")
    assert texts(tmp_path) == ["error: no memory", "trained"]


def test_a_job_overtaken_by_another_attempt_keeps_its_log(tmp_path):
    name = tmp_path / "run.log"
    with to_file(name):
        log.info("trained")
        name.unlink()
        name.write_text("2026-11-25 13:24:00 made meanwhile by another process\n")
    assert texts(tmp_path) == ["trained", "made meanwhile by another process"]


def test_a_log_removed_while_a_job_begins_is_not_lost(tmp_path, monkeypatch):
    """Another workflow starts the same job at the worst moment."""
    link, removals = os.link, []

    def remove_and_link(source, name):
        if not removals:
            removals.append(source)
            source.unlink()
        return link(source, name)

    monkeypatch.setattr("os.link", remove_and_link)
    name = tmp_path / "run.log"
    with to_file(name):
        monkeypatch.undo()
        name.unlink()  # before the first message
        log.info("trained")
    assert removals == [name]
    assert texts(tmp_path) == ["trained"]


def test_a_job_by_hand_appends_to_its_log(tmp_path):
    name = tmp_path / "run.log"
    for _ in range(2):
        with to_file(name):
            log.info("trained")
    assert [path.name for path in tmp_path.iterdir()] == ["run.log"]
    assert name.read_text().count("trained") == 2


def test_a_successful_job_tolerates_a_removed_log(tmp_path):
    with to_file(tmp_path / "run.log"):
        log.info("trained")
        [second] = set(tmp_path.glob("*.log")) - {tmp_path / "run.log"}
        second.unlink()
    assert texts(tmp_path) == ["trained"]
