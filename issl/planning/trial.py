"""Short trainings that tell how long a step takes on this device, before anything else ran there."""

import csv
import json
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from issl.config.plan import Plan
from issl.jobs.execution import Execution, Wandb
from issl.jobs.files import write_text
from issl.jobs.records import read_record
from issl.planning import observed, work
from issl.planning.work import Sizes
from issl.spec.data import Synthetic
from issl.spec.objective import Supervised
from issl.spec.run import RunSpec, run_id

EPOCH = 10  # steps; the first epoch is not counted, as it also compiles and allocates


def measure(plan: Plan, runs: Iterable[str], steps: int) -> Iterator[str]:
    """Trains every distinct shape of these runs on synthetic images, and keeps the times; yields a line for each.

    Shapes that differ only in epochs and seeds are one. Runs on photographs are left out: what their decoding costs,
    only a training on them tells. Raises UserError as `pretrain` does.
    """
    shapes: dict[str, tuple[RunSpec, Sizes]] = {}
    for run in (plan.runs[name] for name in runs if plan.runs[name].epochs):
        sizes = observed.sizes(Path(plan.root), run.data)
        if sizes is None or run.augment.views:
            yield f"{run_id(run)}: not measured: its data set is not prepared, or has photographs"
        else:
            shapes.setdefault(work.pretraining(run, sizes).shape, (run, sizes))
    epochs = math.ceil(steps / EPOCH)
    for number, (run, sizes) in enumerate(shapes.values(), 1):
        device, seconds = _train(_trial(run, epochs), plan.config.execution, plan.config.hardware.pretrain.threads)
        done = {"device": device, "spec": run.model_dump(mode="json"), "sizes": sizes}
        _keep(done | {"steps": epochs * EPOCH, "seconds": seconds})
        each = 1000 * seconds / (epochs * EPOCH)
        yield f"{number} of {len(shapes)}: {run_id(run)}: {each:.3g} ms a step on {device}"


def _train(trial: RunSpec, execution: Execution, threads: int) -> tuple[str, float]:
    """The device, and the seconds of every epoch but the first."""
    import torch

    from issl import data
    from issl.training.pretrain import pretrain

    torch.set_num_threads(threads)  # as Snakemake has it by the environment
    quiet = execution.model_copy(update={"wandb": Wandb(), "progress": False})
    with tempfile.TemporaryDirectory() as folder:
        arrays, out = Path(folder, "data"), Path(folder, "run")
        data.prepare(trial.data, arrays, 1, progress=False)
        pretrain(trial, 1, arrays, out, quiet)
        with (out / "history.csv").open(encoding="utf-8", newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
        return observed.device(read_record(out / "run.json")), sum(seconds[1:])


def _trial(run: RunSpec, epochs: int) -> RunSpec:
    """The run on as many synthetic images as `EPOCH` steps take, for one epoch more than those that count."""
    images = EPOCH * run.optim.batch_size
    classes = 10
    synthetic = Synthetic(
        kind="synthetic",
        classes=classes,
        train_per_class=math.ceil(images / classes),
        test_per_class=1,
        image_size=run.data.image_size,
    )
    optim = {"epochs": epochs + 1, "warmup_epochs": 0, "drop_last": True}
    changes = {"data": synthetic, "optim": run.optim.model_copy(update=optim)}
    if isinstance(run.objective, Supervised):
        changes["objective"] = run.objective.model_copy(update={"classes": classes})
    return run.model_copy(update=changes)


def _keep(trial: dict[str, object]) -> None:
    known = observed.TRIALS.read_text(encoding="utf-8") if observed.TRIALS.exists() else ""
    write_text(observed.TRIALS, known + json.dumps(trial) + "\n")
