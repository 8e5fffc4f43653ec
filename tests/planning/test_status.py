"""What `issl status` tells of trainings, by their files and by Slurm's queue."""

import os
from pathlib import Path

import pytest
from filelock import FileLock
from left_behind import finish, named, put, score

from issl.planning import status


@pytest.fixture
def simclr(tiny):
    return named(tiny, "simclr-z64-e9")


def first(plan):
    (found, *_) = [each for each in status.trainings(plan, ["table1_contrastive"]) if each.run.startswith("simclr")]
    return found


def progress(plan, run, **changes):
    about = {"epoch": 3, "epochs": 9, "loss": 2.5, "images_per_second": 750.4, "seconds": 6.0}
    put(f"{plan.root}/runs/{run}/s1/checkpoints/progress.json", about | changes)


def log(plan, run, *lines, name=""):
    put(f"{plan.root}/logs/pretrain/{run}-s1{name}.log", "".join(f"2026-01-01 00:00:00 {line}\n" for line in lines))


def test_a_training_is_followed_from_its_start_to_its_end(tiny, simclr):
    assert first(tiny) == (simclr, 1, "not started", "", None, None, "", "")
    log(tiny, simclr, "run ...")
    progress(tiny, simclr)
    with FileLock(f"{tiny.root}/runs/{simclr}/s1/.run.lock"):
        found = first(tiny)
    path = f"{tiny.root}/logs/pretrain/{simclr}-s1.log"
    assert found == (simclr, 1, "running", "3/9", 2.5, 750, "0:00:12", path)  # six epochs of two seconds
    assert first(tiny)[2:] == ("stopped", "3/9", 2.5, 750, "", path)
    finish(tiny, simclr)
    assert first(tiny).state == "done"


def test_a_failed_training_says_why_and_where(tiny, simclr):
    log(tiny, simclr, "run ...", "error: the run diverged")
    found = first(tiny)
    assert found.state == "failed: the run diverged"
    os.utime(found.log, (1, 1))
    log(tiny, simclr, "error: another reason", name=".20260101-000000-7")  # of a later attempt
    assert first(tiny).state == "failed: another reason" and ".20260101" in first(tiny).log


@pytest.mark.parametrize(("words", "state"), [("RUNNING", "running"), ("PENDING", "queued: pending in Slurm")])
def test_jobs_in_slurm_are_known_by_their_comment(tiny, simclr, tmp_path, monkeypatch, words, state):
    """As Snakemake's plugin writes it: the rule, and its wildcards with underscores."""
    squeue = tmp_path / "bin/squeue"
    put(squeue, f"#!/bin/sh\necho '{words}|rule_pretrain_wildcards_results_tiny_{simclr}_1'\necho 'RUNNING|(null)'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    found = status.trainings(tiny, ["table1_contrastive"])
    assert [each.state for each in found if each.run == simclr] == [state, "not started"]


def test_the_summary_counts_states_and_scores(tiny, simclr):
    finish(tiny, simclr)
    score(tiny, "table1_contrastive", simclr)
    log(tiny, named(tiny, "cissl-z64-e9"), "error: the disk is full")
    found = status.trainings(tiny, ["table1_contrastive"])
    line = status.summary(tiny, ["table1_contrastive"], found)
    assert line == "trainings: 1 done, 10 not started, 1 failed; scores: 1 of 12"


def test_a_training_whose_folder_was_removed_has_not_started(tiny, simclr):
    log(tiny, simclr, "run ...")
    assert first(tiny).state == "not started"


def test_a_log_that_is_no_text_is_read_all_the_same(tiny, simclr):
    progress(tiny, simclr)
    log(tiny, simclr)
    Path(tiny.root, f"logs/pretrain/{simclr}-s1.log").write_bytes(b"\xff\xfe")
    assert first(tiny).state == "stopped"
