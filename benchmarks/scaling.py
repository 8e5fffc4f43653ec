"""How costs grow: with the batch, the dimension, the number of probes, and the number of images.

Each row measures one cost at several sizes. `benchmarks.workflow` measures one more, planning by the number of runs;
the plot shows all of them.
"""

import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks import workflow
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
HEADS = Row("scaling_heads", "ratio", REACH, "seconds of linear probes side by side, by their number")
IMAGES = Row("scaling_images", "ratio", REACH, "seconds of a pretraining epoch, by images of the data set")
NAMES = (BATCH.name, DIM.name, HEADS.name, IMAGES.name)

BATCHES = (64, 128, 256, 512, 1024)
DIMS = (128, 256, 512, 1024, 2048, 4096, 8192)
HEAD_COUNTS = (1, 2, 4, 8, 16, 32, 64)
IMAGE_COUNTS = (2_000, 6_000, 20_000, 60_000, 200_000)

LABELS = {  # of the plot: what grows, and with what
    BATCH.name: ("batch size", "step (s)"),
    DIM.name: ("dimension of the representation", "step (s)"),
    HEADS.name: ("probes side by side", "training (s)"),
    IMAGES.name: ("images of the data set", "epoch (s)"),
    workflow.RUNS.name: ("pretraining runs", "planning (s)"),
}


def curves(rounds: int) -> list[Row]:
    """The four rows, of a narrow ResNet-10 at 32 px, on the GPU if there is one."""
    execution = Execution(device="auto", progress=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = small_run(BATCHES[0])
        data.prepare(run.data, folder, progress=False)
        batches = {size: partial(step, small_run(size), folder, execution) for size in BATCHES}
        dims = {size: partial(step, small_run(128, dim=size), folder, execution) for size in DIMS}
        rows = [grown(BATCH, batches, rounds), grown(DIM, dims, rounds)]
    probes = {size: partial(probe_heads, size, 4096, 256, 3, execution) for size in HEAD_COUNTS}
    epochs = {size: partial(epoch, small_run(128), size, 8, execution) for size in IMAGE_COUNTS}
    return [*rows, grown(HEADS, probes, rounds), grown(IMAGES, epochs, rounds)]


# --- costs: seconds --------------------------------------------------------------------------------------------------


def small_run(batch_size: int, dim: int | None = None) -> RunSpec:
    """CISSL with a quarter of a ResNet-10's channels; with the expanding head where a dimension is given."""
    encoder: dict[str, Any] = {"arch": "resnet10", "width": 16, "dim": 128}
    if dim:
        encoder |= {"dim": dim, "head": "expand", "bottleneck": 128}
    return RunSpec.model_validate(
        {
            "data": {"kind": "synthetic", "classes": 16, "train_per_class": 64, "test_per_class": 1},
            "objective": {"name": "cissl"},
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
    seconds = short_epochs(run, noise(run, n_images), steps, 2, execution)[-1]
    return seconds / steps * n_images / run.optim.batch_size


# --- plot ------------------------------------------------------------------------------------------------------------


def plot(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draws the curves among the records side by side into `path`; grey is a cost that grows as its work."""
    found = {record["name"]: record for record in records if record["name"] in LABELS and record["details"]}
    figure = Figure(figsize=(13.5, 2.9), layout="constrained")
    for axes, (name, (work, cost)) in zip(figure.subplots(1, len(LABELS)), LABELS.items()):
        axes.set(xlabel=work, ylabel=cost)
        axes.spines[["top", "right"]].set_visible(False)
        if name not in found:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
            continue
        sizes, figures = (np.array(found[name]["details"][key], float) for key in ("sizes", "figures"))
        axes.set(xscale="log", yscale="log", title=f"slope {found[name]['details']['slope']:.2f}")
        # Through the first point: what grows faster than its work rises above the line.
        axes.plot(sizes, figures[0] * sizes / sizes[0], color="0.7", label="as its work")
        axes.plot(sizes, figures, marker="o", color="#0173b2", label="measured")
        ticks = sizes[:: 2 if len(sizes) > 4 else 1]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _short(size)))
        axes.grid(axis="y", color="0.92")
    handles, names = next((axes.get_legend_handles_labels() for axes in figure.axes if axes.lines), ([], []))
    if handles:
        figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def _short(size: float) -> str:
    return f"{size / 1000:g}k" if size >= 1000 and size % 1000 == 0 else f"{size:g}"


if __name__ == "__main__":
    rows = curves(1)
    plot([row.record() for row in rows], Path("scaling.png"))
    for row in rows:
        print(row.name, row.ours, row.details)
