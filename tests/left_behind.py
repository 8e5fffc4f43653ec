"""The files that jobs leave, without the jobs."""

import json
from pathlib import Path

DEVICE = "CPU, 1 threads"


def put(path, content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def finish(plan, run, seed=1, seconds=20.0, whole=None, device=DEVICE):
    """Leaves what a pretraining leaves: its outputs, and Snakemake's record of `whole` seconds."""
    folder = f"{plan.root}/runs/{run}/s{seed}"
    record = {"run": run, "seed": seed, "spec": plan.runs[run].model_dump(mode="json"), "device": device}
    times = {"seconds": seconds, "seconds_this_attempt": seconds + 1, "processes": 1, "attempts": [{}]}
    put(f"{folder}/run.json", record | times)
    put(f"{folder}/encoder.safetensors", "")
    put(f"{folder}/history.csv", "")
    if whole:
        put(f"{plan.root}/benchmarks/pretrain/{run}-s{seed}.tsv", f"s\th:m:s\n{whole}\t0:00:00\n")


def score(plan, experiment, run, seed=1, seconds=5.0, device=DEVICE):
    """Leaves what encoding its images and scoring it for an experiment leaves."""
    for row, probe, own in plan.scored(experiment):
        if (row.name, own) == (run, seed):
            encoding = row.encoding.model_dump(mode="json", exclude_defaults=True)
            about = {"device": device, "seconds": seconds}
            put(f"{plan.root}/{row.features(seed)}.json", about | {"encoding": encoding})
            scores = Path(plan.root, row.score(probe, seed))
            put(scores, "")
            put(scores.with_suffix(".json"), about | {"spec": row.probes[probe].model_dump(mode="json")})


def named(plan, start):
    """The only run whose id begins so."""
    (found,) = [run for run in plan.runs if run.startswith(start)]
    return found
