"""Jobs that are forked from a warm process, in the real workflow and with its real code."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import psutil
import pytest
from project import PROJECT, snakemake
from safetensors.numpy import load_file
from small_workflow import small_config, write
from watching import logs, wait_for

from issl.config.presets import merge
from issl.jobs import handover, warm

pytestmark = pytest.mark.slow
SETTINGS = '{"device": "cpu", "precision": "32", "progress": false}'
TARGET = "results/tiny/table1_contrastive.md"


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Starts the process that `python -m issl` forks from, for jobs of this many threads in `tmp_path`."""
    begun = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv(handover.WARM, "")

    def start(threads):
        for name in handover.THREADS:
            monkeypatch.setenv(name, str(threads))
        monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
        begun.append(warm.begin())

    yield start
    for process in begun:
        process.kill()
        process.wait()


def issl(*arguments, warmly):
    environment = {name: value for name, value in os.environ.items() if warmly or name != handover.WARM}
    command = [sys.executable, "-m", "issl", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def chain(folder, run, warmly):
    """Prepares, pretrains, featurizes and probes into `folder`."""
    spec = {"data": run.data.model_dump(mode="json")}
    linear = {"kind": "linear", "epochs": 3}
    probes = json.dumps({"probes": [linear | {"weight_decay": decay} for decay in (1e-4, 1e-6)]})
    own, settings = ("--data", folder / "data"), ("--settings", SETTINGS)
    encoder = ("--encoder", folder / "run", "--spec", json.dumps(spec), *own)
    issl("prepare", "--spec", json.dumps(spec["data"]), "--out", folder / "data", *settings, warmly=warmly)
    issl("pretrain", "--spec", run.canonical(), "--seed", 1, *own, "--out", folder / "run", *settings, warmly=warmly)
    issl("featurize", *encoder, "--out", folder / "features", *settings, warmly=warmly)
    what = ("--probes", probes, "--seed", 1, "--features", folder / "features", "--out", folder / "scores.csv")
    issl("probe", *encoder, *what, *settings, warmly=warmly)


def result(folder):
    """All that a chain made which is not a time or a name."""
    history = pd.read_csv(folder / "run/history.csv").drop(columns=["seconds", "images_per_second"])
    return {
        "weights": {name: each.tobytes() for name, each in load_file(folder / "run/encoder.safetensors").items()},
        "features": {path.name: path.read_bytes() for path in (folder / "features").rglob("*.npy")},
        "history": history.to_csv(),
        "scores": (folder / "scores.csv").read_bytes(),
        "images": (folder / "data/images.npy").read_bytes(),
    }


def record(folder):
    return json.loads((folder / "run/run.json").read_text())


@pytest.mark.parametrize("threads", [1, 2])
def test_the_results_are_the_same_to_the_last_bit(begin, make_run, tmp_path, threads):
    begin(threads)
    run = make_run()
    forked, alone = tmp_path / "forked", tmp_path / "alone"
    chain(forked, run, warmly=True)
    chain(alone, run, warmly=False)
    assert record(forked)["warm"] and "warm" not in record(alone)
    assert record(forked)["device"] == record(alone)["device"] == f"CPU, {threads} threads"
    expected = result(alone)
    assert expected["features"] and result(forked) == expected


def workflow(folder, epochs=2, **settings):
    """A snakemake that makes `TARGET` in a folder, with trainings of so many epochs."""
    changes = {"execution": settings, "defaults": {"optim": {"epochs": epochs}}}
    write(folder, merge(small_config(), {"presets": {"tiny": changes}}))
    command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", "-c", "1", TARGET]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def running(folder, word):
    """The processes of the package that work in a folder, with this word in their commands."""
    every = psutil.process_iter(["cwd", "cmdline", "status"])
    return [
        each
        for each in every
        if each.info["cwd"] == str(folder)
        and each.info["status"] != psutil.STATUS_ZOMBIE
        and ["-m", "issl", word] == (each.info["cmdline"] or [])[1:4]
    ]


def test_nothing_outlives_a_workflow_but_the_job_of_one_that_was_killed(tmp_path):
    run = workflow(tmp_path, epochs=300)
    wait_for(lambda: "epoch 1/" in logs(tmp_path / "results/tiny", "pretrain"))
    assert len(running(tmp_path, handover.SERVE)) == 2  # the process, and the job that it forked
    run.kill()
    run.wait()
    wait_for(lambda: not running(tmp_path, handover.SERVE))
    assert [*(tmp_path / "results/tiny/runs").glob("*/s1/run.json")]  # the job has finished


def test_everything_ends_with_the_process_group(tmp_path):
    run = workflow(tmp_path, epochs=300)
    wait_for(lambda: "epoch 1/" in logs(tmp_path / "results/tiny", "pretrain"))
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not running(tmp_path, handover.SERVE) and not running(tmp_path, "pretrain"))


def test_a_mistake_is_reported_as_ever(tmp_path):
    write(tmp_path, merge(small_config(), {"presets": {"tiny": {"execution": {"precision": "fp16"}}}}))
    done = snakemake(tmp_path, TARGET, "-c", "1", check=False)
    line = "error: execution.precision: fp16 needs a GPU"
    assert done.returncode == 1 and line in done.stderr and "Traceback" not in done.stderr
    assert line in logs(tmp_path / "results/tiny", "pretrain")


@pytest.mark.parametrize("wanted", [True, False])
def test_it_can_be_switched_off_and_ends_with_the_workflow(tmp_path, wanted):
    run = workflow(tmp_path, warm=wanted)
    wait_for(lambda: [*tmp_path.glob("results/tiny/data/*/meta.json")])
    assert bool(running(tmp_path, handover.SERVE)) == wanted
    assert run.wait() == 0
    wait_for(lambda: not running(tmp_path, handover.SERVE))
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/tiny/runs/*/s1/run.json")]
    assert records and all(each.get("warm", False) == wanted for each in records)
