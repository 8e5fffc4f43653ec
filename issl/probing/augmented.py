"""Linear evaluation on augmented images: heads on the frozen trunk, as in VISSL's linear benchmark.

Every head is trained twice in the same pass: on all training images, and on all but a held-out part. The trunk, nearly
all of the work, runs once for both.
"""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl import hub
from issl.errors import UserError
from issl.jobs import devices
from issl.models.encoders import ExpandingHead
from issl.probing import images, on_images, saves
from issl.probing.scores import Accuracies, Score, named
from issl.probing.subsets import hold_out
from issl.probing.task import Task
from issl.spec.probe import Augmented, ProbeGrid
from issl.views.random import epoch_order, generator

log = logging.getLogger(__name__)

SETS = ("all", "kept")  # training images of the heads


class Representations(NamedTuple):
    """Inputs of the heads: the representation, and the last stage averaged to 2 x 2 positions."""

    z: Tensor  # (B, dim)
    pooled: Tensor  # (B, channels, 2, 2)


def evaluate(grid: ProbeGrid, task: Task) -> list[Score]:
    """Scores of every head after the last epoch, probe by probe.

    SGD with Nesterov momentum; the rate falls to a tenth after each milestone. Saves after every epoch and continues
    from the last save. Raises UserError for a file that cannot be decoded, a loss that is not finite, or a save of
    other settings.
    """
    return [score for probe in grid.probes for score in named(_evaluate(probe, task), probe, grid)]


def _evaluate(probe: Augmented, task: Task) -> Iterator[Score]:
    device, precision = task.device, task.precision
    train, labels, n_train = torch.from_numpy(task.train), torch.from_numpy(task.labels), len(task.train)
    kept, left = hold_out(task.labels[task.train], np.arange(n_train), probe.holdout, task.seed)
    in_kept = torch.zeros(n_train, dtype=torch.bool)
    in_kept[torch.from_numpy(kept)] = True

    trunk = hub.network(task.images.encoder).to(device, memory_format=torch.channels_last)
    look = _Look(trunk, device, precision)
    heads = nn.ModuleDict({name: build(trunk, task.classes, task.seed) for name in SETS}).to(device)
    groups = parameter_groups(heads, probe)
    sgd = torch.optim.SGD(groups, lr=rate(probe, 0), momentum=probe.momentum, nesterov=probe.momentum > 0)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    save = saves.of(probe, task)
    for epoch in range(save.resume(device, heads=heads, sgd=sgd, scaler=scaler), probe.epochs):
        for group in sgd.param_groups:
            group["lr"] = rate(probe, epoch)
        order = epoch_order("augmented order", task.seed, epoch, n_train, probe.batch_size)
        heads.train()
        crops = on_images.mirrored_crops(task, probe.min_area, [train[places] for places in order], "augmented", epoch)
        for places, squares in zip(order, crops):
            targets, kept_here = labels[train[places]].to(device), in_kept[places].to(device)
            loss = _loss(heads, look(squares), targets, kept_here, device, precision)
            sgd.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(sgd)
            scaler.update()
        if not loss.isfinite():
            raise UserError(f"the heads diverged in epoch {epoch}: lower lr")
        log.info("epoch %d/%d, loss %.3f", epoch + 1, probe.epochs, loss.item())
        save.write(epoch + 1, heads=heads, sgd=sgd, scaler=scaler)
    tested = score(heads["all"], task.test.tolist(), task, look)
    held_out = score(heads["kept"], task.train[left].tolist(), task, look)
    for name in tested:
        found = Score(name, n_train, len(task.test), tested[name], held_out[name])
        log.info("%s", found)
        yield found


def rate(probe: Augmented, epoch: int) -> float:
    """The learning rate of an epoch."""
    return probe.lr * probe.batch_size / 256 * 0.1 ** sum(epoch >= milestone for milestone in probe.milestones)


def parameter_groups(heads: nn.Module, probe: Augmented) -> list[dict[str, Any]]:
    """Linear layers have weight decay, on weights and biases; batch norms have none."""
    norms = [p for m in heads.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    linears = [p for m in heads.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
    return [{"params": linears, "weight_decay": probe.weight_decay}, {"params": norms, "weight_decay": 0.0}]


# --- heads -----------------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """An optional batch norm over channels and a linear layer: (B, channels, h, w) -> (B, classes)."""

    def __init__(self, channels: int, positions: int, classes: int, norm: bool):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.linear = nn.Linear(channels * positions, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).flatten(1))


POOLED = "2 x 2 pooling, batch norm, linear"


def build(encoder: nn.Module, classes: int, seed: int) -> nn.ModuleDict:
    """The authors' heads for an encoder; the one on the 2 x 2 map only if there is no expanding head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("augmented heads", seed).initial_seed())
        heads = {f"{norm}linear": Head(encoder.dim, 1, classes, bool(norm)) for norm in ("batch norm, ", "")}
        if not isinstance(getattr(encoder, "resizer", None), ExpandingHead):
            heads[POOLED] = Head(encoder.channels, 4, classes, norm=True)
    return nn.ModuleDict(heads)


def logits(heads: nn.ModuleDict, seen: Representations) -> dict[str, Tensor]:
    """Logits of each head, (B, classes)."""
    return {name: head(seen.pooled if name == POOLED else seen.z[:, :, None, None]) for name, head in heads.items()}


def _loss(
    heads: nn.ModuleDict, seen: Representations, labels: Tensor, in_kept: Tensor, device: torch.device, precision: str
) -> Tensor:
    """Sum of the cross-entropies of all heads; those of the set "kept" do not see the held-out images."""
    with devices.autocast(device, precision):
        answers = [(each, labels) for each in logits(heads["all"], seen).values()]
        part = Representations(*(each[in_kept] for each in seen))
        answers += [(each, labels[in_kept]) for each in logits(heads["kept"], part).values()]
    return sum(F.cross_entropy(each.float(), targets) for each, targets in answers)


def score(heads: nn.ModuleDict, rows: list[int], task: Task, look: "_Look") -> dict[str, Accuracies]:
    """Accuracies of each head on the central squares of these rows."""
    heads.eval()

    def of_squares(squares: Tensor) -> Tensor:
        seen = Representations(*(each.float() for each in look(squares)))
        return torch.stack(list(logits(heads, seen).values()), 1)  # (B, H, classes)

    return dict(zip(heads, on_images.accuracies(task, rows, of_squares)))


# --- images ----------------------------------------------------------------------------------------------------------


class _Look:
    """The frozen trunk: (B, S, S, 3) uint8 -> detached inputs of the heads."""

    def __init__(self, trunk: nn.Module, device: torch.device, precision: str):
        self.trunk, self.device, self.precision = trunk, device, precision

    @torch.no_grad()
    def __call__(self, squares: Tensor) -> Representations:
        clean = images.inputs(squares, self.device)
        with devices.autocast(self.device, self.precision):
            z, maps = self.trunk.with_maps(clean)  # (B, dim), (B, channels, h, w)
            return Representations(z, four_corners(maps))


def four_corners(maps: Tensor) -> Tensor:
    """Averages over all but the last row and column, and so on: (B, channels, h, h) -> (B, channels, 2, 2)."""
    side = maps.shape[-1]
    return F.avg_pool2d(maps, side - 1, stride=1) if side > 1 else maps.expand(-1, -1, 2, 2)
