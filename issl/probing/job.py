"""One job: scores the probes of one kind on one encoder's features, or on images, and writes a score file."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs import devices, provenance, utilisation
from issl.jobs.execution import Execution
from issl.jobs.files import sha256, write_csv, write_json
from issl.jobs.locks import build_once
from issl.jobs.records import refuse_other
from issl.probing import kinds, shards
from issl.probing.scores import COLUMNS
from issl.probing.task import Images, Task
from issl.spec.encoding import Encoding
from issl.spec.probe import ON_CPU, READS_IMAGES, ProbeGrid, grid_id


@dataclass(frozen=True)
class Job:
    """Inputs, output and execution of a probe job."""

    encoder: str  # folder of a run, or name of a released model
    encoding: Encoding
    features: Path  # output of `featurize`; some kinds of probes read images instead
    data: Path  # the prepared data set
    out: Path  # the score file
    threads: int
    execution: Execution


def probe(grid: ProbeGrid, seed: int, job: Job) -> None:
    """Writes a row for each setting and metric to the CSV `job.out`, and its provenance to a JSON beside it.

    Waits while another process makes the same scores, and then uses them. Raises UserError for another ending than
    .csv, other data than the encoding's, or scores of something else; and as the kinds of probes do.
    """
    if job.out.suffix != ".csv":
        raise UserError(f"--out {job.out}: must end in .csv: beside it stands its record, which ends in .json")
    outputs = [job.out, job.out.with_suffix(".json")]
    build_once(outputs, lambda: _probe(grid, seed, job))


def _probe(grid: ProbeGrid, seed: int, job: Job) -> None:
    evaluate = kinds.evaluate(grid.kind)
    used = evaluate, type(grid.probes[0]), type(job.encoding.data)
    started, made_by = time.monotonic(), provenance.describe("probe", *used)
    device = torch.device("cpu") if grid.kind in ON_CPU else devices.choose(job.execution)
    precision = "32" if grid.kind in ON_CPU else devices.precision(job.execution, device)
    arrays, part = read(job.data, job.encoding.data), job.out.with_suffix(".part")
    about = {"grid": grid_id(grid), "seed": seed, "spec": grid.model_dump(mode="json"), "data": arrays.meta["sha256"]}
    refuse_other(job.out.with_suffix(".json"), "scores", about)
    labels = np.array(arrays.labels[: arrays.n_labelled])
    numbers = np.arange(len(labels))
    if grid.kind in READS_IMAGES:
        inputs = {"images": Images(arrays, job.encoder, job.encoding, part)}
    else:
        if (job.features / shards.ABOUT).exists():
            shards.refuse_others(job.features, _origin(job) | {"data": arrays.meta["sha256"]})
        inputs = {"features": shards.Features(job.features, len(labels), device, job.execution.resident_gb)}
    task = Task(
        *(seed, labels, numbers[arrays.split("train")], numbers[arrays.split("test")], arrays.n_classes),
        *(device, precision, job.threads),
        **inputs,
    )
    with utilisation.Watch(device) as watch:
        scores = evaluate(grid, task)
    usage = devices.usage(device, precision, started, watch.percent)
    write_json(job.out.with_suffix(".json"), about | usage | made_by)
    write_csv(job.out, COLUMNS, [row for score in scores for row in score.rows(grid.kind)])
    shutil.rmtree(part, ignore_errors=True)


def _origin(job: Job) -> dict[str, Any]:
    """What the features must come from; a run is known by its weights, for its folder may have moved."""
    weights = Path(job.encoder, "encoder.safetensors")
    encoder = {"weights": sha256(weights)} if weights.exists() else {"encoder": job.encoder}
    return {"encoding": json.loads(job.encoding.canonical()), **encoder}
