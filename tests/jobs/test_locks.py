"""Several processes in one results tree: each thing is made once, by one of them, and none is lost."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from issl.errors import UserError
from issl.jobs import gpus, locks

MAKE = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from issl.jobs.locks import build_once
out = Path(sys.argv[1])
def make():
    with (out / "count").open("a") as count:
        count.write("x")
    time.sleep(1)
    (out / "result").write_text("made")
build_once([out / "result"], make)
"""


def start(folder, began="0"):
    return subprocess.Popen([sys.executable, "-c", MAKE, folder], env={**os.environ, locks.BEGAN: began})


def test_one_of_several_processes_makes_an_output(tmp_path):
    jobs = [start(tmp_path) for _ in range(4)]
    assert [job.wait(30) for job in jobs] == [0] * 4
    assert (tmp_path / "count").read_text() == "x"
    assert (tmp_path / "result").read_text() == "made"


def test_the_lock_of_a_killed_process_is_released(tmp_path):
    first = start(tmp_path)
    while not (tmp_path / "count").exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = start(tmp_path)
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    assert second.wait(30) == 0
    assert (tmp_path / "count").read_text() == "xx"
    first.wait()


def make_in(folder, monkeypatch, began):
    made = []

    def make():
        made.append(True)
        (folder / "result").write_text("made")

    monkeypatch.setenv(locks.BEGAN, str(began))
    locks.build_once([folder / "result"], make)
    return bool(made)


def test_removed_outputs_newer_than_the_workflow_are_restored(tmp_path, monkeypatch):
    began = time.time() - 1
    assert make_in(tmp_path, monkeypatch, began)
    (tmp_path / "result").unlink()  # what Snakemake does before it starts a job
    assert not make_in(tmp_path, monkeypatch, began)
    assert (tmp_path / "result").read_text() == "made"
    assert make_in(tmp_path, monkeypatch, time.time() + 1)  # a later workflow asks for it anew, e.g. --forcerun
    monkeypatch.delenv(locks.BEGAN)
    assert not locks.restore([tmp_path / "result"])  # outside a workflow everything is made


@pytest.mark.parametrize(
    ("settings", "forced"),
    [
        ({}, set()),
        ({"forcerun": {"probe", "a/b.csv"}}, {"probe", "b.csv"}),
        ({"targets": {"a/t.md"}, "forcetargets": True}, {"t.md"}),
        ({"targets": {"a/t.md"}, "forceall": True}, {"probe", "pretrain", "b.csv", "t.md"}),
    ],
)
def test_what_snakemake_forces_is_recorded_for_its_jobs(monkeypatch, settings, forced):
    monkeypatch.setenv(locks.FORCED, "")
    none = {"forcerun": frozenset(), "targets": {"a/t.md"}, "forcetargets": False, "forceall": False}
    locks.mark_forced(SimpleNamespace(**none | settings))
    found = {rule for rule in ("probe", "pretrain") if locks.is_forced(rule, [Path("a/other")])}
    found |= {name for name in ("b.csv", "t.md") if locks.is_forced("another", [Path("a/other"), Path("a", name)])}
    assert found == forced


def test_a_result_with_a_missing_file_is_remade(tmp_path, monkeypatch):
    monkeypatch.setenv(locks.BEGAN, "0")
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    locks.link_copy([one])
    assert locks.restore([one])
    assert not locks.restore([one, two])


def test_a_file_system_without_hard_links_restores_a_copy(tmp_path, monkeypatch):
    monkeypatch.setenv(locks.BEGAN, "0")
    output = tmp_path / "result"
    output.write_text("made")
    locks.link_copy([output])
    output.unlink()

    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr("os.link", refuse)
    assert locks.restore([output])
    assert output.read_text() == "made" and not output.samefile(tmp_path / locks.KEPT / "result")


def test_a_second_name_takes_no_space_and_follows_a_new_result(tmp_path):
    output = tmp_path / "result"
    for text in ("old", "new", "new"):
        output.unlink(missing_ok=True)
        output.write_text(text)
        locks.link_copy([output])
        locks.link_copy([output])
    assert output.samefile(tmp_path / locks.KEPT / "result")
    assert [path.name for path in (tmp_path / locks.KEPT).iterdir()] == ["result"]


@pytest.mark.parametrize("error", [NotImplementedError("flock"), OSError(errno.ENOLCK, "No locks; flock")])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, error):
    def refuse(lock, **_):
        raise error

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    with (
        pytest.raises(UserError, match=r"cannot be locked .*flock.*link results/ to one"),
        locks.locked(tmp_path / "x"),
    ):
        pass


def test_other_group_members_can_take_the_lock(tmp_path):
    mask = os.umask(0o002)
    try:
        with locks.locked(tmp_path / ".lock"):
            assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(mask)


# --- GPUs ---


def hold(number, names, locks, log):
    with gpus.reserved(number, names, locks) as mine:
        with log.open("a") as target:
            target.write(f"{time.monotonic()} {os.environ[gpus.VISIBLE]} +\n")
        time.sleep(0.4)
        with log.open("a") as target:
            target.write(f"{time.monotonic()} {','.join(mine)} -\n")


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def test_no_two_jobs_share_a_gpu(tmp_path):
    process = multiprocessing.get_context("spawn").Process
    wanted, names = [1, 2, 1, 1, 2, 1], ["0", "3", "GPU-8f6d"]
    jobs = [process(target=hold, args=(n, names, tmp_path, tmp_path / "log")) for n in wanted]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0] * len(jobs)
    busy, used, together = set(), set(), 0
    for line in sorted((tmp_path / "log").read_text().splitlines(), key=lambda line: float(line.split()[0])):
        _, mine, sign = line.split()
        mine = set(mine.split(","))
        if sign == "+":
            assert not busy & mine
            busy |= mine
            used |= mine
            together = max(together, len(busy))
        else:
            busy -= mine
    assert used <= set(names) and together >= 2 and not busy


def test_a_dead_job_releases_its_gpu(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from issl.jobs.gpus import reserved\n"
        "with reserved(1, ['0'], Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "mine\n"
    first.kill()
    first.wait()
    with gpus.reserved(1, ["0"], tmp_path) as mine:
        assert mine == ["0"]


def test_only_visible_gpus_are_reserved_and_the_variable_is_restored(tmp_path, monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "2, 5")
    with gpus.reserved(1, locks=tmp_path) as first, gpus.reserved(1, ["2", "5"], tmp_path) as second:
        assert (first, second) == (["2"], ["5"])
        assert os.environ[gpus.VISIBLE] == "5"
    assert os.environ[gpus.VISIBLE] == "2, 5"


def test_nothing_is_reserved_under_slurm_or_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "")
    with gpus.reserved(1, locks=tmp_path / "unused") as mine:
        assert mine == []
    monkeypatch.setenv(gpus.VISIBLE, "0")
    with gpus.reserved(0, locks=tmp_path / "unused"):
        assert os.environ[gpus.VISIBLE] == "0"
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with gpus.reserved(1, locks=tmp_path / "unused"):
        assert os.environ[gpus.VISIBLE] == "0"
    assert not (tmp_path / "unused").exists()


def test_requesting_too_many_gpus_is_an_error(tmp_path):
    with (
        pytest.raises(UserError, match=r"asks for 3 GPUs, but only 2 are visible \(0, 1\)"),
        gpus.reserved(3, ["0", "1"], tmp_path),
    ):
        pass
