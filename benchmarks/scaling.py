"""How costs of training grow: with the batch, the dimension, the classes, the number of probes, and the images.

Each row measures one cost at several sizes. `benchmarks.stages` measures the other stages, and `benchmarks.workflow`
planning.
"""

import gc
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import REACH, Row, grown
from benchmarks.pretraining import noise, real_loop, short_epochs
from benchmarks.probing import drawn, on_device
from issl import data
from issl.jobs import devices
from issl.jobs.execution import Execution
from issl.probing.heads import RECIPE
from issl.probing.side_by_side import fit_and_score
from issl.spec.probe import Linear
from issl.spec.run import RunSpec

BATCH = Row("scaling_batch", "ratio", REACH, "seconds of a pretraining step, by images of a batch")
DIM = Row("scaling_dim", "ratio", REACH, "seconds of a pretraining step, by dimensions of the representation")
CLASSES = Row("scaling_classes", "ratio", REACH, "seconds of a pretraining step of DISSL, by its classes")
HEADS = Row("scaling_heads", "ratio", REACH, "seconds of linear probes side by side, by their number")
IMAGES = Row("scaling_images", "ratio", REACH, "seconds of a pretraining epoch, by images of the data set")
NAMES = (BATCH.name, DIM.name, CLASSES.name, HEADS.name, IMAGES.name)

BATCHES = (64, 128, 256, 512, 1024)
DIMS = (128, 256, 512, 1024, 2048, 4096, 8192)
CLASS_COUNTS = (256, 1024, 4096, 16_384)
HEAD_COUNTS = (1, 2, 4, 8, 16, 32, 64)
IMAGE_COUNTS = (2_000, 6_000, 20_000, 60_000, 200_000, 1_000_000)


def steps(rounds: int) -> Iterator[Row]:
    """Steps of a narrow ResNet-10 at 32 px, by batch, dimension and classes; on the GPU if there is one."""
    execution = Execution(device="auto", progress=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = small_run(BATCHES[0])
        data.prepare(run.data, folder, progress=False)
        batches = {size: partial(step, small_run(size), folder, execution) for size in BATCHES}
        dims = {size: partial(step, small_run(128, dim=size), folder, execution) for size in DIMS}
        classes = {size: partial(step, small_run(128, classes=size), folder, execution) for size in CLASS_COUNTS}
        for row, turns in ((BATCH, batches), (DIM, dims), (CLASSES, classes)):
            yield grown(row, turns, rounds)


def heads(rounds: int) -> list[Row]:
    """Linear probes side by side, on the GPU if there is one."""
    execution = Execution(device="auto", progress=False)
    probes = {size: partial(probe_heads, size, 4096, 256, 3, execution) for size in HEAD_COUNTS}
    return [grown(HEADS, probes, rounds)]


def images(rounds: int) -> list[Row]:
    """Epochs of the same ResNet over more and more images, on the GPU if there is one."""
    execution = Execution(device="auto", progress=False)
    epochs = {size: partial(epoch, small_run(128), size, 8, execution) for size in IMAGE_COUNTS}
    return [grown(IMAGES, epochs, rounds)]


# --- costs: seconds --------------------------------------------------------------------------------------------------


def small_run(batch_size: int, dim: int | None = None, classes: int | None = None) -> RunSpec:
    """A quarter of a ResNet-10's channels; with the expanding head where a dimension is given.

    CISSL, or DISSL with so many classes.
    """
    objective = {"name": "dissl", "classes": classes} if classes else {"name": "cissl"}
    encoder: dict[str, Any] = {"arch": "resnet10", "width": 16, "dim": 128}
    if dim:
        encoder |= {"dim": dim, "head": "expand", "bottleneck": 128}
    return RunSpec.model_validate(
        {
            "data": {"kind": "synthetic", "classes": 16, "train_per_class": 64, "test_per_class": 1},
            "objective": objective,
            "encoder": encoder,
            "optim": {"batch_size": batch_size, "epochs": 4, "warmup_epochs": 1},
        }
    )


def step(run: RunSpec, folder: Path, execution: Execution) -> float:
    """Of one step of the real loop."""
    return run.optim.batch_size / real_loop(run, folder, execution)


def probe_heads(heads: int, n: int, dim: int, epochs: int, execution: Execution) -> float:
    """Of training that many linear probes side by side on n features, and of scoring them."""
    where = devices.choose(execution)
    probes = [Linear(kind="linear", weight_decay=1e-6 * number, epochs=epochs) for number in range(heads)]
    with tempfile.TemporaryDirectory() as name:
        task = on_device(Path(name), *drawn(n, dim, 50, 0.3), n, where, devices.precision(execution, where))
        started = time.perf_counter()
        fit_and_score(probes, RECIPE, task, task.train, task.train[:100])
        return time.perf_counter() - started


def epoch(run: RunSpec, n_images: int, steps: int, execution: Execution) -> float:
    """Of an epoch over n_images, from its first `steps` steps: data access, augmentation and training."""
    gc.collect()  # a trainer and its module refer to each other, and would keep the images of the turn before
    seconds = short_epochs(run, noise(run, n_images), steps, 2, execution)[-1]
    return seconds / steps * n_images / run.optim.batch_size
