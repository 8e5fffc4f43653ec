"""A grid of linear probes trained side by side, beside the same probes one after the other."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.measure import Row, compared, take_turns
from issl.data import arrays
from issl.jobs import devices
from issl.jobs.execution import Execution
from issl.probing import shards
from issl.probing.heads import RECIPE
from issl.probing.side_by_side import fit_and_score, groups
from issl.probing.subsets import stratified
from issl.probing.task import Task
from issl.spec.data import Synthetic
from issl.spec.encoding import Encoding
from issl.spec.probe import Linear, ProbeGrid

SEED = 1
TRAIN, TEST, CLASSES = 20_000, 2_000, 200
NOISE, STRAYED = {512: 0.5, 2048: 0.5}, 0.1  # with these, accuracies lie between 50 and 90 %
DECAYS, FRACTIONS = (1e-4, 1e-5, 1e-6), (1.0, 0.1, 0.01)
ROUNDS = 3  # at most: a round of both contenders takes minutes
LEAST = {"cpu": 6, "cuda": 8}  # ratios to reach
ALIKE = 0.3  # points of accuracy within which both contenders must agree

GRID = Row("probes_512", "s", f"ratio >= {LEAST['cpu']}, on a GPU {LEAST['cuda']}", "the same probes one by one")
WIDE = replace(GRID, name="probes_2048")
NAMES = (GRID.name, WIDE.name)

PIXELS = Synthetic(kind="synthetic")  # what `pixels` says of itself

Rows = tuple[Tensor, Tensor]  # features (n, dim), labels (n,)


def grid(rounds: int, n_train: int = TRAIN, n_test: int = TEST, classes: int = CLASSES, epochs: int = 100) -> list[Row]:
    """Nine probes on features of 512 and of 2048 dimensions, each with 100 epochs; in at most `ROUNDS` rounds.

    Raises RuntimeError if the contenders' accuracies differ by more than `ALIKE` points.
    """
    execution = Execution(device="auto", progress=False)
    where = devices.choose(execution)
    kind = devices.precision(execution, where)
    probes = [
        Linear(kind="linear", weight_decay=decay, fraction=part, epochs=epochs)
        for part in FRACTIONS
        for decay in DECAYS
    ]
    rows = []
    for row, dim in ((GRID, 512), (WIDE, 2048)):
        z, labels = drawn(n_train + n_test, dim, classes, NOISE[dim])
        with tempfile.TemporaryDirectory() as name:
            task = on_device(Path(name), z, labels, n_train, where, kind)
            row = beside_single_probes(row, probes, task, LEAST[where.type], min(rounds, ROUNDS))
        row.details["seconds_of_scikit_learn_for_one_probe"] = scikit_learn((z[:n_train], labels[:n_train]))
        if dim == min(NOISE):
            # A job of several weight decays holds labels out to choose one: a hundredth of these is too few for that.
            possible = [probe for probe in probes if probe.fraction > min(FRACTIONS)]
            row.details["seconds_as_jobs"] = jobs(possible, z, labels, n_train, classes)
        rows.append(row)
    return rows


def drawn(n: int, dim: int, classes: int, noise: float) -> Rows:
    """Features around one centre a class, float16 and not negative, as an encoder gives them; classes take turns.

    Rows are about as long in every dimension: the recipe's learning rate suits lengths, not dimensions.
    Some lie around the centre of another class, so that no number of labels leads to an accuracy of 100 %.
    """
    draws = torch.Generator().manual_seed(SEED)
    centres = torch.rand(classes, dim, generator=draws)
    labels = torch.arange(n) % classes
    strayed = torch.rand(n, generator=draws) < STRAYED
    seen = torch.where(strayed, torch.randint(classes, (n,), generator=draws), labels)
    own = noise * torch.randn(n, dim, generator=draws)
    return ((centres[seen] + own).clamp_(min=0) * (512 / dim) ** 0.5).half(), labels


def on_device(folder: Path, z: Tensor, labels: Tensor, n_train: int, where: torch.device, kind: str) -> Task:
    """What a job of probes makes of the features that it finds in a folder, which this fills; all are resident."""
    shards.write(folder, 0, z.numpy())
    features = shards.Features(folder, len(z), where, resident_gb=float("inf"))
    rows, classes = np.arange(len(z)), int(labels.max()) + 1
    return Task(SEED, labels.numpy(), rows[:n_train], rows[n_train:], classes, where, kind, features=features)


def beside_single_probes(row: Row, probes: Sequence[Linear], task: Task, least: float, rounds: int) -> Row:
    """The row with the seconds of both contenders, who train on the same features.

    Raises RuntimeError if their accuracies differ by more than `ALIKE` points.
    """
    accuracies: dict[str, dict[Linear, float]] = {}
    work = (probes, task, accuracies)
    together, alone = take_turns(partial(side_by_side, *work), partial(one_by_one, *work), rounds=rounds)
    difference = 100 * max(abs(accuracies["side by side"][probe] - accuracies["one by one"][probe]) for probe in probes)
    if difference > ALIKE:
        raise RuntimeError(f"{row.name}: accuracies differ by {difference:.2f} points: {accuracies}")
    return compared(
        row,
        together,
        alone,
        least,
        probes=len(probes),
        device=devices.describe(task.device),
        precision=task.precision,
        accuracies=[100 * accuracies["side by side"][probe] for probe in probes],
        largest_difference_in_points=difference,
    )


# --- the contenders: seconds -----------------------------------------------------------------------------------------


def side_by_side(probes: Sequence[Linear], task: Task, found: dict[str, dict[Linear, float]]) -> float:
    """Probes with the same labels together, as a job of probes trains them; puts accuracies into `found`."""
    return _timed("side by side", groups(probes, RECIPE.own), task, found)


def one_by_one(probes: Sequence[Linear], task: Task, found: dict[str, dict[Linear, float]]) -> float:
    """The same code, one probe at a time; puts accuracies into `found`."""
    return _timed("one by one", [[probe] for probe in probes], task, found)


def _timed(name: str, parts: Sequence[Sequence[Linear]], task: Task, found: dict[str, dict[Linear, float]]) -> float:
    found[name] = {}
    started = time.perf_counter()
    for part in parts:
        subset = stratified(task.labels[task.train], part[0].fraction, SEED)
        scores = fit_and_score(part, RECIPE, task, task.train[subset], task.test)
        found[name] |= {probe: score["top-1"] for probe, score in zip(part, scores)}
    return time.perf_counter() - started


# --- for scale -------------------------------------------------------------------------------------------------------


def scikit_learn(train: Rows) -> float:
    """Seconds of one logistic regression with scikit-learn's defaults, on all labels."""
    z, labels = (tensor.numpy() for tensor in train)
    started = time.perf_counter()
    LogisticRegression().fit(z.astype(np.float32), labels)
    return time.perf_counter() - started


def jobs(probes: Sequence[Linear], z: Tensor, labels: Tensor, n_train: int, classes: int) -> dict[str, float]:
    """Seconds of one job for all probes, and of a job for each, one after the other, as a workflow would start them.

    The one job does more: it trains every probe once more to choose the weight decay on held-out labels.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels(folder / "data", labels.numpy(), n_train, classes)
        shards.write(folder / "features", 0, z.numpy())
        together = _job(folder, probes)
        alone = sum(_job(folder, [probe]) for probe in probes)
    return {"probes": len(probes), "one_job": together, "a_job_a_probe": alone}


def _job(folder: Path, probes: Sequence[Linear]) -> float:
    options = {
        "encoder": "drawn",
        "spec": Encoding(data=PIXELS, resize=1, crop=1).canonical(),
        "probes": ProbeGrid(probes=tuple(probes)).canonical(),
        "seed": SEED,
        "features": folder / "features",
        "data": folder / "data",
        "out": Path(tempfile.mkdtemp(dir=folder), "scores.csv"),  # a job never overwrites the scores of another grid
        "log": folder / "probe.log",
        "settings": Execution(device="auto", progress=False).model_dump_json(),
    }
    command = [sys.executable, "-m", "issl", "probe", *(f"--{name}={value}" for name, value in options.items())]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def pixels(folder: Path, labels: np.ndarray, n_train: int, classes: int) -> None:
    """A prepared data set of one pixel an image, all different: probes read labels and splits, never images."""
    content = arrays.Content(
        labels=labels,
        splits={"train": n_train, "test": len(labels) - n_train},
        classes=[str(number) for number in range(classes)],
        image_size=1,
        open=lambda: _numbered,
        source={"name": "pixels"},
        parallel=False,
    )
    arrays.write(folder, content, PIXELS)


def _numbered(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=">u4").view(np.uint8).reshape(-1, 1, 1, 4)[..., 1:]


if __name__ == "__main__":
    print(json.dumps([row.record() for row in grid(1)], indent=2))
