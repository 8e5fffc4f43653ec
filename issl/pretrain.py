"""Pretraining of one run with one seed: arrays and spec in, encoder and history out."""

import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.plugins.environments import LightningEnvironment
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from issl import augment, checkpoints, device, encoders, objectives, provenance, tracking
from issl.config import Execution
from issl.data.arrays import Arrays, read
from issl.draws import epoch_order, generator
from issl.errors import UserError
from issl.files import whole, write_json
from issl.heads import init_
from issl.history import History
from issl.objectives.base import Clock
from issl.optim import adam, learning_rates
from issl.spec import RunSpec, run_id

log = logging.getLogger(__name__)
# What Lightning says of hardware and its own products, and advises about data loaders, does not hold or help here.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
for package in ("pytorch_lightning", "lightning_fabric"):
    warnings.filterwarnings("ignore", module=package)

PRECISIONS = {"bf16": "bf16-mixed", "fp16": "16-mixed", "32": "32-true"}


def pretrain(
    run: RunSpec, seed: int, data: Path, out: Path, execution: Execution, experiments: Sequence[str] = ()
) -> None:
    """Trains `run` on the arrays in `data` and writes encoder.safetensors, history.csv and run.json into `out`.

    Continues from the checkpoints in `out`/checkpoints, if there are any, and removes them at the end. `experiments`
    only names the group of the W&B run. Raises UserError: no GPU, batch larger than the data, a loss that is not
    finite, a checkpoint of another run.
    """
    started, made_by = time.monotonic(), provenance.describe("pretrain")
    where = device.choose(execution)
    kind = device.precision(execution, where)
    arrays = read(data)
    n_train = arrays.meta["splits"]["train"]
    if run.optim.batch_size > n_train:
        raise UserError(f"optim.batch_size {run.optim.batch_size} exceeds the {n_train} training images of {data}")

    log.info("run %s, seed %d on %s, precision %s", run_id(run), seed, device.describe(where), kind)
    torch.manual_seed(seed)
    module = Pretraining(run, seed, arrays, execution.validate_every, fused=kind != "fp16")
    module.attempts = [made_by["code"]["fingerprint"]]
    folder = out / "checkpoints"
    resume = checkpoints.newest(folder, module.identity)
    if resume:
        log.info("continuing from %s", resume)
    bar = execution.progress and sys.stdout.isatty()
    trainer = pl.Trainer(
        accelerator="gpu" if where.type == "cuda" else "cpu",
        devices=1,
        precision=PRECISIONS[kind],
        max_epochs=run.optim.epochs,
        plugins=[LightningEnvironment()],  # under srun Lightning would take the job's tasks for its own ranks
        callbacks=[
            checkpoints.Checkpoints(folder, execution.checkpoint_minutes),
            *([TQDMProgressBar(refresh_rate=10)] if bar else []),
        ],
        logger=tracking.logger(execution.wandb, run, seed, experiments, out) or False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        benchmark=where.type == "cuda",
    )
    trainer.fit(module, ckpt_path=resume, weights_only=True)
    tracking.finish(trainer.logger)
    if trainer.interrupted:
        raise UserError("training was interrupted; the same command continues it")

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


class Pretraining(pl.LightningModule):
    """Encoder, objective and online linear evaluation; the data set lies on the training device as uint8.

    The online evaluation learns on detached features of view x from the same forward pass: it reads the trained encoder
    and never moves it, whichever encoder the method gives as its result.
    """

    def __init__(self, run: RunSpec, seed: int, arrays: Arrays, validate_every: int, fused: bool):
        super().__init__()
        self.run, self.seed, self.validate_every, self.fused = run, seed, validate_every, fused
        self.identity = {"spec": run.canonical(), "seed": seed}
        self.encoder = encoders.build(run.encoder, run.data.image_size).to(memory_format=torch.channels_last)
        self.objective = objectives.build(run.objective, run.encoder.dim, self.encoder)
        self.geometry = objectives.Geometry(run.encoder.dim)
        self.online = init_(nn.Linear(run.encoder.dim, arrays.n_classes))
        self.history = History()
        self.attempts: list[str] = []  # fingerprints of the code: one for each time that training was started
        self.splits = {name: _resident(arrays, name) for name in ("train", "test")}  # plain: not in the checkpoint

    # --- data ---

    def train_dataloader(self) -> DataLoader:
        # Only counts the steps: which images a step sees is a function of (seed, epoch, step), see `training_step`.
        return DataLoader(range(len(self.order(epoch=0))), batch_size=None)

    def order(self, epoch: int) -> tuple[Tensor, ...]:
        """Row numbers of each batch of an epoch, on the device."""
        n, batch_size = len(self.splits["train"][1]), self.run.optim.batch_size
        return tuple(rows.to(self.device) for rows in epoch_order("order", self.seed, epoch, n, batch_size))

    def on_fit_start(self) -> None:
        self.splits = {
            name: (images.to(self.device), labels.to(self.device)) for name, (images, labels) in self.splits.items()
        }

    def views(self, images: Tensor, purpose: str, *position: int) -> Tensor:
        """Two views of each image: uint8 (B, 3, H, W) -> (2B, 3, H, W), drawn for this position alone."""
        draws = generator(purpose, self.seed, *position)
        with torch.autocast(self.device.type, enabled=False):  # pixels keep their eight bits
            return augment.two_views(images, self.run.augment, draws)

    # --- training ---

    def configure_optimizers(self) -> torch.optim.Optimizer:
        ssl = [*self.encoder.parameters(), *self.objective.parameters()]
        return adam(self.run.optim, ssl, self.online.parameters(), self.fused)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, **_: Any) -> None:
        # Lightning's own clipping refuses fused optimisers, for the sake of a scaler that we then do not have.
        nn.utils.clip_grad_value_(self.parameters(), self.run.optim.clip_value)

    def clock(self, batch: int) -> Clock:
        steps = self.trainer.num_training_batches
        return Clock(self.current_epoch, self.run.optim.epochs, self.current_epoch * steps + batch, steps)

    def on_train_epoch_start(self) -> None:
        self.batches = self.order(self.current_epoch)
        self.history.start_epoch(self.clock(0).step)

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        rates = learning_rates(self.run.optim, self.clock(batch_idx))
        for group, rate in zip(self.optimizers().param_groups, rates):
            group["lr"] = rate

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        rows = self.batches[batch_idx]
        images, labels = (split[rows] for split in self.splits["train"])  # (B, H, W, 3), (B,)
        views = self.views(images.permute(0, 3, 1, 2), "augment", self.current_epoch, batch_idx)
        z = self.encoder(views)  # (2B, dim)
        terms = self.objective(z, views, self.clock(batch_idx))
        z_x = z[: len(rows)].detach()
        logits = self.online(z_x).float()
        online_loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        monitored = self.geometry(z.detach())
        self.history.add(
            {"loss": terms.loss} | terms.logs | monitored | {"online_loss": online_loss, "online_acc": accuracy}
        )
        return terms.loss + online_loss

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        self.objective.after_step(self.encoder, self.clock(batch_idx))

    def on_train_epoch_end(self) -> None:
        epoch, epochs = self.current_epoch, self.run.optim.epochs
        look = (epoch + 1) % self.validate_every == 0 or epoch + 1 == epochs
        rate = learning_rates(self.run.optim, self.clock(0))[0]
        row = self.history.end_epoch(epoch, rate, images=len(self.splits["train"][1]))
        if look:
            row |= self.validate()
        log.info(self.history.line(epochs))
        if self.logger:
            self.logger.log_metrics(row, step=epoch)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Monitors the test split: the terms of clean and augmented pairs, online accuracy on the clean images."""
        images, labels = self.splits["test"]
        clock, batch_size = self.clock(0), self.run.optim.batch_size
        terms, correct = [], []
        self.eval()
        for number, rows in enumerate(torch.arange(len(labels), device=self.device).split(batch_size)):
            batch = images[rows].permute(0, 3, 1, 2)
            augmented = self.views(batch, "validate", clock.epoch, number)[len(rows) :]
            with self.trainer.precision_plugin.forward_context():
                pairs = torch.cat([augment.clean(batch), augmented])
                z = self.encoder(pairs)
                loss, logs = self.objective(z, pairs, clock)
                terms.append({name: term * len(rows) for name, term in ({"loss": loss} | logs).items()})
                correct.append((self.online(z[: len(rows)]).argmax(1) == labels[rows]).sum())
        self.train()
        means = {f"test_{name}": (sum(batch[name] for batch in terms) / len(labels)).item() for name in terms[0]}
        return means | {"test_online_acc": torch.stack(correct).sum().item() / len(labels)}

    # --- state ---

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity
        checkpoint["history"] = self.history.rows
        checkpoint["attempts"] = self.attempts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history.rows = checkpoint["history"]
        self.attempts = [*checkpoint["attempts"], *self.attempts]


def _resident(arrays: Arrays, split: str) -> tuple[Tensor, Tensor]:
    rows = arrays.split(split)
    return torch.from_numpy(arrays.images[rows].copy()), torch.from_numpy(arrays.labels[rows].copy())
