"""Kills a real workflow at random moments until it has finished, and compares what it made with an undisturbed one.

    python tests/chaos.py --kills 20
    python tests/chaos.py --kills 100 --seed 7

Victims are by turns a job (SIGKILL or SIGTERM), the main snakemake process, and everything at once, as when power is
lost, in an order that is drawn for each four kills. After each loss the same command is given again: nothing is cleaned
up by hand. Training is in float32 on the CPU, where the result must be the same to the last bit. Ends with a summary in
JSON; exit status 1 for any difference.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pandas as pd
import psutil
from safetensors.numpy import load_file

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from miniature import without_references  # noqa: E402

from issl.config.presets import merge  # noqa: E402
from issl.jobs.files import write_text  # noqa: E402

RESULTS = "results/tiny"
EXACT = {"execution": {"precision": "32", "checkpoint_minutes": 0.01}}  # 0.6 s: several checkpoints in every run
TIMES = ["seconds", "images_per_second"]
# On SIGTERM the main process waits for its jobs: nothing would be lost.
KINDS = (
    ("job", signal.SIGKILL),
    ("job", signal.SIGTERM),
    ("workflow", signal.SIGKILL),
    ("everything", signal.SIGKILL),
)


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--target", default="tiny", show_default=True, help="A target of the preset tiny.")
@click.option("--seed", default=0, show_default=True, help="Of the moments and the victims.")
@click.option("--cores", default=2, show_default=True)
def main(kills: int, target: str, seed: int, cores: int) -> None:
    """Kills a workflow at random moments and compares its results with those of an undisturbed one."""
    summary = chaos(kills, target, random.Random(seed), cores)
    click.echo(json.dumps(summary, indent=2))
    sys.exit(bool(summary["differences"]))


def chaos(
    kills: int, target: str, draws: random.Random, cores: int = 2, changes: Mapping[str, Any] | None = None
) -> dict:
    """Counts of what happened, and the files that differ. `changes` overlay the preset tiny."""
    changes = changes or {}
    order = [kind for _ in range(0, kills, len(KINDS)) for kind in draws.sample(KINDS, len(KINDS))][:kills]
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        calm = workplace(Path(name, "calm"), changes)
        started = time.monotonic()
        undisturbed = start(calm, target, cores)
        assert undisturbed.wait() == 0, said(calm)
        calm_seconds = time.monotonic() - started
        counts, differences, rounds, calls = Counter(), [], 0, 0
        while counts.total() < kills or rounds == 0:
            rounds += 1
            folder = workplace(Path(name, f"round{rounds}"), changes)
            calls += disturbed(folder, target, cores, order, 0.8 * calm_seconds / kills, counts, draws)
            differences += [f"round {rounds}: {path}" for path in different(calm, folder)]
        logs = [path for n in range(rounds) for path in Path(name, f"round{n + 1}").glob(f"{RESULTS}/logs/pretrain/*")]
        return {
            "target": target,
            "kills": dict(counts),
            "rounds": rounds,
            "calls of snakemake": calls,
            "trainings continued from a checkpoint": sum(
                text.count("continuing after step") for text in map(read, logs)
            ),
            "epochs trained twice": sum(map(repeated_epochs, logs)),
            "seconds undisturbed": round(calm_seconds),
            "files compared": len(made(calm)),
            "differences": differences,
        }


def disturbed(
    folder: Path,
    target: str,
    cores: int,
    order: Sequence[tuple[str, signal.Signals]],
    pause: float,
    counts: Counter,
    draws: random.Random,
) -> int:
    """Gives the same command until it succeeds, killing something every `pause` seconds on average; how often."""
    kills = len(order)
    for call in range(1, 10 * kills + 10):
        workflow = start(folder, target, cores)
        while workflow.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                workflow.wait(max(1, pause * draws.uniform(0.1, 1.9)))
                break
            if counts.total() < kills and (struck := strike(folder, workflow, *order[counts.total()], draws)):
                counts[struck] += 1
        if workflow.returncode == 0:
            return call
    raise RuntimeError(f"{folder}: no end after {call} calls: {said(folder)}")


def strike(
    folder: Path, workflow: subprocess.Popen, what: str, number: signal.Signals, draws: random.Random
) -> str | None:
    """Kills one of the things that run; its name, or None where it was a job's turn and there is none."""
    running = processes(folder)
    if what == "job":
        jobs = list(filter(is_job, running))
        if not jobs:
            return None
        victim = draws.choice(jobs)
        send(victim, number)
        return f"{victim.info['cmdline'][3]} {number.name}"
    for victim in running if what == "everything" else [psutil.Process(workflow.pid)]:
        send(victim, number)
    workflow.wait()
    return f"{what} {number.name}"


def processes(folder: Path) -> list[psutil.Process]:
    """Everything that works in this folder, orphans of killed workflows as well."""
    running = psutil.process_iter(["cwd", "cmdline"])
    return [process for process in running if process.info["cwd"] == str(folder) and process.info["cmdline"]]


def is_job(process: psutil.Process) -> bool:
    return process.info["cmdline"][1:3] == ["-m", "issl"]


def send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def workplace(folder: Path, changes: Mapping[str, Any]) -> Path:
    """A folder with a config.yaml whose preset *tiny* has these changes and computes exactly."""
    folder.mkdir()
    config = merge(without_references(), {"presets": {"tiny": merge(changes, EXACT)}})
    write_text(folder / "config.yaml", json.dumps(config))  # JSON is YAML
    return folder.resolve()


def start(folder: Path, target: str, cores: int) -> subprocess.Popen:
    """The command that is given again and again."""
    command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", "--directory", folder, target]
    profile = ["--profile", PROJECT / "profiles/local", "--cores", cores, "--quiet", "all"]
    with (folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(
            list(map(str, [*command, *profile])),
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        )


def said(folder: Path) -> str:
    """The end of what Snakemake said."""
    return read(folder / "snakemake.log")[-3000:]


def read(path: Path) -> str:
    return path.read_text(errors="replace")


def made(folder: Path) -> list[str]:
    """The results that must be the same: weights, histories, scores, tidy results, tables."""
    kinds = (
        "runs/*/s*/encoder.safetensors",
        "runs/*/s*/history.csv",
        "runs/*/s*/probes/*/*.csv",
        "*.csv",
        "*.md",
        "*.tex",
    )
    root = folder / RESULTS
    return sorted(
        str(path.relative_to(root)) for kind in kinds for path in root.glob(kind) if path.name != "reproduction.md"
    )


def different(calm: Path, folder: Path) -> list[str]:
    """Results that one of two folders lacks, or whose contents differ in more than times."""
    ours, theirs = made(calm), made(folder)
    return sorted({*ours} ^ {*theirs}) + [
        name for name in ours if name in theirs and content(calm, name) != content(folder, name)
    ]


def content(folder: Path, name: str) -> Any:
    path = folder / RESULTS / name
    if path.suffix == ".safetensors":  # whose header has its keys in any order
        return {key: (value.dtype.str, value.tobytes()) for key, value in load_file(path).items()}
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype=str).drop(columns=TIMES, errors="ignore").to_csv()
    return path.read_bytes()


def repeated_epochs(log: Path) -> int:
    """Epochs that were finished, lost and finished again."""
    finished = re.findall(r"epoch (\d+)/\d+ ", read(log))
    return len(finished) - len(set(finished))


if __name__ == "__main__":
    main()
