"""How costs around a pretraining grow: of data sets, features and probes with the images, of results with the runs."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import REACH, Row, grown
from benchmarks.pretraining import SEED, cores
from benchmarks.scaling import probe_heads
from issl import data
from issl.config.display import Table
from issl.data import arrays
from issl.jobs.execution import Execution
from issl.probing.featurize import featurize
from issl.report.results import SCORES, aggregate, over_seeds, points
from issl.spec.data import Synthetic
from issl.spec.encoding import Encoding
from issl.spec.run import RunSpec
from issl.training.pretrain import pretrain

PREPARE = Row("scaling_prepare", "ratio", REACH, "seconds to prepare a data set, by its images")
FEATURIZE = Row("scaling_featurize", "ratio", REACH, "seconds of features, by images")
PROBE = Row("scaling_probe", "ratio", REACH, "seconds of an epoch of a linear probe, by training images")
AGGREGATE = Row("scaling_aggregate", "ratio", REACH, "seconds from score files to the points of a table, by runs")
NAMES = (PREPARE.name, FEATURIZE.name, PROBE.name, AGGREGATE.name)

PREPARE_COUNTS = (2_000, 6_000, 20_000, 60_000, 200_000)
FEATURIZE_COUNTS = (2_000, 6_000, 20_000, 60_000)
PROBE_COUNTS = (2_000, 20_000, 200_000, 1_000_000)
RUN_COUNTS = (20, 100, 500, 2_000, 5_000)

SIZE = 16  # pixels
IMAGES = Synthetic(kind="synthetic", image_size=SIZE)  # what `noise` says of itself
UNTRAINED = RunSpec.model_validate(
    {
        "data": IMAGES.model_dump(),
        "objective": {"name": "untrained"},
        "encoder": {"arch": "resnet10", "width": 16, "dim": 128},
    }
)
DECAYS = (1e-4, 1e-5, 1e-6)


def images(rounds: int) -> Iterator[Row]:
    """Data sets, features and probes by their images, on the GPU if there is one."""
    execution = Execution(device="auto", progress=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {n: partial(prepare, folder, n) for n in PREPARE_COUNTS}
        features = {n: encoded(folder / str(n), n, execution) for n in FEATURIZE_COUNTS}
        probes = {n: partial(probe_heads, 1, n, 64, 1, execution) for n in PROBE_COUNTS}
        for row, turns in ((PREPARE, sets), (FEATURIZE, features), (PROBE, probes)):
            yield grown(row, turns, rounds)


def results(rounds: int) -> list[Row]:
    """The points of a table by its runs."""
    with tempfile.TemporaryDirectory() as name:
        return [grown(AGGREGATE, {runs: partial(summarise, Path(name), runs) for runs in RUN_COUNTS}, rounds)]


# --- costs: seconds --------------------------------------------------------------------------------------------------


def prepare(folder: Path, n_images: int) -> float:
    """Of drawing synthetic images on all cores and writing their arrays."""
    half = n_images // 20
    spec = Synthetic(kind="synthetic", classes=10, train_per_class=half, test_per_class=half, image_size=SIZE)
    with tempfile.TemporaryDirectory(dir=folder) as out:  # a folder with another data set is refused
        started = time.perf_counter()
        data.prepare(spec, Path(out), threads=cores(), progress=False)
        return time.perf_counter() - started


def encoded(folder: Path, n_images: int, execution: Execution) -> partial:
    """A turn that gives the seconds of the features of so many images, which an untrained encoder makes."""
    noise(folder / "data", n_images)
    pretrain(UNTRAINED, SEED, folder / "data", folder / "run", execution)
    return partial(encode, folder, execution)


def encode(folder: Path, execution: Execution) -> float:
    """Of the features of the images in a folder, each time anew."""
    encoding = Encoding(data=IMAGES, resize=SIZE, crop=SIZE)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        started = time.perf_counter()
        featurize(str(folder / "run"), encoding, folder / "data", Path(out, "features"), 0, execution)
        return time.perf_counter() - started


def noise(folder: Path, n_images: int) -> None:
    """A prepared data set of noise: what its features cost does not depend on what it shows."""
    draws = np.random.default_rng(SEED)
    half = n_images // 2
    content = arrays.Content(
        labels=np.arange(n_images) % 10,
        splits={"train": half, "test": n_images - half},
        classes=[str(number) for number in range(10)],
        image_size=SIZE,
        open=lambda: lambda start, stop: draws.integers(0, 256, (stop - start, SIZE, SIZE, 3), np.uint8),
        source={"name": "noise"},
        parallel=False,
    )
    arrays.write(folder, content, IMAGES)


def summarise(folder: Path, runs: int) -> float:
    """Of a table's points from the scores and histories of so many runs, which share their two files."""
    scores, history = _scores(folder), _history(folder)
    rows = [_facts(run) for run in range(runs)]
    display = Table(caption="Many runs.")
    started = time.perf_counter()
    results = aggregate(rows, [scores] * runs, [history] * runs)
    over_seeds(points(results, display), ("line", "column", "metric"))
    return time.perf_counter() - started


def _facts(run: int) -> dict[str, Any]:
    """What the plan says of a run."""
    of_encoder = {"row": f"run {run}", "method": "SimCLR", "family": "linear", "dim": 512, "epochs": 300}
    of_training = {"batch_size": 512, "strength": 1.0, "blur": False, "encoder": f"runs/{run}", "released": False}
    of_probe = {"data": "tinyimagenet", "encoding": "tinyimagenet-00000000", "probe": "linear", "seed": SEED}
    known = {"metrics": ["top-1"], "n_settings": len(DECAYS), "trained_here": True}
    return of_encoder | of_training | of_probe | {"grid": "linear-00000000"} | known


def _scores(folder: Path) -> Path:
    shared = {"kind": "linear", "fraction": 1.0, "n_labels": 1000, "n_test": 1000, "metric": "top-1"}
    settings = [{"setting": f"weight decay {decay:g}", "weight_decay": decay} for decay in DECAYS]
    scores = [shared | one | {"test_acc": 0.5, "holdout_acc": 0.5} for one in settings]
    pd.DataFrame(scores, columns=list(SCORES)).to_csv(folder / "scores.csv", index=False)
    return folder / "scores.csv"


def _history(folder: Path) -> Path:
    epochs = [{"epoch": epoch, "loss": 1.0, "test_log_loss": 1.0} for epoch in range(1, 301)]
    pd.DataFrame(epochs).to_csv(folder / "history.csv", index=False)
    return folder / "history.csv"
