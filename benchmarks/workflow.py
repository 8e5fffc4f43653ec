"""What the workflow adds to the time of the tools beneath it, how planning grows, and how long the demo takes.

Everything runs in a temporary copy of the files that git does not ignore, so that nobody's results are touched.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import yaml

from benchmarks.measure import REACH, Row, compared, grown, take_turns

PROJECT = Path(__file__).resolve().parent.parent
SNAKEMAKE = (sys.executable, "-m", "snakemake")
MORE_SECONDS, START_SECONDS, DEMO_SECONDS = 3.0, 1.0, 150.0
CORES = "2"

PLAN = Row(
    "plan", "s", f"<= {MORE_SECONDS:g} s more", "snakemake -n of an empty Snakefile; ours: all paper targets, 3 seeds"
)
NOOP = Row(
    "noop", "s", f"<= {MORE_SECONDS:g} s more", "snakemake of an empty Snakefile; ours: a second `snakemake tiny`"
)
STARTUP = Row(
    "startup", "s", f"<= {START_SECONDS:g} s more", "python -c 'import torch'; ours: a pretraining with no step left"
)
STARTUP_OPTIMIZER = Row(
    "startup_optimizer",
    "s",
    f"<= {START_SECONDS:g} s more",
    "torch with an optimizer, which no training can do without",
)
STARTUP_WARM = Row(
    "startup_warm", "s", f"<= {START_SECONDS:g} s more", "python -c pass; ours: the same, forked from a warm process"
)
DEMO = Row("demo", "s", f"<= {DEMO_SECONDS:g} s", f"no peer; `snakemake tiny` from nothing on {CORES} cores")
RUNS = Row("scaling_runs", "ratio", REACH, "seconds of `snakemake -n`, by pretraining runs of a table")
SEEDS = Row("scaling_seeds", "ratio", REACH, "seconds of `snakemake -n` of all paper targets, by seeds")
NAMES = (
    PLAN.name,
    STARTUP.name,
    STARTUP_OPTIMIZER.name,
    STARTUP_WARM.name,
    NOOP.name,
    DEMO.name,
    RUNS.name,
    SEEDS.name,
)

# Creating it imports torch._dynamo.
AN_OPTIMIZER = "import torch; torch.optim.AdamW([torch.zeros(1, requires_grad=True)])"

RUN_COUNTS = (20, 100, 500, 2_000, 5_000)
SEED_COUNTS = (1, 2, 4, 8, 16)


def planning(rounds: int) -> list[Row]:
    """Planning every target of the paper from nothing."""
    with _copy() as (project, empty):
        ours = _paper(project, 3)
        peer = _command(empty, *SNAKEMAKE, "-n", "--quiet", "all")
        return [_beside(PLAN, ours, peer, rounds)]


def planning_by_runs(rounds: int) -> list[Row]:
    """Planning a table of many runs from nothing: the config, the plan, the DAG and the sum of its jobs."""
    with _copy() as (project, _):
        return [grown(RUNS, {runs: _plan_of(project, runs) for runs in RUN_COUNTS}, rounds)]


def planning_by_seeds(rounds: int) -> list[Row]:
    """The same of every target of the paper, with many seeds."""
    with _copy() as (project, _):
        return [grown(SEEDS, {seeds: _paper(project, seeds) for seeds in SEED_COUNTS}, rounds)]


def _paper(project: Path, seeds: int) -> partial:
    """A turn that plans every target of the paper with so many seeds."""
    chosen = ",".join(map(str, range(1, seeds + 1)))
    return _command(project, *SNAKEMAKE, "-n", "--quiet", "all", "--config", f"seeds=[{chosen}]")


def _plan_of(project: Path, runs: int) -> partial:
    """A turn that plans a table of so many runs, in a preset of its own."""
    overlay = project / f"runs_{runs}.yaml"
    overlay.write_text(yaml.safe_dump({"presets": {f"runs_{runs}": many_runs(runs)}}))
    target = f"results/runs_{runs}/table.md"
    return _command(project, *SNAKEMAKE, "-n", target, "--quiet", "all", "--configfile", overlay.name)


def many_runs(runs: int) -> dict[str, Any]:
    """A preset with one table of so many runs, which differ in their weight decay."""
    decays = [1e-7 * number for number in range(1, runs + 1)]
    table = {
        "base": {"method": "simclr"},
        "grid": {"optim.weight_decay": decays},
        "probes": [{"weight_decay": [1e-4, 1e-5, 1e-6]}],
        "table": {"caption": "Many runs."},
    }
    return {"inherit": "named", "experiments": {"table": table}}


def tiny(rounds: int) -> list[Row]:
    """The tiny preset from nothing, once; then the same call with nothing left to do."""
    with _copy() as (project, empty):
        ours = _command(project, *SNAKEMAKE, "tiny", "--cores", CORES, "--quiet", "all")
        peer = _command(empty, *SNAKEMAKE, "--cores", CORES, "--quiet", "all")
        seconds = ours()
        demo = replace(DEMO, ours=seconds, reached=seconds <= DEMO_SECONDS, n=1)
        return [_beside(NOOP, ours, peer, rounds), demo]


def startup(rounds: int) -> list[Row]:
    """From the command to its results for a ResNet-18, when the checkpoint of the last epoch is there.

    By itself beside torch and beside torch with an optimizer, and forked from a warm process beside Python.
    """
    with _copy() as (project, empty):
        arguments, checkpoints = _finished_run(empty)
        start = _command(project, sys.executable, "-m", "issl", "pretrain", *arguments)

        def ours() -> float:
            out = empty / "out"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(checkpoints, out / "checkpoints")  # a run removes them when it is done
            return start()

        alone = _beside(STARTUP, ours, _command(empty, sys.executable, "-c", "import torch"), rounds, START_SECONDS)
        optimizer = _command(empty, sys.executable, "-c", AN_OPTIMIZER)
        beside_optimizer = _beside(STARTUP_OPTIMIZER, ours, optimizer, rounds, START_SECONDS)
        with _warm(project):
            forked = _beside(STARTUP_WARM, ours, _command(empty, sys.executable, "-c", "pass"), rounds, START_SECONDS)
        return [alone, beside_optimizer, forked]


@contextmanager
def _warm(project: Path) -> Iterator[None]:
    """Lets jobs of the project be forked, with one thread as in the preset tiny."""
    from issl.jobs import handover, warm

    own = dict.fromkeys(handover.THREADS, "1") | {"PYTHONPATH": "", "WANDB_MODE": "offline"}
    with chdir(project), mock.patch.dict(os.environ, own):
        process = warm.begin()
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _beside(row: Row, ours: partial, peer: partial, rounds: int, most: float = MORE_SECONDS) -> Row:
    ours_took, peer_took = take_turns(ours, peer, rounds=rounds)
    more = median(ours_took) - median(peer_took)
    return replace(compared(row, ours_took, peer_took, 1, seconds_more=more), reached=more <= most)


@contextmanager
def _copy() -> Iterator[tuple[Path, Path]]:
    """Gives a copy of the project without its results, and a folder whose Snakefile is empty."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        project, empty = Path(folder) / "project", Path(folder) / "empty"
        for name in filter(None, listed.stdout.split("\0")):
            if (PROJECT / name).is_file():  # a file that was deleted stays listed until that is committed
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, project / name)
        empty.mkdir()
        (empty / "Snakefile").touch()
        yield project, empty


def _command(folder: Path, *command: str) -> partial:
    """A turn that runs a command in a folder."""
    return partial(_seconds, folder, command)


def _seconds(folder: Path, command: Sequence[str]) -> float:
    """Wall time of a command. Raises RuntimeError, with what it said, if it fails."""
    environment = {**os.environ, "PYTHONPATH": "", "WANDB_MODE": "offline"}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with status {done.returncode}:\n{done.stdout[-2000:]}")
    return seconds


def _finished_run(folder: Path) -> tuple[list[str], Path]:
    """Trains one epoch and keeps the checkpoint that a run removes at its end.

    Gives the arguments of the command that continues it into folder/out, and the folder of the checkpoint.
    """
    from issl import data
    from issl.jobs.execution import Execution
    from issl.spec.data import Synthetic
    from issl.spec.run import RunSpec
    from issl.training.pretrain import pretrain

    images = Synthetic(kind="synthetic", train_per_class=13, test_per_class=13, image_size=64)
    run = RunSpec.model_validate(
        {"data": images, "objective": {"name": "simclr"}, "optim": {"epochs": 1, "batch_size": 128, "warmup_epochs": 0}}
    )
    execution = Execution(device="cpu", progress=False, checkpoint_minutes=0)
    data.prepare(images, folder / "data", progress=False)
    with mock.patch("issl.training.checkpoints.remove"):
        pretrain(run, 1, folder / "data", folder / "trained", execution)
    arguments = ["--spec", run.canonical(), "--seed", "1", "--data", str(folder / "data"), "--out", str(folder / "out")]
    return [*arguments, "--settings", json.dumps(execution.model_dump(mode="json"))], folder / "trained" / "checkpoints"
