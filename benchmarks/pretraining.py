"""Images a second of pretraining: the real loop beside lightly's, beside PIL views, and beside its own ceiling.

An image is one of the data set, and costs two views. The ceiling is a step on one batch of views that are ready: the
same encoder, heads, objective, optimiser, precision and memory format, but no data, no augmentation, no monitoring and
no trainer. No loop can be faster than it.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from benchmarks import peers
from benchmarks.measure import Row, compared, take_turns
from issl import data, objectives
from issl.data.arrays import Arrays
from issl.jobs import devices, memory
from issl.jobs.execution import Execution
from issl.models import encoders
from issl.objectives.base import Clock
from issl.spec.augment import Augment
from issl.spec.run import RunSpec
from issl.training.lightning import LightningEnvironment, pl
from issl.training.optim import adam
from issl.training.pretrain import PRECISIONS, Pretraining, pretrain
from issl.views import augment

SEED = 1
LEAST = {"lightly": 2.3, "pil": 3.0, "ceiling": 0.9}  # ratios to reach
CEILING = "a step on one batch of ready views: same encoder, heads, objective, optimiser and precision"
PIL = "PIL views from DataLoader workers on all cores, same model and precision"

LIGHTLY_CPU = Row(
    "pretrain_cpu",
    "images/s",
    f"ratio >= {LEAST['lightly']}",
    "lightly's SimCLR example: PIL views from two workers, float32, same encoder",
)
CEILING_CPU = Row("pretrain_cpu_ceiling", "images/s", f"ratio >= {LEAST['ceiling']}", CEILING)
PIL_GPU = Row("pretrain_gpu_pil", "images/s", f"ratio >= {LEAST['pil']}", PIL)
CEILING_GPU = Row("pretrain_gpu_ceiling", "images/s", f"ratio >= {LEAST['ceiling']}", CEILING)

METHODS = ("dissl", "cissl")
NAMES = (
    LIGHTLY_CPU.name,
    CEILING_CPU.name,
    *(f"{row.name}_{method}" for method in METHODS for row in (PIL_GPU, CEILING_GPU)),
)

CPU_RUN = RunSpec.model_validate(
    {
        "data": {"kind": "synthetic", "classes": 16, "train_per_class": 16, "test_per_class": 1, "image_size": 64},
        "objective": {"name": "simclr"},
        "optim": {"batch_size": 128, "epochs": 3, "warmup_epochs": 1},
    }
)
GPU_DATA = {"kind": "synthetic", "classes": 64, "train_per_class": 320, "test_per_class": 8, "image_size": 64}
GPU_OPTIM = {"batch_size": 512, "epochs": 4, "warmup_epochs": 1}
GPU_STEPS = 10, 60  # of the peers: to warm up, and timed


def cpu(rounds: int) -> list[Row]:
    """SimCLR with a ResNet-18 at 64 px: the loop beside lightly's and beside its ceiling, who take turns."""
    execution = Execution(device="cpu", progress=False)
    with tempfile.TemporaryDirectory() as folder:
        data.prepare(CPU_RUN.data, folder, threads=os.cpu_count() or 1, progress=False)
        contenders = [
            partial(real_loop, CPU_RUN, Path(folder), execution),
            partial(ready_views, CPU_RUN, Path(folder), execution, warm_up=1, timed=4),
        ]
        lightly, reason = partial(lightly_loop, CPU_RUN, Path(folder)), None
        try:
            peers.install("lightly", "lightly_utils")
            contenders.append(lightly)
        except peers.Unavailable as error:
            reason = str(error)
        ours, ceiling, *others = take_turns(*contenders, rounds=rounds)
    about = _about(CPU_RUN, execution)
    beside_lightly = (
        replace(LIGHTLY_CPU, not_measured=reason)
        if reason
        else compared(LIGHTLY_CPU, ours, others[0], LEAST["lightly"], **about, peers=_versions("lightly"))
    )
    return [beside_lightly, compared(CEILING_CPU, ours, ceiling, LEAST["ceiling"], **about)]


def gpu(rounds: int) -> list[Row]:
    """DISSL and CISSL as in the paper at batch 512: the loop beside PIL views and beside its ceiling."""
    rows = []
    for method in METHODS:
        if torch.cuda.is_available():
            rows += beside_pil_and_ceiling(
                gpu_rows(method), gpu_run(method), Execution(progress=False), cores(), *GPU_STEPS, rounds
            )
        else:
            rows += [replace(row, not_measured="no CUDA device here") for row in gpu_rows(method)]
    return rows


def gpu_rows(method: str) -> list[Row]:
    """The two rows of a method, not yet measured."""
    return [replace(row, name=f"{row.name}_{method}") for row in (PIL_GPU, CEILING_GPU)]


def gpu_run(method: str) -> RunSpec:
    """What they measure."""
    return RunSpec.model_validate({"data": GPU_DATA, "objective": {"name": method}, "optim": GPU_OPTIM})


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def beside_pil_and_ceiling(
    rows: Sequence[Row], run: RunSpec, execution: Execution, workers: int, warm_up: int, timed: int, rounds: int
) -> list[Row]:
    """The two rows of one run, on any device; the peers do `timed` steps after `warm_up` ones."""
    with tempfile.TemporaryDirectory() as folder:
        data.prepare(run.data, folder, threads=os.cpu_count() or 1, progress=False)
        ours, pil, ceiling = take_turns(
            partial(real_loop, run, Path(folder), execution),
            partial(pil_views, run, Path(folder), execution, workers, warm_up, timed),
            partial(ready_views, run, Path(folder), execution, warm_up, timed),
            rounds=rounds,
        )
    about = _about(run, execution)
    return [
        compared(rows[0], ours, pil, LEAST["pil"], **about, workers=workers),
        compared(rows[1], ours, ceiling, LEAST["ceiling"], **about),
    ]


def _about(run: RunSpec, execution: Execution) -> dict[str, Any]:
    where = devices.choose(execution)
    return {
        "run": json.loads(run.canonical()),
        "device": devices.describe(where),
        "precision": devices.precision(execution, where),
    }


def _versions(peer: str) -> dict[str, str]:
    return {name: version for name, version in peers.installed().items() if name.startswith(peer)}


# --- the contenders: images a second ---------------------------------------------------------------------------------


def real_loop(run: RunSpec, folder: Path, execution: Execution) -> float:
    """The real pretraining without its first epoch, which warms up, and without the time between epochs."""
    with tempfile.TemporaryDirectory() as out:
        pretrain(run, SEED, folder, Path(out), execution)
        with (Path(out) / "history.csv").open() as file:
            epochs = list(csv.DictReader(file))[1:]
    images = data.read(folder).meta["splits"]["train"]
    return len(epochs) * images / sum(float(epoch["seconds"]) for epoch in epochs)


def short_epochs(
    run: RunSpec,
    arrays: Arrays,
    steps: int,
    epochs: int,
    execution: Execution,
    callbacks: Sequence[pl.Callback] = (),
) -> list[float]:
    """Seconds of each epoch of the real loop, where an epoch ends after `steps` steps; the first one warms up.

    Lightning counts the steps, as in `issl.training.pretrain`. An epoch ends once the device has done its work.
    """
    where = devices.choose(execution)
    kind = devices.precision(execution, where)
    module = Pretraining(run, SEED, arrays, execution, fused=kind != "fp16")
    trainer = pl.Trainer(
        accelerator="gpu" if where.type == "cuda" else "cpu",
        devices=1,
        precision=PRECISIONS[kind],
        max_epochs=epochs,
        limit_train_batches=steps,
        plugins=[LightningEnvironment()],
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=where.type == "cuda",
    )
    with memory.reused(where):
        trainer.fit(module)
    return [row["seconds"] for row in module.history.rows]


def noise(run: RunSpec, n_images: int) -> Arrays:
    """A data set of noise in the run's image size: what it costs does not depend on what it shows."""
    size, n_test = run.data.image_size, 16
    shape = (n_images + n_test, size, size, 3)
    images = np.random.default_rng(SEED).integers(0, 256, shape, np.uint8)
    meta = {"splits": {"train": n_images, "test": n_test}, "classes": list("0123456789"), "image_size": size}
    meta["sha256"] = {"images": "", "labels": ""}
    return Arrays(images, np.arange(len(images)) % 10, meta)


def ready_views(run: RunSpec, folder: Path, execution: Execution, warm_up: int, timed: int) -> float:
    """The ceiling: steps on one batch of views that are ready on the device."""
    where = devices.choose(execution)
    method = Method(run, where, devices.precision(execution, where))
    images = torch.from_numpy(data.read(folder).images[: run.optim.batch_size].copy())  # (B, H, W, 3)
    draws = torch.Generator().manual_seed(SEED)
    views = augment.two_views(images.to(where).permute(0, 3, 1, 2), run.augment, draws)  # (2B, 3, H, W)
    with memory.reused(where):
        for _ in range(warm_up):
            method.step(views)
        started = _now(where)
        for _ in range(timed):
            method.step(views)
        return timed * run.optim.batch_size / (_now(where) - started)


def pil_views(run: RunSpec, folder: Path, execution: Execution, workers: int, warm_up: int, timed: int) -> float:
    """The same steps on views that torchvision makes of PIL images in DataLoader workers."""
    where = devices.choose(execution)
    method = Method(run, where, devices.precision(execution, where))
    pictures = Pictures(data.read(folder), run.augment)
    # One long epoch, and a little longer than what is timed, so that workers neither start nor run dry meanwhile.
    drawn = (warm_up + timed + 2 * workers) * run.optim.batch_size
    loader = DataLoader(
        pictures,
        run.optim.batch_size,
        sampler=RandomSampler(pictures, replacement=True, num_samples=drawn),
        num_workers=workers,
        pin_memory=where.type == "cuda",
    )
    started = 0.0
    for number, (x, x_tilde) in enumerate(loader):  # (B, 3, H, W) each
        if number == warm_up:
            started = _now(where)
        if number == warm_up + timed:
            break
        views = torch.cat([x.to(where, non_blocking=True), x_tilde.to(where, non_blocking=True)])
        method.step(views.contiguous(memory_format=torch.channels_last))
    return timed * run.optim.batch_size / (_now(where) - started)


def lightly_loop(run: RunSpec, folder: Path) -> float:
    """Lightly's example in a process of its own, so that no peer is imported where the project is measured."""
    workers, warm_up, timed = 2, 1, 2
    numbers = (run.optim.batch_size, workers, warm_up, timed)
    command = [sys.executable, "-m", "benchmarks.peer_lightly", str(folder), *map(str, numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=peers.environment(), check=True)
    return json.loads(done.stdout.splitlines()[-1])["images_per_second"]


def _now(where: torch.device) -> float:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return time.perf_counter()


# --- what they share -------------------------------------------------------------------------------------------------


class Method:
    """Only what a run trains: encoder, objective and optimiser, as `issl.training.pretrain` sets them up."""

    def __init__(self, run: RunSpec, where: torch.device, kind: str):
        torch.backends.cudnn.benchmark = where.type == "cuda"  # as the trainer has it
        torch.manual_seed(SEED)
        self.where, self.kind, self.clip_value = where, kind, run.optim.clip_value
        self.encoder = encoders.build(run.encoder, run.data.image_size).to(memory_format=torch.channels_last)
        self.objective = objectives.build(run.objective, run.encoder.dim, self.encoder)
        self.encoder.to(where)
        self.objective.to(where)
        self.parameters = [*self.encoder.parameters(), *self.objective.parameters()]
        self.optimizer = adam(run.optim, self.parameters, [], fused=kind != "fp16")
        self.scaler = torch.amp.GradScaler(where.type, enabled=kind == "fp16")
        self.clock = Clock(0, run.optim.epochs, 0, 1)

    def backward(self, views: Tensor) -> None:
        """Gradients of the method's loss on views (2B, 3, H, W)."""
        with devices.autocast(self.where, self.kind):
            loss = self.objective(self.encoder(views), views, self.clock).loss
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()

    def step(self, views: Tensor) -> None:
        """One step of training on views (2B, 3, H, W); clipping belongs to the recipe, so it belongs to the step."""
        self.backward(views)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_value_(self.parameters, self.clip_value)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.objective.after_step(self.encoder, self.clock)


class Pictures(Dataset):
    """The training images as PIL images, each as two views, (3, H, W) float32, that torchvision draws of it."""

    def __init__(self, arrays: Arrays, recipe: Augment):
        self.images, self.length = arrays.images, arrays.meta["splits"]["train"]
        self.view = pipeline(recipe, arrays.image_size)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        picture = Image.fromarray(self.images[row])
        return self.view(picture), self.view(picture)


def pipeline(recipe: Augment, size: int) -> transforms.Compose:
    """The recipe of a run as torchvision has it: PIL image -> (3, size, size) float32, normalised.

    Raises ValueError for a recipe with blur, which the runs measured here do not have.
    """
    if recipe.blur:
        raise ValueError("the peer has no blur")
    jitter = (recipe.strength * recipe.jitter,) * 3
    area = (recipe.min_area / recipe.strength, 1.0)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, area, interpolation=InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(recipe.flip_p),
            transforms.RandomApply(
                [transforms.ColorJitter(*jitter, recipe.strength * recipe.hue)],
                recipe.jitter_p,
            ),
            transforms.RandomGrayscale(recipe.strength * recipe.gray),
            transforms.ToTensor(),
            transforms.Normalize(augment.MEAN, augment.STD),
        ]
    )
