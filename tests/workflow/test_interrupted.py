"""The plain command, without a profile, continues after a kill that let nothing be tidied up."""

import os
import signal
import subprocess
import sys

import pytest
from project import PROJECT, planned, snakemake
from small_workflow import write
from watching import logs, wait_for

KILLED = "another snakemake was killed"
TARGET = "results/tiny/table1_contrastive.md"


@pytest.fixture
def killed(fresh, tmp_path):
    """A folder with the marks that a killed snakemake leaves: a lock on an output, and an output not finished."""
    write(tmp_path, {})
    for name in ("config.yaml", "presets"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(fresh / name)
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text(f"{TARGET}\n")
    return tmp_path


def call(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_command_that_cannot_be_repeated_elsewhere_says_what_to_add(killed):
    done = snakemake(killed, "--dry-run", TARGET, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {KILLED} in this folder, or is running: to continue, add --nolock --rerun-incomplete" in done.stderr
    assert planned(killed, TARGET, "--nolock", "--rerun-incomplete")["tabulate"] == 1
    assert planned(killed, TARGET, "--profile", PROJECT / "profiles/local")["tabulate"] == 1


@pytest.mark.slow
def test_the_same_plain_command_continues_after_everything_was_killed(config, tmp_path):
    write(tmp_path, config)
    first = call(tmp_path, "-c", "1", TARGET)
    wait_for(lambda: "epoch 1/" in logs(tmp_path / "results/tiny", "pretrain"))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert list((tmp_path / ".snakemake/locks").iterdir()) and list((tmp_path / ".snakemake/incomplete").iterdir())
    second = call(tmp_path, "-c", "2", TARGET)
    said = second.communicate(timeout=400)[0]
    assert second.returncode == 0, said
    assert said.count(KILLED) == 1 and "Exception" not in said
    assert (tmp_path / TARGET).exists()
    third = call(tmp_path, "-c", "2", TARGET)
    said = third.communicate(timeout=100)[0]
    assert third.returncode == 0 and "Nothing to be done" in said and KILLED not in said
