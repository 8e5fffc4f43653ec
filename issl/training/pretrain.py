"""Pretraining of one run with one seed: arrays and spec in, encoder and history out."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from issl import objectives
from issl.data.arrays import Arrays, read
from issl.errors import UserError
from issl.jobs import allocation, device, distributed, locks, provenance
from issl.jobs.execution import Execution
from issl.jobs.files import whole, write_json
from issl.models import encoders
from issl.models.heads import init_
from issl.objectives.base import Clock
from issl.spec.run import RunSpec, run_id
from issl.training import attempts, checkpoints, optim, tracking
from issl.training.history import History
from issl.training.launcher import SINGLE_PROCESS, Launcher
from issl.training.lightning import pl
from issl.training.optim import learning_rates
from issl.views import loader

log = logging.getLogger(__name__)

OUTPUTS = ("encoder.safetensors", "history.csv", "run.json")
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
    """Trains `run` on the arrays in `data` and writes encoder.safetensors, history.csv and run.json into `out`.

    Continues from the checkpoints in `out`/checkpoints, if there are any, and removes them at the end. Waits while
    another process trains the same run with the same seed, and then takes its result. `experiments` only names the
    group of the W&B run; `launcher` starts the processes. Raises UserError: no GPU, batch larger than
    the data, a loss that is not finite, a checkpoint of another run, attempts that get nowhere; `slot.Stopped` when it
    was told to stop, or when the time of its Slurm job ends and no new slot could be asked for.
    """
    if distributed.is_rank_zero():
        outputs = [out / name for name in OUTPUTS]
        locks.build_once(outputs, lambda: train(run, seed, data, out, execution, experiments, launcher))
    else:
        train(run, seed, data, out, execution, experiments, launcher)


def train(
    run: RunSpec, seed: int, data: Path, out: Path, execution: Execution, experiments: Sequence[str], launcher: Launcher
) -> None:
    """`pretrain` by the only crew that works in its folder."""
    started, made_by = time.monotonic(), provenance.describe("pretrain")
    where = device.choose(execution)
    kind = device.precision(execution, where)
    arrays = read(data)
    n_train = arrays.meta["splits"]["train"]
    if run.optim.batch_size > n_train:
        raise UserError(f"optim.batch_size {run.optim.batch_size} exceeds the {n_train} training images of {data}")

    log.info("run %s, seed %d on %s, precision %s", run_id(run), seed, device.describe(where), kind)
    torch.manual_seed(seed)
    module = Pretraining(run, seed, arrays, execution, fused=kind != "fp16")
    module.processes, module.decoders = launcher.size, launcher.helpers()
    module.attempts = [made_by["code"]["fingerprint"]]
    folder = out / "checkpoints"
    resume, first_step = checkpoints.newest(folder, module.identity) or (None, 0)
    if resume:
        log.info("continuing after step %d from %s", first_step, resume)
    if distributed.is_rank_zero():
        attempts.begin(folder, first_step)
    bar = execution.progress and sys.stdout.isatty()
    trainer = pl.Trainer(
        accelerator="gpu" if where.type == "cuda" else "cpu",
        devices=launcher.per_node,
        num_nodes=launcher.nodes or 1,
        # DINO's prototypes have no gradient while they are frozen, which DDP must be told to look for.
        strategy="ddp_find_unused_parameters_true" if launcher.size > 1 else "auto",
        precision=PRECISIONS[kind],
        max_epochs=run.optim.epochs,
        plugins=[launcher.environment()],
        callbacks=[
            checkpoints.Checkpoints(folder, execution.checkpoint_minutes, execution.stop_minutes),
            *([pl.callbacks.TQDMProgressBar(refresh_rate=10)] if bar else []),
        ],
        logger=(distributed.is_rank_zero() and tracking.logger(execution.wandb, run, seed, experiments, out)) or False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        benchmark=where.type == "cuda",
    )
    try:
        with warnings.catch_warnings():
            # Batches are functions of (seed, epoch, step): there is no loader whose place could be lost.
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
            trainer.fit(module, ckpt_path=resume, weights_only=True)
    except allocation.Stopped as stopped:
        tracking.finish(trainer.logger)
        if stopped.walltime_over and distributed.is_rank_zero():
            log.info("%s", stopped)  # Slurm may end this process before it is raised
            ask_for_another_slot(steps=trainer.global_step - first_step)
        raise
    finally:
        module.steps = None  # ends the processes that decode, whatever happened
    tracking.finish(trainer.logger)
    if not distributed.is_rank_zero():
        return

    with whole(out / "encoder.safetensors") as temporary:
        result = module.objective.evaluated(module.encoder)
        weights = {name: tensor.contiguous().cpu() for name, tensor in result.state_dict().items()}
        save_file(weights, temporary, metadata={"spec": run.canonical(), "seed": str(seed)})
    module.history.write(out / "history.csv")
    rows = module.history.rows
    seconds = sum(row["seconds"] for row in rows)
    write_json(
        out / "run.json",
        {
            "run": run_id(run),
            "seed": seed,
            "spec": run.model_dump(mode="json"),
            "data": arrays.meta["sha256"],
            "device": device.describe(where),
            "processes": launcher.size,
            "precision": kind,
            "loss": rows[-1]["loss"],
            "test_online_acc": rows[-1]["test_online_acc"],
            "seconds": seconds,
            "seconds_this_attempt": time.monotonic() - started,
            "images_per_second": n_train * len(rows) / seconds,
            "peak_memory_gb": device.peak_memory_gb(where),
            "code_of_attempts": module.attempts,
        }
        | made_by,
    )
    checkpoints.remove(folder)


def ask_for_another_slot(steps: int) -> None:
    """Requeues the Slurm job of a training that used up its time, as often as it made steps in a slot.

    Raises UserError where it made none, for then another slot would not help either.
    """
    if steps == 0:
        raise UserError(
            "no step was made in this slot: it is too short even to start; give it more time in config.yaml, "
            "hardware.pretrain.minutes"
        )
    refusal = allocation.requeue()
    if refusal:
        log.warning(
            "no new slot for this job (%s); it counts as failed, and continues when it is started again", refusal
        )
        return
    log.info("requeued after %d steps in this slot", steps)
    time.sleep(60)  # Slurm ends this process; leaving now could look like a failure


class Pretraining(pl.LightningModule):
    """Encoder, objective and online linear evaluation.

    The online evaluation learns on detached features of view x from the same forward pass: it reads the trained encoder
    and never moves it, whichever encoder the method gives as its result.
    """

    def __init__(self, run: RunSpec, seed: int, arrays: Arrays, execution: Execution, fused: bool):
        super().__init__()
        self.run, self.seed, self.execution, self.fused = run, seed, execution, fused
        self.arrays, self.n_images = arrays, arrays.meta["splits"]
        self.identity = {"spec": run.canonical(), "seed": seed}
        self.encoder = encoders.build(run.encoder, run.data.image_size).to(memory_format=torch.channels_last)
        self.objective = objectives.build(run.objective, run.encoder.dim, self.encoder)
        self.geometry = objectives.Geometry(run.encoder.dim)
        self.online = init_(nn.Linear(run.encoder.dim, arrays.n_classes))
        self.history = History()
        self.processes = 1
        self.decoders = 0  # processes that decode photographs for this one
        self.source: loader.Source
        self.steps: Iterator[loader.Batch] | None = None
        self.attempts: list[str] = []  # fingerprints of the code: one for each time that training was started

    # --- data ---

    def train_dataloader(self) -> DataLoader:
        # Only counts the steps: which images a step sees is a function of (seed, epoch, step), see `training_step`.
        return DataLoader(range(len(self.order(epoch=0))), batch_size=None)

    def order(self, epoch: int) -> tuple[Tensor, ...]:
        """Row numbers of each batch of an epoch."""
        return loader.order(self.run, self.seed, epoch, self.n_images["train"])

    def setup(self, stage: str) -> None:
        if distributed.world_size() != self.processes:  # Lightning would train on a part of each batch, and say nothing
            raise RuntimeError(f"{distributed.world_size()} processes train together instead of {self.processes}")
        where = self.trainer.strategy.root_device
        self.encoder, self.objective = (
            distributed.synchronised(part, where) for part in (self.encoder, self.objective)
        )

    def on_fit_start(self) -> None:
        self.source = loader.of(
            self.run, self.seed, self.arrays, self.device, self.execution.resident_gb, self.decoders
        )

    # --- training ---

    def configure_optimizers(self) -> torch.optim.Optimizer:
        ssl = [*self.encoder.parameters(), *self.objective.parameters()]
        return optim.build(self.run.optim, ssl, self.online.parameters(), self.fused)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, **_: Any) -> None:
        # Lightning's own clipping refuses fused optimisers, for the sake of a scaler that we then do not have.
        if self.run.optim.clip_value:
            nn.utils.clip_grad_value_(self.parameters(), self.run.optim.clip_value)

    def clock(self, batch: int) -> Clock:
        steps = self.trainer.num_training_batches
        return Clock(self.current_epoch, self.run.optim.epochs, self.current_epoch * steps + batch, steps)

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        if self.steps is None:  # the beginning, or where a checkpoint is from
            self.steps = self.source.steps(self.current_epoch, batch_idx)
        if batch_idx == 0:
            self.history.start_epoch(self.clock(0).step)
        rates = learning_rates(self.run.optim, self.clock(batch_idx))
        for group, rate in zip(self.optimizers().param_groups, rates):
            group["lr"] = rate

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):  # pixels keep their eight bits
            views, labels = next(self.steps)
        z = self.encoded(views)  # (VB, dim)
        terms = self.objective(z, views[0], self.clock(batch_idx))
        z_x = z[: len(labels)].detach()
        logits = self.online(z_x).float()
        online_loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        monitored = self.geometry(z[: 2 * len(labels)].detach())
        logged = {"loss": terms.loss} | terms.logs | monitored | {"online_loss": online_loss, "online_acc": accuracy}
        self.history.add({name: distributed.mean(term.detach()) for name, term in logged.items()})
        return terms.loss + online_loss

    def encoded(self, views: Sequence[Tensor]) -> Tensor:
        """Representations of all views, in one pass for each resolution: (VB, dim), view by view."""
        return torch.cat([self.encoder(group) for group in views])

    def optimizer_step(self, epoch: int, batch_idx: int, *arguments: Any) -> None:
        super().optimizer_step(epoch, batch_idx, *arguments)
        # Here, and not in a hook at the end of the batch: those come after the callbacks, and so after a checkpoint.
        self.objective.after_step(self.encoder, self.clock(batch_idx))

    def on_train_epoch_end(self) -> None:
        epoch, epochs = self.current_epoch, self.run.optim.epochs
        look = (epoch + 1) % self.execution.validate_every == 0 or epoch + 1 == epochs
        rate = learning_rates(self.run.optim, self.clock(0))[0]
        row = self.history.end_epoch(epoch, rate, images=self.n_images["train"])
        if look:
            row |= self.validate()
        if distributed.is_rank_zero():
            log.info(self.history.line(epochs))
        if self.logger:
            self.logger.log_metrics(row, step=epoch)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Monitors the test split: the terms of clean and augmented pairs, online accuracy on the clean images."""
        clock, n_own = self.clock(0), 0
        terms, correct = [], []
        self.eval()
        for views, labels in self.source.pairs(clock.epoch):
            size = len(labels)
            n_own += size
            with self.trainer.precision_plugin.forward_context():
                z = self.encoded(views)
                loss, logs = self.objective(z, views[0], clock)
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
        self.attempts = [*checkpoint["attempts"], *self.attempts]
