"""Linear evaluation on cached features: a grid of classifiers, those that see the same batches trained side by side."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.errors import UserError
from issl.jobs import device
from issl.probing.heads import hold_out
from issl.probing.scores import Tally, score_row
from issl.spec.protocol import Cached, CachedProbe
from issl.views.random import epoch_order, generator

log = logging.getLogger(__name__)

# Numbers of rows, (n,) on the CPU -> features (n, dim) float32 on the device.
Read = Callable[[Tensor], Tensor]

TRUST, EPS = 0.001, 1e-8  # of LARS
SCORED = 4096  # rows that are scored at once


def evaluate(
    protocol: Cached,
    seed: int,
    read: Read,
    labels: np.ndarray,
    train: slice,
    test: slice,
    where: torch.device,
    kind: str,
) -> list[dict[str, Any]]:
    """Scores of every probe of the grid, each trained twice: on all training rows, and without a held-out part.

    `labels` (N,) are those of all rows, `train` and `test` the rows of the splits; `kind` is the precision. Raises
    UserError when a probe diverges, or the held-out part cannot be drawn.
    """
    rows = np.arange(len(labels))
    kept, left = hold_out(labels[train], np.arange(train.stop - train.start), protocol.holdout, seed)
    kept, left = rows[train][kept], rows[train][left]
    found: dict[CachedProbe, dict[str, Any]] = {}
    for group in side_by_side(protocol.probes):
        started = time.monotonic()
        of_all = fit_and_score(group, seed, read, labels, rows[train], rows[test], where, kind)
        of_kept = fit_and_score(group, seed, read, labels, kept, left, where, kind)
        for probe, tested, held_out in zip(group, of_all, of_kept):
            found[probe] = score_row(probe.setting, train.stop - train.start, test.stop - test.start, tested, held_out)
            log.info("%s: top-1 %.2f %%, held out %.2f %%", probe.setting, 100 * tested["top1"], 100 * held_out["top1"])
        log.info("%d probes in %.0f s", len(group), time.monotonic() - started)
    return [found[probe] for probe in protocol.probes]


def side_by_side(probes: Sequence[CachedProbe]) -> list[list[CachedProbe]]:
    """Groups of probes that see the same batches, normalised or not."""

    def shared(probe: CachedProbe) -> tuple:
        return probe.batch_size, probe.epochs, probe.momentum, probe.batch_norm

    return [list(group) for _, group in groupby(sorted(probes, key=shared), key=shared)]


def fit_and_score(
    group: Sequence[CachedProbe],
    seed: int,
    read: Read,
    labels: np.ndarray,
    fit_on: np.ndarray,
    score_on: np.ndarray,
    where: torch.device,
    kind: str,
) -> list[dict[str, float]]:
    """Accuracies on the rows `score_on` of each probe in a group after training on `fit_on`.

    Cross-entropy, momentum, cosine by epoch to 0 without warm-up, last partial batch kept. Raises UserError when a
    probe diverges.
    """
    spec, targets = group[0], torch.from_numpy(labels)
    classes = int(labels.max()) + 1
    heads = Heads(group, read(torch.from_numpy(fit_on[:1])).shape[1], classes, generator("cached probe", seed)).to(
        where
    )
    sgd = torch.optim.SGD(heads.parameters(), lr=1.0, momentum=spec.momentum, fused=True)
    scaler = torch.amp.GradScaler(where.type, enabled=kind == "fp16")
    numbers = torch.from_numpy(fit_on)
    for epoch in range(spec.epochs):
        sgd.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * epoch / spec.epochs))  # times each probe's own
        for rows in epoch_order("cached probe order", seed, epoch, len(fit_on), spec.batch_size):
            if len(rows) == 1 and spec.batch_norm:
                continue  # no variance to divide by
            x, y = read(numbers[rows]), targets[numbers[rows]].to(where)
            with device.autocast(where, kind):
                logits = heads(x)  # (B, H, classes)
            each = y[:, None].expand(-1, len(group))  # (B, H)
            loss = F.cross_entropy(logits.float().flatten(0, 1), each.flatten(), reduction="sum") / len(rows)
            sgd.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(sgd)
            heads.make_steps_of_gradients()
            scaler.step(sgd)
            scaler.update()
        if not loss.isfinite():
            names = "; ".join(probe.setting for probe in group)
            raise UserError(f"a linear probe diverged in epoch {epoch}: lower the rate of one of: {names}")
    return score(heads, read, targets, torch.from_numpy(score_on), classes, where, kind)


@torch.no_grad()
def score(
    heads: "Heads", read: Read, targets: Tensor, rows: Tensor, classes: int, where: torch.device, kind: str
) -> list[dict[str, float]]:
    """Accuracies of each head on these rows."""
    heads.eval()
    tally = Tally(len(heads.weight), classes, where)
    for part in rows.split(SCORED):
        with device.autocast(where, kind):
            logits = heads(read(part))
        tally.add(logits.float(), targets[part].to(where))
    return tally.scores()


class Heads(nn.Module):
    """A linear classifier for each probe of a group, on one input: z (B, dim) -> logits (B, H, classes).

    All start from the same draw: weights normal with deviation 0.02, truncated at 2 as torch does, and biases 0.
    """

    def __init__(self, group: Sequence[CachedProbe], dim: int, classes: int, draws: torch.Generator):
        super().__init__()
        start = nn.init.trunc_normal_(torch.empty(classes, dim), std=0.02, generator=draws)
        self.weight = nn.Parameter(start.repeat(len(group), 1, 1))  # (H, classes, dim)
        self.bias = nn.Parameter(torch.zeros(len(group), classes))
        self.norm = nn.BatchNorm1d(dim, affine=False) if group[0].batch_norm else nn.Identity()
        self.register_buffer("rate", torch.tensor([probe.lr * probe.batch_size / 256 for probe in group]))
        self.register_buffer("decay", torch.tensor([probe.weight_decay for probe in group]))
        self.register_buffer("lars", torch.tensor([probe.optimizer == "lars" for probe in group]))

    def forward(self, z: Tensor) -> Tensor:
        logits = F.linear(self.norm(z), self.weight.flatten(0, 1), self.bias.flatten())
        return logits.unflatten(1, self.bias.shape)

    def make_steps_of_gradients(self) -> None:
        """Adds each probe's weight decay to its gradients, scales them as LARS does, and multiplies by its rate.

        The rate of a probe is constant but for the cosine, which all share: momentum SGD at the cosine then makes the
        very steps of each probe's own optimiser. LARS (You et al. 2017) as in apex's LARC without clipping.
        """
        for parameter in (self.weight, self.bias):
            p, g = parameter.detach().flatten(1), parameter.grad.flatten(1)  # (H, n), a view of the gradient
            p_norm, g_norm = p.norm(dim=1), g.norm(dim=1)
            trust = TRUST * p_norm / (g_norm + self.decay * p_norm + EPS)
            moves = (p_norm > 0) & (g_norm > 0)
            decay = torch.where(self.lars & ~moves, 0.0, self.decay)
            trust = torch.where(self.lars & moves, trust, 1.0)
            g.addcmul_(p, decay[:, None]).mul_((trust * self.rate)[:, None])
