"""Pretrains one run with one seed: arrays and spec in, encoder and history out."""

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from issl import objectives
from issl.data.arrays import Arrays, read
from issl.errors import UserError
from issl.jobs import allocation, devices, distributed, locks, memory, provenance, utilisation
from issl.jobs.execution import Execution
from issl.jobs.files import sha256, whole, write_json
from issl.jobs.records import refuse_other
from issl.models import encoders
from issl.models.heads import init_
from issl.objectives.base import Clock, Terms
from issl.objectives.geometry import Geometry
from issl.spec import objective as spec
from issl.spec.run import RunSpec, file_notes, run_id
from issl.training import attempts, checkpoints, graphs, online, optim, tracking
from issl.training.history import History
from issl.training.launcher import SINGLE_PROCESS, Launcher
from issl.training.lightning import pl
from issl.training.optim import learning_rates
from issl.training.progress import Progress
from issl.views import loader

log = logging.getLogger(__name__)

OUTPUTS = ("encoder.safetensors", "history.csv", "run.json")
CHECKPOINTS = "checkpoints"
PRECISIONS = {"bf16": "bf16-mixed", "fp16": "16-mixed", "32": "32-true"}


def pretrain(
    run: RunSpec,
    seed: int,
    data: Path,
    out: Path,
    execution: Execution,
    experiments: Sequence[str] = (),
    launcher: Launcher = SINGLE_PROCESS,
) -> None:
    """Trains `run` on the arrays in `data` and writes encoder.safetensors, history.csv and run.json to `out`.

    Continues from the checkpoints in `out`/checkpoints, if there are any, and removes them at the end. Waits while
    another process trains the same run with the same seed, and then uses its result. `experiments` only group and tag
    the W&B run; `launcher` describes the processes.

    Raises UserError: no GPU, other data than the run's, a batch larger than them, a loss that is not finite, a
    checkpoint or a finished training of something else in `out`, or repeated attempts without progress. Raises
    `allocation.Stopped` when a signal or the time limit of its Slurm job stops it; the job may have been requeued by
    then.
    """
    outputs = [out / name for name in OUTPUTS]

    def still_valid(made: Path) -> bool:
        return not locks.is_forced("pretrain", outputs) and _is_of(run, seed, data, made)

    def training() -> None:
        train(run, seed, data, out, execution, experiments, launcher)

    if distributed.is_rank_zero():
        locks.build_once(outputs, training, still_valid)
    elif not locks.made_before(outputs, still_valid):  # else it would wait for the first process, which has ended
        training()


def _is_of(run: RunSpec, seed: int, data: Path, folder: Path) -> bool:
    """Whether a folder has the results of this run on equal data: the data set was then only prepared again or touched,
    and training would give the same."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        # By identity: an older record, here or pulled, lacks the settings that were added since.
        same = RunSpec.model_validate(record["spec"]).canonical() == run.canonical() and record["seed"] == seed
        same = same and record["data"] == read(data).meta["sha256"]
        return same and record["encoder_sha256"] == sha256(folder / "encoder.safetensors")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def train(
    run: RunSpec, seed: int, data: Path, out: Path, execution: Execution, experiments: Sequence[str], launcher: Launcher
) -> None:
    """`pretrain`, without its lock."""
    used = objectives.implementation(run.objective), type(run.objective), type(run.data)
    used += encoders.builder(run.encoder), type(run.encoder)
    started, made_by = time.monotonic(), provenance.describe("pretrain", *used)
    device = devices.choose(execution)
    precision = devices.precision(execution, device)
    arrays = read(data, run.data)
    about = {"spec": run.model_dump(mode="json"), "seed": seed, "data": arrays.meta["sha256"]}
    refuse_other(out / OUTPUTS[-1], "a finished training", about)
    n_train = arrays.n_pretraining
    if run.epochs and run.optim.batch_size > n_train:
        raise UserError(f"optim.batch_size {run.optim.batch_size} exceeds the {n_train} training images of {data}")
    if isinstance(run.objective, spec.Supervised) and run.objective.classes != arrays.n_classes:
        raise UserError(f"objective.classes {run.objective.classes}: {data} has {arrays.n_classes} classes")

    log.info("run %s, seed %d on %s, precision %s", run_id(run), seed, devices.describe(device), precision)
    torch.manual_seed(seed)
    module = Pretraining(run, seed, arrays, execution, fused=precision != "fp16")
    module.processes, module.decoders = launcher.size, launcher.helpers()
    here = {"device": devices.describe(device), "precision": precision, "processes": launcher.size}
    module.attempts = [provenance.attempt(made_by, here)]
    if distributed.is_rank_zero():
        module.progress = Progress(
            out / CHECKPOINTS, {"run": run_id(run), **about, **here, "epochs": run.epochs, "host": made_by["host"]}
        )
    trackers = []
    if distributed.is_rank_zero():
        trackers = tracking.loggers(execution, run, seed, experiments, out, out / CHECKPOINTS)
    trainer = _trainer(run, device, precision, execution, launcher, out / CHECKPOINTS, trackers)
    with utilisation.Watch(device) as watch, memory.reused(device):
        _fit(trainer, module, out / CHECKPOINTS)
    if not distributed.is_rank_zero():
        return
    rows = module.history.rows
    seconds = sum(row["seconds"] for row in rows)
    last = rows[-1] if rows else {}  # an untrained encoder has no epochs
    record = {
        "run": run_id(run),
        **about,
        "device": devices.describe(device),
        "processes": launcher.size,
        "precision": precision,
        "loss": last.get("loss"),
        "test_online_acc": last.get("test_online_acc") if arrays.n_classes > 1 else None,
        "seconds": seconds,
        "seconds_this_attempt": time.monotonic() - started,
        "images_per_second": n_train * len(rows) / seconds if rows else None,
        "peak_memory_gb": devices.peak_memory_gb(device),
        "gpu_percent": watch.percent,
        "attempts": module.attempts,
    }
    _write(module, out, record | made_by)
    checkpoints.remove(out / CHECKPOINTS)
    if rows:
        print(_in_words(record, run.epochs), flush=True)  # beside the lines of Snakemake, a line for each training


def _in_words(record: Mapping[str, Any], epochs: int) -> str:
    time = timedelta(seconds=round(record["seconds"]))
    words = f"{record['run']} seed {record['seed']}: {epochs} epochs in {time}, loss {record['loss']:.4f}"
    accuracy = record["test_online_acc"]
    return words if accuracy is None else f"{words}, online accuracy {100 * accuracy:.1f} %"


def _trainer(
    run: RunSpec,
    device: torch.device,
    precision: str,
    execution: Execution,
    launcher: Launcher,
    folder: Path,
    trackers: list[pl.loggers.Logger],
) -> pl.Trainer:
    """Lightning's loop with our own checkpoints in `folder`."""
    bar = execution.progress and sys.stdout.isatty()
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=launcher.per_node,
        num_nodes=launcher.nodes or 1,
        # DINO's prototypes have no gradient while frozen; without this flag DDP would wait for it.
        strategy="ddp_find_unused_parameters_true" if launcher.size > 1 else "auto",
        precision=PRECISIONS[precision],
        max_epochs=run.epochs,
        plugins=[launcher.environment()],
        callbacks=[
            checkpoints.Checkpoints(folder, execution.checkpoint_minutes, execution.stop_minutes),
            *([pl.callbacks.TQDMProgressBar(refresh_rate=10)] if bar else []),
        ],
        logger=trackers or False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        benchmark=device.type == "cuda",
    )


def _fit(trainer: pl.Trainer, module: "Pretraining", folder: Path) -> None:
    """Trains to the end, from the newest checkpoint in `folder` if there is one. Raises as `pretrain` does."""
    resume, first_step = checkpoints.newest(folder, module.identity) or (None, 0)
    if resume:
        log.info("continuing after step %d from %s", first_step, resume)
    if distributed.is_rank_zero():
        attempts.begin(folder, first_step)
    try:
        with warnings.catch_warnings():
            # Batches are functions of (seed, epoch, step), so the loader has no position to restore.
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            trainer.fit(module, ckpt_path=resume, weights_only=True)
    except allocation.Stopped as stopped:
        tracking.finish(trainer.loggers)
        if stopped.walltime_over and distributed.is_rank_zero():
            log.info("%s", stopped)  # Slurm may end this process before it is raised
            requeue(steps=trainer.global_step - first_step)
        raise
    finally:
        module.steps = None  # ends the thread or the processes that make batches, in any case
        graphs.forget(module.passes)
    tracking.finish(trainer.loggers)


def _write(module: "Pretraining", out: Path, record: Mapping[str, Any]) -> None:
    """Writes the outputs of a finished training; run.json last. Raises UserError if the disk is full."""
    with whole(out / "encoder.safetensors") as temporary:
        result = module.objective.evaluated(module.encoder)
        weights = {name: tensor.contiguous().cpu() for name, tensor in result.state_dict().items()}
        try:
            save_file(weights, temporary, metadata=file_notes(module.run, module.seed))
        except SafetensorError as error:  # not an OSError, even if the disk is full
            raise UserError(f"{out / 'encoder.safetensors'}: cannot be written: {error}") from error
    module.history.write(out / "history.csv")
    write_json(out / "run.json", {**record, "encoder_sha256": sha256(out / "encoder.safetensors")})


def requeue(steps: int) -> None:
    """Requeues the Slurm job of a training run that reached its time limit after `steps` steps in this job.

    Raises UserError for 0 steps: the next job would get no further.
    """
    if steps == 0:
        raise UserError(
            "no training step fits into the time limit of this job: raise hardware.pretrain.minutes in config.yaml"
        )
    refusal = allocation.requeue()
    if refusal:
        log.warning(
            "this job could not be requeued (%s); it counts as failed, and continues when you start it again", refusal
        )
        return
    log.info("requeued after %d steps in this job", steps)
    time.sleep(60)  # Slurm ends this process; exiting now could look like a failure


class Pretraining(pl.LightningModule):
    """Encoder, objective and online linear evaluation.

    The online evaluation learns on detached features of view x from the same forward pass. It evaluates the trained
    encoder, even if the method's result is the teacher's, and never changes it.
    """

    def __init__(self, run: RunSpec, seed: int, arrays: Arrays, execution: Execution, fused: bool):
        super().__init__()
        self.run, self.seed, self.execution, self.fused = run, seed, execution, fused
        self.arrays, self.n_train = arrays, arrays.n_pretraining
        self.labelled = arrays.meta["splits"]["train"] / self.n_train  # the fraction of them with a label
        self.identity = {"spec": run.canonical(), "seed": seed, "data": arrays.meta["sha256"]}
        self.encoder = encoders.build(run.encoder, run.data.image_size).to(memory_format=torch.channels_last)
        self.objective = objectives.build(run.objective, run.encoder.dim, self.encoder)
        self.geometry = Geometry(run.encoder.dim)
        self.online = init_(nn.Linear(run.encoder.dim, arrays.n_classes))
        self.history = History()
        self.processes = 1
        self.decoders = 0  # processes that decode photographs for this one
        self.source: loader.Source
        self.passes: list[graphs.Encode] = []  # for each group of views, if the encoder is recorded
        self.steps: Iterator[loader.Batch] | None = None
        self.attempts: list[dict[str, Any]] = []  # what each start of the training ran with
        self.progress: Progress | None = None  # of the first process

    # --- data ---

    def train_dataloader(self) -> DataLoader:
        # Only counts the steps: the images of a step depend on (seed, epoch, step), see `training_step`.
        return DataLoader(range(len(self.order(epoch=0))), batch_size=None)

    def order(self, epoch: int) -> tuple[Tensor, ...]:
        """Row numbers of each batch of an epoch."""
        return loader.order(self.run, self.seed, epoch, self.n_train)

    def setup(self, stage: str) -> None:
        if distributed.world_size() != self.processes:  # Lightning would silently train on a part of each batch
            raise RuntimeError(f"{distributed.world_size()} processes train together instead of {self.processes}")
        device = self.trainer.strategy.root_device
        self.encoder, self.objective = (
            distributed.synchronised(part, device) for part in (self.encoder, self.objective)
        )

    def on_fit_start(self) -> None:
        self.source = loader.of(
            self.run, self.seed, self.arrays, self.device, self.execution.resident_gb, self.decoders
        )
        if self.recordable:
            kind = devices.precision(self.execution, self.device)
            shapes = loader.shapes(self.run)
            self.passes = graphs.recorded(self.encoder, shapes, self.device, kind, self.execution.compile)

    @property
    def recordable(self) -> bool:
        """Whether the encoder only computes: ours do; another may draw or count in Python, which no graph repeats."""
        ours = encoders.builder(self.run.encoder) is encoders.resnet
        return self.device.type == "cuda" and self.processes == 1 and self.execution.graphs and ours

    # --- training ---

    def configure_optimizers(self) -> torch.optim.Optimizer:
        ssl = [*self.encoder.parameters(), *self.objective.parameters()]
        return optim.build(self.run.optim, ssl, self.online.parameters(), self.fused)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, **_: Any) -> None:
        # Lightning's clipping rejects fused optimisers because of a gradient scaler, which we do not use with them.
        if self.run.optim.clip_value:
            nn.utils.clip_grad_value_(self.parameters(), self.run.optim.clip_value)

    def clock(self, batch: int) -> Clock:
        steps = self.trainer.num_training_batches
        return Clock(self.current_epoch, self.run.optim.epochs, self.current_epoch * steps + batch, steps)

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        if self.steps is None:  # at the start, or after a checkpoint
            self.steps = self.source.steps(self.current_epoch, batch_idx)
        if batch_idx == 0:
            self.history.start_epoch(self.clock(0).step)
        rates = learning_rates(self.run.optim, self.clock(batch_idx))
        for group, rate in zip(self.optimizers().param_groups, rates):
            group["lr"] = rate

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):  # pixels keep full precision
            views, labels = next(self.steps)
        z = self.encoded(views)  # (VB, dim)
        terms = self.terms(z, views[0], self.clock(batch_idx), labels)
        z_x = z[: len(labels)].detach()
        logits = self.online(z_x).float()
        online_loss, accuracy = online.scores(logits, labels, self.labelled)
        monitored = self.geometry(z[: 2 * len(labels)].detach())
        logged = {"loss": terms.loss} | terms.logs | monitored | {"online_loss": online_loss, "online_acc": accuracy}
        self.history.add({name: distributed.mean(term.detach()) for name, term in logged.items()})
        return terms.loss + online_loss

    def terms(self, z: Tensor, views: Tensor, clock: Clock, labels: Tensor) -> Terms:
        """The objective's loss and logs; only the supervised reference is given the labels, (B,)."""
        seen = {"labels": labels} if isinstance(self.run.objective, spec.Supervised) else {}
        return self.objective(z, views, clock, **seen)

    def encoded(self, views: Sequence[Tensor]) -> Tensor:
        """Representations of all views, in one pass for each resolution: (VB, dim), view by view."""
        passes = self.passes or [self.encoder] * len(views)
        return torch.cat([encode(group) for encode, group in zip(passes, views, strict=True)])

    def optimizer_step(self, epoch: int, batch_idx: int, *arguments: Any) -> None:
        super().optimizer_step(epoch, batch_idx, *arguments)
        # Not in a hook at the end of the batch: those run after the callbacks, and so after a checkpoint.
        self.objective.after_step(self.encoder, self.clock(batch_idx))

    def on_train_epoch_end(self) -> None:
        epoch, epochs = self.current_epoch, self.run.optim.epochs
        look = (epoch + 1) % self.execution.validate_every == 0 or epoch + 1 == epochs
        rate = learning_rates(self.run.optim, self.clock(0))[0]
        row = self.history.end_epoch(epoch, rate, images=self.n_train)
        if look:
            row |= self.validate()
        if distributed.is_rank_zero():
            log.info(self.history.line(epochs))
        if self.progress:
            self.progress.epoch_ended(row, epoch + 1, sum(each["seconds"] for each in self.history.rows))
        for tracker in self.loggers:
            tracker.log_metrics(row, step=epoch)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Monitors the test split: loss terms of clean and augmented pairs, online accuracy on clean images."""
        clock, n_own = self.clock(0), 0
        terms, correct = [], []
        self.eval()
        for views, labels in self.source.pairs(clock.epoch):
            size = len(labels)
            n_own += size
            with self.trainer.precision_plugin.forward_context():
                z = self.encoded(views)
                loss, logs = self.terms(z, views[0], clock, labels)
                terms.append({name: term * size for name, term in ({"loss": loss} | logs).items()})
                correct.append((self.online(z[:size]).argmax(1) == labels).sum())
        self.train()
        totals = {name: sum(batch[name] for batch in terms) for name in terms[0]}
        totals["online_acc"] = torch.stack(correct).sum().double()
        return {f"test_{name}": distributed.mean(total).item() / n_own for name, total in totals.items()}

    # --- state ---

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity
        checkpoint["history"] = self.history.state()
        checkpoint["attempts"] = self.attempts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history.restore(checkpoint["history"])
        attempts.warn_of_changes(checkpoint["attempts"], self.attempts[-1])
        self.attempts = [*checkpoint["attempts"], *self.attempts]
