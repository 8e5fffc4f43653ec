"""A real Slurm: the README's command, what it submits, time limits, lost jobs, nodes and Snakemakes, several tasks.

Skipped where no cluster answers. `tests/slurm/two-nodes.sh` starts one on a Debian machine that may be thrown away: two
nodes with two pretended GPUs each.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from issl.catalog import load
from issl.config import merge, read_yaml

PROJECT = Path(__file__).parent.parent
LINKED = ("Snakefile", "rules", "workflow", "issl", "envs", "slurm", "profiles/slurm", "profiles/local")
TARGET = "results/tiny/table2_mlp.md"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
# What a cluster without accounting needs, and an impatient look at the queue.
SITE = {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 3}
ROOM = {"mem_mb": 1000, "runtime": 30}
STARTED: list[subprocess.Popen] = []


def answers(*command):
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout


pytestmark = pytest.mark.skipif(
    "idle" not in answers("sinfo", "-h", "-o", "%T"), reason="no idle Slurm cluster answers"
)


@pytest.fixture
def project(tmp_path):
    """Makes a folder that looks like the project, with a site's file, changes to its preset *tiny* and no results."""

    def build(name, site=(), **changes):
        folder = tmp_path / name
        (folder / "profiles/default").mkdir(parents=True)
        for linked in LINKED:
            (folder / linked).symlink_to(PROJECT / linked)
        (folder / "profiles/default/config.yaml").write_text(
            json.dumps(merge(SITE | {"default-resources": ROOM}, dict(site)))
        )
        exact = {"execution": {"precision": "32", "checkpoint_minutes": 0.02}}
        config = merge(read_yaml(PROJECT / "config.yaml"), {"presets": {"tiny": merge(exact, changes)}})
        (folder / "config.yaml").write_text(json.dumps(config))
        return folder

    yield build
    for workflow in STARTED:  # nothing of a failed test stays behind
        with suppress(ProcessLookupError):
            os.killpg(workflow.pid, signal.SIGKILL)
        workflow.wait()
    STARTED.clear()
    subprocess.run(["scancel", "--user", str(os.getuid())], check=False)


def start(folder, target=TARGET):
    """The README's command, word for word."""
    command = [sys.executable, "-m", "snakemake", target, "--profile", "slurm"]
    with (folder / "snakemake.log").open("a") as log:
        workflow = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True
        )
    STARTED.append(workflow)
    return workflow


def said(folder):
    return (folder / "snakemake.log").read_text()


def finish(workflow, folder):
    assert workflow.wait(900) == 0, said(folder)[-4000:]


def here(folder, target):
    """The same without Slurm, in one process, undisturbed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", "Snakefile", target, "--cores", "2", "--quiet", "all"]
    subprocess.run(command, cwd=folder, check=True, env=ENVIRONMENT)


def queued():
    """What Slurm knows of each job: rule, partition, GPUs, cores, memory, time limit, state."""
    fields = ("JobID", "Comment", "Partition", "tres-per-job", "NumCPUs", "MinMemory", "TimeLimit", "State")
    shown = ",".join(f"{field}:{100 if field == 'Comment' else 20}" for field in fields)
    names = ("id", "rule", "partition", "gpus", "cores", "memory", "limit", "state")
    return [dict(zip(names, row.split())) for row in answers("squeue", "--noheader", "--Format", shown).splitlines()]


def running(stage):
    return [job for job in queued() if stage in job["rule"] and job["state"] == "RUNNING"]


def wait_for(found, seconds=400):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.3)
    raise AssertionError("it never happened")


def logs(folder):
    """What every attempt of a training has said; the present one's log has two names."""
    files = {path.stat().st_ino: path for path in folder.glob("results/tiny/logs/pretrain/*.log")}
    return "".join(path.read_text() for path in files.values())


def weights(folder):
    found = sorted(folder.glob("results/tiny/runs/*/s1/encoder.safetensors"))
    return {f"{path.parts[-3]} {key}": value for path in found for key, value in load_file(path).items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


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
    assert (
        len(re.findall("has been submitted with SLURM jobid", said(folder))) == len(seen) == 7
    )  # cheap rules stay here
    assert (folder / TARGET).exists()


def test_a_run_longer_than_its_slot_continues_in_another(project):
    long = {"defaults": {"optim": {"epochs": 150}}}
    whole = project("whole", **long)
    target = run_file(whole, "table2_mlp", 0)
    here(whole, target)
    cut = project("cut", **long, hardware={"pretrain": {"minutes": 1}})
    finish(start(cut, target), cut)
    assert re.search(r"stopped after step \d+ \(the slot ends\) and saved", logs(cut))
    assert re.search(r"requeued after \d+ steps in this slot", logs(cut))
    assert re.search(r"continuing after step \d+", logs(cut))
    assert "Trying to restart" not in said(cut)  # no attempt was lost by it
    assert same(weights(whole), weights(cut))


def run_file(folder, experiment, row):
    """The weights of one run of the preset *tiny*, as a target."""
    plan = load(folder / "config.yaml")["results/tiny"]
    return f"{plan.root}/{plan.rows[experiment][row].folder(1)}/encoder.safetensors"


def test_lost_jobs_a_lost_node_and_a_lost_snakemake_lose_nothing(project):
    long = {"defaults": {"optim": {"epochs": 60}}}
    calm, broken = project("calm", **long), project("broken", **long)
    target = run_file(calm, "table2_mlp", 0)
    here(calm, target)

    def began():
        return logs(broken).count(" on CPU, ")

    workflow = start(broken, target)
    checkpoint = wait_for(lambda: list(broken.glob("results/tiny/runs/*/s1/checkpoints/last.ckpt")))[0]
    subprocess.run(["scancel", wait_for(lambda: running("pretrain"))[0]["id"]], check=True)  # SIGTERM, then SIGKILL
    wait_for(lambda: "(SIGTERM) and saved" in logs(broken))

    wait_for(lambda: began() == 2)  # the loss of its node: the daemon and all that it started
    job = wait_for(lambda: running("pretrain"))[0]["id"]
    (node,) = answers("squeue", "--noheader", "--jobs", job, "--format", "%N").split()
    with lost(node):
        wait_for(lambda: began() == 3)  # Slurm gave the same job to the other node
        assert answers("squeue", "--noheader", "--jobs", job, "--format", "%N").split() not in ([], [node])

        steps = checkpoint.stat().st_mtime_ns
        wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_mtime_ns > steps)
        os.killpg(workflow.pid, signal.SIGKILL)  # its job stays in the queue, and works on
        workflow.wait()
        finish(start(broken, target), broken)
    assert "continuing after step" in logs(broken)
    assert same(weights(calm), weights(broken))


@contextmanager
def lost(node):
    """Within it a node is gone, as without power: its daemon, and everything of its jobs. Afterwards it is back."""
    daemon, jobs = ["slurmd", "-N", node], {"SLURMD_NODENAME": node}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or not ours to look at
            if process.cmdline() == daemon or jobs.items() <= process.environ().items():
                steps = [parent for parent in process.parents() if "slurmstepd" in parent.name()]
                for victim in (*steps, *process.children(recursive=True), process):
                    with suppress(psutil.NoSuchProcess):
                        victim.kill()
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=lost"], check=True)
    try:
        yield
    finally:
        subprocess.run(daemon, check=True)
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)  # or it is back already
        wait_for(lambda: "idle" in answers("sinfo", "--noheader", "--nodes", node, "--format", "%T"))


@pytest.mark.parametrize("shape", [{"gpus": 2, "nodes": 1}, {"gpus": 1, "nodes": 2}], ids=["one node", "two nodes"])
def test_one_training_in_two_tasks_of_slurm(project, shape):
    """srun starts a process for each GPU; together they train as one process does."""
    alone = project("alone")
    target = run_file(alone, "table1_contrastive", 1)
    here(alone, target)
    both = project("both", hardware={"pretrain": shape | {"threads": 1}})
    finish(start(both, target), both)
    record = json.loads((both / target).with_name("run.json").read_text())
    assert record["processes"] == 2
    expected, ours = weights(alone), weights(both)
    moved = [name for name in expected if name.endswith("weight")]
    apart = sum((expected[name] - ours[name]).abs().mean() for name in moved)
    assert apart < 0.02 * sum(expected[name].abs().mean() for name in moved)


def test_the_doctor_on_a_real_cluster(project):
    def doctor(folder):
        command = [sys.executable, "-m", "issl", "doctor", "--profile", "slurm", "--preset", "tiny"]
        environment = ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout

    status, text = doctor(project("fine"))
    assert status == 0, text
    assert re.search(r"^ok +shared results +n[12] reads, writes and locks", text, re.MULTILINE)
    site = {"slurm-status-command": "sacct", "set-resources": {"pretrain": {"gpu_model": "h100"}}}
    status, text = doctor(project("lacking", site, hardware={"pretrain": {"gpus": 1}}))
    assert status == 1
    assert "no GPU of type 'h100' in partition gpu, its GPUs have no type" in text
    assert "sacct: Slurm accounting storage is disabled: say 'slurm-status-command: squeue'" in text


def test_a_partition_that_is_not_there_is_said_and_nothing_is_half_done(project):
    folder = project("elsewhere", {"default-resources": {"slurm_partition": "nowhere"}, "retries": 0})
    assert start(folder).wait(120) == 1
    assert "invalid partition specified: nowhere" in said(folder)
    assert not [path for path in folder.glob("results/tiny/data/**/*") if path.suffix in (".npy", ".json")]
