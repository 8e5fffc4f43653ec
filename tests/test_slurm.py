"""A real Slurm: what is submitted, time limits, lost jobs, a lost Snakemake. Skipped where no cluster answers.

`tests/slurm/two-nodes.sh` starts a cluster of two nodes with two pretended GPUs each on a Debian machine.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from issl.config import merge, read_yaml

PROJECT = Path(__file__).parent.parent
LINKED = ("Snakefile", "rules", "workflow", "issl", "envs", "profiles", "slurm")
TARGET = "results/tiny/table2_mlp.md"


def answers(*command):
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout


pytestmark = pytest.mark.skipif(
    "idle" not in answers("sinfo", "-h", "-o", "%T"), reason="no idle Slurm cluster answers"
)


@pytest.fixture
def project(tmp_path):
    """Makes a folder that looks like the project, with changes to its preset *tiny* and no results."""

    def build(name, **changes):
        folder = tmp_path / name
        folder.mkdir()
        for linked in LINKED:
            (folder / linked).symlink_to(PROJECT / linked)
        exact = {"execution": {"precision": "32", "checkpoint_minutes": 0.02}}
        config = merge(read_yaml(PROJECT / "config.yaml"), {"presets": {"tiny": merge(exact, changes)}})
        (folder / "config.yaml").write_text(json.dumps(config))
        return folder

    yield build
    subprocess.run(["scancel", "--user", str(os.getuid())], check=False)  # nothing of a failed test stays behind


def start(folder, *arguments, target=TARGET):
    """The command of the README, with what a cluster without accounting needs, and an impatient look at the queue."""
    site = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3"]
    command = [sys.executable, "-m", "snakemake", target, "--profile", "slurm", *site, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    with (folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)


def finish(workflow, folder):
    assert workflow.wait(420) == 0, (folder / "snakemake.log").read_text()[-4000:]


def queued():
    """What Slurm knows of each job: rule, partition, GPUs, cores, memory, time limit, state."""
    fields = ("JobID", "Comment", "Partition", "tres-per-job", "NumCPUs", "MinMemory", "TimeLimit", "State")
    shown = ",".join(f"{field}:{100 if field == 'Comment' else 20}" for field in fields)
    names = ("id", "rule", "partition", "gpus", "cores", "memory", "limit", "state")
    return [dict(zip(names, row.split())) for row in answers("squeue", "--noheader", "--Format", shown).splitlines()]


def wait_for(found, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.3)
    raise AssertionError("it never happened")


def logs(folder, stage="pretrain"):
    return "".join(path.read_text() for path in folder.glob(f"results/tiny/logs/{stage}/*.log"))


def weights(folder):
    found = sorted(folder.glob("results/tiny/runs/*/s1/encoder.safetensors"))
    return {f"{path.parts[-3]} {key}": value for path in found for key, value in load_file(path).items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def running(stage):
    return [job for job in queued() if stage in job["rule"] and job["state"] == "RUNNING"]


def test_each_job_asks_for_what_the_config_says(project):
    folder = project(
        "asks",
        hardware={
            "pretrain": {"gpus": 1, "threads": 1, "mem_gb": 3, "minutes": 7, "minutes_per_epoch": 0.5},
            "featurize": {"gpus": 1, "threads": 1, "mem_gb": 2, "minutes": 5},
            "probe": {"gpus": 0, "threads": 2, "mem_gb": 1, "minutes": 61},
        },
    )
    workflow, seen = start(folder), {}
    while workflow.poll() is None:
        seen |= {job["id"]: job for job in queued()}
        time.sleep(0.5)
    finish(workflow, folder)
    asked = {
        (re.search(r"prepare|pretrain|featurize|probe", job["rule"])[0], *list(job.values())[2:7])
        for job in seen.values()
    }
    assert asked == {
        ("prepare", "gpu", "N/A", "1", "8000M", "1:00:00"),
        ("pretrain", "gpu", "gres:gpu:1", "1", "3000M", "11:00"),  # 7 + 8 epochs / 2
        ("featurize", "gpu", "gres:gpu:1", "1", "2000M", "5:00"),
        ("probe", "gpu", "N/A", "2", "1000M", "1:01:00"),
    }
    text = (folder / "snakemake.log").read_text()
    assert len(re.findall("has been submitted with SLURM jobid", text)) == len(seen) == 7  # the cheap rules stay here
    assert (folder / TARGET).exists()


def test_a_run_longer_than_its_slot_continues_in_another(project):
    long = {"defaults": {"optim": {"epochs": 150}}, "methods": {}}
    whole = project("whole", **long)
    calm = [sys.executable, "-m", "snakemake", TARGET, "--profile", "profiles/local", "--quiet", "all"]
    subprocess.run(calm, cwd=whole, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    cut = project("cut", **long, hardware={"pretrain": {"minutes": 1}})
    finish(start(cut), cut)
    assert "(the slot ends) and saved" in logs(cut)
    assert re.search(r"requeued after \d+ steps in this slot", logs(cut))
    assert "Trying to restart" not in (cut / "snakemake.log").read_text()  # no attempt was lost by it
    assert same(weights(whole), weights(cut))


def test_cancelled_and_killed_jobs_and_a_killed_snakemake_lose_nothing(project):
    long = {"defaults": {"optim": {"epochs": 40}}}
    calm, broken = project("calm", **long), project("broken", **long)
    command = [sys.executable, "-m", "snakemake", TARGET, "--profile", "profiles/local", "--quiet", "all"]
    subprocess.run(command, cwd=calm, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def checkpoint():
        return list(broken.glob("results/tiny/runs/*/s1/checkpoints/last.ckpt"))

    workflow = start(broken)
    wait_for(checkpoint)
    subprocess.run(["scancel", running("pretrain")[0]["id"]], check=True)  # SIGTERM, and SIGKILL a while after
    wait_for(lambda: "(SIGTERM) and saved" in logs(broken))
    wait_for(lambda: running("pretrain"))
    subprocess.run(["scancel", "--signal=KILL", running("pretrain")[0]["id"]], check=False)
    time.sleep(3)
    os.killpg(workflow.pid, signal.SIGKILL)  # jobs that are in the queue stay there
    workflow.wait()
    finish(start(broken), broken)
    assert "continuing after step" in logs(broken)
    assert same(weights(calm), weights(broken))
