"""Linear evaluation on augmented images: heads on the frozen trunk, as VISSL's linear benchmark trains them.

Every head is trained twice in the same pass: on all training images, and on all but a held-out part. The trunk, which
is nearly all of the work, is run once for both.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.data.arrays import Arrays
from issl.errors import UserError
from issl.jobs import device
from issl.jobs.files import whole, write_text
from issl.probing import encoders, images
from issl.probing.heads import hold_out
from issl.probing.scores import Tally, score_row
from issl.spec.encoder import Encoder
from issl.spec.protocol import Augmented, Encoding
from issl.views import augment, decode
from issl.views.random import epoch_order, generator

log = logging.getLogger(__name__)

REQUEST = 64  # images that a worker process gives at a time, at most
SETS = ("all", "kept")  # what the heads are trained on


class Representations(NamedTuple):
    """What heads read: the representation, and the last stage averaged to 2 x 2 where it is the representation's."""

    z: Tensor  # (B, dim)
    pooled: Tensor  # (B, channels, 2, 2)


def evaluate(
    protocol: Augmented,
    seed: int,
    encoding: Encoding,
    arrays: Arrays,
    part: Path,
    workers: int,
    where: torch.device,
    kind: str,
) -> list[dict[str, Any]]:
    """Scores of every head after the last epoch.

    SGD with Nesterov momentum; the rate falls to a tenth after each milestone. Saves to the folder `part` after every
    epoch, and continues from there; the caller removes it when the scores are written. Raises UserError for a file
    that cannot be decoded, a loss that is not finite, or a save of other settings.
    """
    files = images.of_files(arrays, encoding)
    train, test = arrays.split("train"), arrays.split("test")
    labels = torch.from_numpy(arrays.labels)
    kept, left = hold_out(arrays.labels[train], np.arange(train.stop), protocol.holdout, seed)
    in_kept = torch.zeros(train.stop, dtype=torch.bool)
    in_kept[torch.from_numpy(kept)] = True

    trunk = encoders.load(encoding).to(where, memory_format=torch.channels_last)
    look = _Look(trunk, where, kind)
    heads = nn.ModuleDict({name: build(encoders.shape(encoding), arrays.n_classes, seed) for name in SETS}).to(where)
    sgd = torch.optim.SGD(
        parameter_groups(heads, protocol), lr=rate(protocol, 0), momentum=protocol.momentum, nesterov=True
    )
    scaler = torch.amp.GradScaler(where.type, enabled=kind == "fp16")
    state = _State(part, {"protocol": protocol.canonical(), "seed": seed} | encoders.origin(encoding))
    for epoch in range(state.resume(heads, sgd, scaler, where), protocol.epochs):
        for group in sgd.param_groups:
            group["lr"] = rate(protocol, epoch)
        order = epoch_order("augmented order", seed, epoch, train.stop, protocol.batch_size)
        heads.train()
        for rows, crops in zip(order, _crops(files, protocol, order, seed, epoch, workers, where)):
            loss = _loss(heads, look(crops), labels[rows].to(where), in_kept[rows].to(where), where, kind)
            sgd.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(sgd)
            scaler.update()
        if not loss.isfinite():
            raise UserError(f"the heads diverged in epoch {epoch}: lower lr")
        log.info("epoch %d/%d, loss %.3f", epoch + 1, protocol.epochs, loss.item())
        state.save(epoch + 1, heads, sgd, scaler)
    tested = score(heads["all"], files, range(test.start, test.stop), labels, arrays.n_classes, workers, look)
    held_out = score(heads["kept"], files, left.tolist(), labels, arrays.n_classes, workers, look)
    rows = [score_row(name, train.stop, test.stop - test.start, tested[name], held_out[name]) for name in tested]
    for row in rows:
        log.info(
            "%s: top-1 %.2f %%, held out %.2f %%",
            row["setting"],
            *(100 * row[f"{s}_top1"] for s in ("test", "holdout")),
        )
    return rows


def rate(protocol: Augmented, epoch: int) -> float:
    """The learning rate of an epoch."""
    return protocol.lr * protocol.batch_size / 256 * 0.1 ** sum(epoch >= milestone for milestone in protocol.milestones)


def parameter_groups(heads: nn.Module, protocol: Augmented) -> list[dict[str, Any]]:
    """Weights and biases of linear layers decay, those of batch norms do not."""
    norms = [p for m in heads.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    linears = [p for m in heads.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
    return [{"params": linears, "weight_decay": protocol.weight_decay}, {"params": norms, "weight_decay": 0.0}]


# --- heads -----------------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """An optional batch norm of each channel, and a linear layer: (B, channels, h, w) -> (B, classes)."""

    def __init__(self, channels: int, positions: int, classes: int, norm: bool):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.linear = nn.Linear(channels * positions, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).flatten(1))


POOLED = "2 x 2 pooling, batch norm, linear"


def build(shape: Encoder, classes: int, seed: int) -> nn.ModuleDict:
    """The heads that the authors put on an encoder; that on the 2 x 2 map only where no expanding head follows it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("augmented heads", seed).initial_seed())
        heads = {f"{norm}linear": Head(shape.dim, 1, classes, bool(norm)) for norm in ("batch norm, ", "")}
        if shape.head == "none":
            heads[POOLED] = Head(shape.channels, 4, classes, norm=True)
    return nn.ModuleDict(heads)


def logits(heads: nn.ModuleDict, seen: Representations) -> dict[str, Tensor]:
    """What each head says, (B, classes)."""
    return {name: head(seen.pooled if name == POOLED else seen.z[:, :, None, None]) for name, head in heads.items()}


def _loss(
    heads: nn.ModuleDict, seen: Representations, labels: Tensor, in_kept: Tensor, where: torch.device, kind: str
) -> Tensor:
    """Sum of the cross-entropies of all heads; those of the set "kept" do not see the images that are held out."""
    with device.autocast(where, kind):
        said = [(each, labels) for each in logits(heads["all"], seen).values()]
        part = Representations(*(each[in_kept] for each in seen))
        said += [(each, labels[in_kept]) for each in logits(heads["kept"], part).values()]
    return sum(F.cross_entropy(each.float(), targets) for each, targets in said)


@torch.no_grad()
def score(
    heads: nn.ModuleDict,
    files: decode.Photos,
    rows: Iterable[int],
    labels: Tensor,
    classes: int,
    workers: int,
    look: "_Look",
) -> dict[str, dict[str, float]]:
    """Accuracies of each head on the central squares of these rows."""
    heads.eval()
    tally, rows, done = Tally(len(heads), classes, look.where), list(rows), 0
    for squares in decode.central_squares(files, rows, workers):
        seen = look(squares)
        said = torch.stack(
            list(logits(heads, Representations(*(each.float() for each in seen))).values()), 1
        )  # (B, H, classes)
        tally.add(said, labels[rows[done : done + len(squares)]].to(look.where))
        done += len(squares)
    return dict(zip(heads, tally.scores()))


# --- images ----------------------------------------------------------------------------------------------------------


class _Look:
    """The frozen trunk: (B, S, S, 3) uint8 -> what heads read, detached."""

    def __init__(self, trunk: nn.Module, where: torch.device, kind: str):
        self.trunk, self.where, self.kind = trunk, where, kind

    @torch.no_grad()
    def __call__(self, squares: Tensor) -> Representations:
        clean = augment.clean(squares.to(self.where, non_blocking=True).permute(0, 3, 1, 2))
        with device.autocast(self.where, self.kind):
            maps = self.trunk.maps(clean)  # (B, channels, h, w)
            z = self.trunk.resizer(maps).mean(dim=(2, 3))  # (B, dim)
            return Representations(z, F.avg_pool2d(maps, maps.shape[-1] - 1, stride=1))


def _crops(
    files: decode.Photos,
    protocol: Augmented,
    order: Iterable[Tensor],
    seed: int,
    epoch: int,
    workers: int,
    where: torch.device,
) -> Iterator[Tensor]:
    """Random crops of each batch of the order, (B, S, S, 3) uint8."""
    requests = [list(batch.split(REQUEST)) for batch in order]
    wanted = (decode.CropRequest(rows.tolist(), "augmented", seed, epoch) for batch in requests for rows in batch)
    made = decode.mirrored_crops(files, protocol.min_area, wanted, workers, pin=where.type == "cuda")
    for batch in requests:
        yield torch.cat(list(islice(made, len(batch))))


# --- saving ----------------------------------------------------------------------------------------------------------


class _State:
    """The save of a training, whole or not at all, and what it is of."""

    def __init__(self, part: Path, about: Mapping[str, Any]):
        self.file, self.about = part / "state.pt", dict(about)
        write_text(part / "about.json", json.dumps(self.about))

    def save(self, epoch: int, heads: nn.Module, sgd: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Saves what the next epoch starts from."""
        states = {"heads": heads.state_dict(), "sgd": sgd.state_dict(), "scaler": scaler.state_dict()}
        with whole(self.file) as temporary:
            torch.save({"about": self.about, "epoch": epoch, **states}, temporary)

    def resume(
        self, heads: nn.Module, sgd: torch.optim.Optimizer, scaler: torch.amp.GradScaler, where: torch.device
    ) -> int:
        """Loads the save, if there is one, and gives the epoch to go on with. Raises UserError for one that is torn."""
        if not self.file.exists():
            return 0
        try:
            saved = torch.load(self.file, map_location=where, weights_only=True)
            if saved["about"] != self.about:
                raise KeyError("about")
        except Exception as error:
            raise UserError(f"{self.file}: not a save of this evaluation ({error}); delete it to begin anew") from None
        heads.load_state_dict(saved["heads"])
        sgd.load_state_dict(saved["sgd"])
        scaler.load_state_dict(saved["scaler"])
        log.info("continues after epoch %d", saved["epoch"])
        return saved["epoch"]
