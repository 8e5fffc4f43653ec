"""A real Slurm: what is submitted, time limits, lost jobs, nodes and Snakemakes, trainings in several tasks.

Skipped where no cluster answers. `tests/slurm/cluster.sh` starts one on a Debian machine that may be thrown away.
Tests may run side by side: each looks at its own jobs alone, and the one that kills a node has nodes of its own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import pandas as pd
import psutil
import pytest
import torch
import watching
from miniature import MINIATURE, without_references
from project import PROJECT
from safetensors.torch import load_file
from watching import wait_for

from issl import data
from issl.config.plan import load
from issl.config.presets import merge
from issl.jobs.slurm import duration
from issl.spec.data import data_id
from issl.training.pretrain import pretrain

LINKED = ("Snakefile", "rules", "workflow", "issl", "envs", "slurm", "profiles/slurm", "profiles/local")
TARGET = "results/tiny/table2_mlp.md"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
# What a cluster without accounting needs, and an impatient look at the queue: after 6, 22 and 48 seconds, and so on.
SITE = {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 6}
ROOM = {"mem_mb": 1000, "runtime": 30}
LONG = {"defaults": {"optim": {"epochs": 100}}}  # time enough to notice that a training has begun, and to interrupt it
STARTED: list[subprocess.Popen] = []


def answers(*command):
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Looks for a cluster when a test is to run, not when it is collected: a dead controller takes its time."""
    if not re.search("idle|mixed|allocated", answers("sinfo", "-h", "-o", "%T")):  # other tests may use it already
        pytest.skip("no Slurm cluster answers")


@pytest.fixture
def project(tmp_path):
    """Makes a folder that looks like the project, with a site's file, changes to its preset *tiny* and no results."""
    folders = []

    def build(name, site=(), **changes):
        folder = tmp_path / name
        (folder / "profiles/default").mkdir(parents=True)
        for linked in LINKED:
            (folder / linked).symlink_to(PROJECT / linked)
        (folder / "profiles/default/config.yaml").write_text(
            json.dumps(merge(SITE | {"default-resources": ROOM}, dict(site)))
        )
        exact = {"execution": {"precision": "32", "checkpoint_minutes": 0.005}}
        tiny = merge(merge(MINIATURE, exact), changes)
        config = merge(without_references(), {"presets": {"tiny": tiny}})
        (folder / "config.yaml").write_text(json.dumps(config))
        folders.append(folder)
        return folder

    yield build
    for workflow in STARTED:  # nothing of a failed test stays behind
        with suppress(ProcessLookupError):
            os.killpg(workflow.pid, signal.SIGKILL)
        workflow.wait()
    STARTED.clear()
    if jobs := [job["id"] for folder in folders for job in queued(folder)]:
        subprocess.run(["scancel", *jobs], capture_output=True, check=False)


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


def prepared(experiment, row, *folders):
    """Prepares the data of one run of the preset *tiny* in each folder. Returns the run's row and its weights' name."""
    found = load(folders[0] / "config.yaml")["results/tiny"].rows[experiment][row]
    for folder in folders:
        data.prepare(found.run.data, folder / arrays(found), progress=False)
    return found, f"results/tiny/{found.encoder(1)}/encoder.safetensors"


def arrays(row):
    return f"results/tiny/data/{data_id(row.run.data)}"


def train(row, folder):
    """Trains a run in this process: without Slurm, undisturbed."""
    execution = load(folder / "config.yaml")["results/tiny"].config.execution
    pretrain(row.run, 1, folder / arrays(row), folder / f"results/tiny/{row.encoder(1)}", execution)


def queued(folder):
    """What Slurm knows of each job of a folder, ended or not: rule, partition, GPUs, cores, memory, limit, state."""
    fields = ("JobID", "Comment", "Partition", "tres-per-job", "NumCPUs", "MinMemory", "TimeLimit", "State", "WorkDir")
    shown = ",".join(f"{field}:{300 if field in ('Comment', 'WorkDir') else 20}" for field in fields)
    names = ("id", "rule", "partition", "gpus", "cores", "memory", "limit", "state", "folder")
    rows = answers("squeue", "--noheader", "--states", "all", "--Format", shown).splitlines()
    jobs = [dict(zip(names, row.split())) for row in rows]
    return [job for job in jobs if job.get("folder") == str(folder)]


def stage_of(job):
    """The rule of a job, by its comment; both rules of a group."""
    rule, group = re.search(r"^rule_(prepare|pretrain|featurize|probe)_|_(featurize_probe)$", job["rule"]).groups()
    return rule or group


def running(folder, stage):
    return [job["id"] for job in queued(folder) if stage in job["rule"] and job["state"] == "RUNNING"]


def logs(folder):
    return watching.logs(folder / "results/tiny", "pretrain")


def weights(folder):
    found = sorted(folder.glob("results/tiny/runs/*/s1/encoder.safetensors"))
    return {f"{path.parts[-3]} {key}": value for path in found for key, value in load_file(path).items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@contextmanager
def paused(job):
    """Within it a training makes no step, while its job keeps running: so a test need not guess how long one takes."""
    trainings = [process for process in of_slurm("SLURM_JOB_ID", job) if process.info["cmdline"][1:4] == TRAINING]
    assert trainings
    for process in trainings:
        process.suspend()
    try:
        yield
    finally:
        for process in trainings:
            with suppress(psutil.NoSuchProcess):
                process.resume()


TRAINING = ["-m", "issl", "pretrain"]


def of_slurm(name, value):
    """Processes of jobs, by a variable that Slurm gives them."""
    every = psutil.process_iter(["cmdline", "environ"])
    return [process for process in every if (process.info["environ"] or {}).get(name) == value]


@contextmanager
def lost(node):
    """Within it a node is gone, as without power: its daemon, and everything of its jobs. Afterwards it is back."""
    daemon = ["slurmd", "-N", node]
    daemons = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == daemon]
    for process in (*daemons, *of_slurm("SLURMD_NODENAME", node)):
        with suppress(psutil.NoSuchProcess):
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


# Long tests and short ones by turns: `pytest --numprocesses 3` gives each process two of them to begin with.


def test_a_training_longer_than_its_slot_continues_in_the_next_slot(project):
    whole = project("whole", **LONG)
    # The training ends after 80 seconds or later: Snakemake looks after 8, 26, 54 and 92.
    patient = {"slurm-init-seconds-before-status-checks": 8}
    cut = project("cut", patient, **LONG, hardware={"pretrain": {"minutes": 1}})
    row, target = prepared("table2_mlp", 0, whole, cut)
    workflow = start(cut, target)
    wait_for(lambda: more_time(cut) or "epoch 2/" in logs(cut))
    (job,) = running(cut, "pretrain")
    with paused(job):  # until the last fifth of its time, when it has to stop
        wait_for(lambda: (seconds_left(job) or 0) < 8)
    wait_for(lambda: "requeued after" in logs(cut))
    train(row, whole)
    wait_for(lambda: more_time(cut) or workflow.poll() is not None)
    finish(workflow, cut)
    assert re.search(r"stopped after step \d+ \(time limit\) and saved", logs(cut))
    assert re.search(r"requeued after \d+ steps in this job", logs(cut))
    assert re.search(r"continuing after step \d+", logs(cut))
    assert "Trying to restart" not in said(cut)  # no attempt was lost by it
    assert same(weights(whole), weights(cut))


def seconds_left(job):
    """Seconds until Slurm ends a job that runs; None for any other."""
    return duration(answers("squeue", "--noheader", "--states", "running", "--jobs", job, "--format", "%L"))


def more_time(folder):
    """Gives a job another minute before its time limit: where a machine is slow, the start alone may take so long."""
    for job in running(folder, "pretrain"):
        if (seconds_left(job) or 60) < 30:
            subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=+1"], check=False)


def test_an_unknown_partition_is_reported_and_leaves_no_data_behind(project):
    folder = project("elsewhere", {"default-resources": {"slurm_partition": "nowhere"}, "retries": 0})
    assert start(folder).wait(120) == 1
    assert "invalid partition specified: nowhere" in said(folder)
    assert not [path for path in folder.glob("results/tiny/data/**/*") if path.suffix in (".npy", ".json")]


def test_lost_jobs_nodes_and_snakemakes_lose_no_work(project):
    frail = {"default-resources": {"slurm_partition": "frail"}}
    calm, broken = project("calm", **LONG), project("broken", frail, **LONG)
    row, target = prepared("table2_mlp", 0, calm, broken)

    def began():
        return logs(broken).count(" on CPU, ")

    workflow = start(broken, target)
    checkpoint = wait_for(lambda: list(broken.glob("results/tiny/runs/*/s1/checkpoints/last.ckpt")))[0]
    subprocess.run(["scancel", *running(broken, "pretrain")], check=True)  # SIGTERM, then SIGKILL
    wait_for(lambda: "(SIGTERM) and saved" in logs(broken))

    wait_for(lambda: began() == 2)  # the loss of its node: the daemon and all that it started
    (job,) = running(broken, "pretrain")
    (node,) = answers("squeue", "--noheader", "--jobs", job, "--format", "%N").split()
    with lost(node):
        wait_for(lambda: began() == 3)  # Slurm gave the same job to the other node
        assert answers("squeue", "--noheader", "--jobs", job, "--format", "%N").split() not in ([], [node])

        steps = checkpoint.stat().st_mtime_ns
        wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_mtime_ns > steps)
        os.killpg(workflow.pid, signal.SIGKILL)  # its job stays in the queue, and works on
        workflow.wait()
        with paused(job):  # until the next call wants the same training
            workflow = start(broken, target)
            train(row, calm)
            wait_for(lambda: "waiting: another process is making this" in logs(broken))
        finish(workflow, broken)
    assert "continuing after step" in logs(broken)
    assert "made meanwhile by another process" in logs(broken)
    assert same(weights(calm), weights(broken))


def test_the_doctor_tells_what_a_real_cluster_has_and_lacks(project):
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
    (line,) = re.findall(r"^missing pretrain +(.*)$", text, re.MULTILINE)
    origin = "(gres or gpu_model in profiles/default/config.yaml)"
    assert line.endswith(f"; it would accept them without --gres=gpu:h100:1 {origin}")
    assert re.search("^ok +states +squeue tells how jobs ended$", text, re.MULTILINE), "also where sacct is asked for"


def test_without_accounting_the_readmes_command_ends_without_a_site_file(project):
    """sacct is installed and knows nothing here: Snakemake alone would wait for its first job forever."""
    folder = project("plain", {"slurm-status-command": None})
    row = load(folder / "config.yaml")["results/tiny"].rows["table2_mlp"][0]
    workflow = start(folder, f"{arrays(row)}/meta.json")
    assert workflow.wait(150) == 0, said(folder)[-4000:]
    assert "sacct cannot tell how jobs end (Slurm accounting storage is disabled); using squeue" in said(folder)


def test_each_job_asks_for_what_the_config_says(project):
    folder = project(
        "asks",
        hardware={
            "pretrain": {"gpus": 1, "threads": 1, "mem_gb": 3, "minutes": 7, "minutes_per_epoch": 0.5},
            "featurize": {"gpus": 1, "threads": 1, "mem_gb": 2, "minutes": 5},
            "probe": {"gpus": 0, "threads": 2, "mem_gb": 1, "minutes": 61},
        },
    )
    finish(start(folder), folder)
    jobs = queued(folder)
    asked = {(stage_of(job), *list(job.values())[2:7]) for job in jobs}
    assert asked == {
        ("prepare", "gpu", "N/A", "1", "8000M", "1:00:00"),
        ("pretrain", "gpu", "gres:gpu:1", "1", "3000M", "12:00"),  # 7 + 9 epochs / 2, rounded
        ("featurize", "gpu", "gres:gpu:1", "1", "2000M", "5:00"),
        ("probe", "gpu", "N/A", "2", "1000M", "1:01:00"),
        ("featurize_probe", "gpu", "gres:gpu:1", "2", "2000M", "1:06:00"),  # the most of each, and the minutes of both
    }
    # Of the two runs, one has features that two experiments read. Cheap rules stay here.
    assert len(re.findall("has been submitted with SLURM jobid", said(folder))) == len(jobs) == 1 + 2 + 2 + 1
    assert (folder / TARGET).exists()


@pytest.mark.parametrize("shape", [{"gpus": 2, "nodes": 1}, {"gpus": 1, "nodes": 2}], ids=["one node", "two nodes"])
def test_two_tasks_of_slurm_train_as_one_process(project, shape):
    """srun starts a process for each GPU; together they train as one process does.

    Rounding moves a loss by less than 1e-4 and the weights by 3e-5. Half of each batch, statistics or gradients of one
    process alone move a loss by more than 2e-2 and the weights by more than 7e-4.
    """
    short = {"defaults": {"optim": {"epochs": 4, "lr": 1.6e-3}}}
    alone, both = project("alone", **short), project("both", **short, hardware={"pretrain": shape | {"threads": 1}})
    row, target = prepared("table1_contrastive", 1, alone, both)
    workflow = start(both, target)
    train(row, alone)
    finish(workflow, both)
    record = json.loads((both / target).with_name("run.json").read_text())
    assert record["processes"] == 2
    losses, expected_losses = (
        pd.read_csv((folder / target).with_name("history.csv"))["loss"].tolist() for folder in (both, alone)
    )
    assert losses == pytest.approx(expected_losses, rel=1e-3)
    expected, ours = weights(alone), weights(both)
    moved = [name for name in expected if name.endswith("weight")]
    apart = sum((expected[name] - ours[name]).abs().mean() for name in moved)
    assert apart < 2e-4 * sum(expected[name].abs().mean() for name in moved)
