"""`--sdm apptainer`: each job runs in the image, and finished results stay finished. A stub stands in for Apptainer."""

import os
from pathlib import Path

import pytest
from project import PROJECT, planned, snakemake

pytestmark = pytest.mark.slow

# Answers as Apptainer does, notes the image and the command, and runs the command here instead of in the image.
STUB = """#!/bin/bash
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
printf '%s | %s\\n' "${@: -4:1}" "${@: -1}" >> "{log}"
exec "${@: -3}"
"""


@pytest.fixture
def in_image(tmp_path, monkeypatch) -> Path:
    """Puts the stub on the path. Gives the file in which it notes what ran in which image."""
    log, folder = tmp_path / "ran", tmp_path / "bin"
    folder.mkdir()
    (folder / "apptainer").write_text(STUB.replace("{log}", str(log)))
    (folder / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


@pytest.mark.parametrize("profile", ["local", "slurm"])
def test_with_a_profile_a_change_of_environment_runs_nothing_again(finished_copy, in_image, profile):
    words = ("tiny", "--profile", PROJECT / "profiles" / profile)
    assert planned(finished_copy, *words) == {}
    assert planned(finished_copy, *words, "--sdm", "apptainer") == {}


def test_jobs_of_commands_and_of_scripts_run_in_the_image(finished_copy, in_image):
    (finished_copy / "issl.sif").touch()
    (finished_copy / "results/tiny/fig7c.pdf").unlink()
    (histories := sorted(finished_copy.glob("results/tiny/runs/*/s1/history.csv")))[0].unlink()
    triggers = ("--rerun-triggers", "mtime")
    snakemake(
        finished_copy,
        "results/tiny/fig7c.pdf",
        histories[0].relative_to(finished_copy),
        "--cores",
        "2",
        *triggers,
        "--sdm",
        "apptainer",
    )
    ran = in_image.read_text().splitlines()
    assert {line.partition(" | ")[0] for line in ran} == {"issl.sif"}
    assert any("issl pretrain" in line for line in ran) and any("plot.py" in line for line in ran)
    assert (finished_copy / "results/tiny/fig7c.pdf").exists() and histories[0].exists()
