"""Optimisation of pretraining: Adam, warm-up, cosine (released code of Dubois et al., 2022)."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from issl.objectives.base import Clock
from issl.spec import Optim


def adam(optim: Optim, ssl: Iterable[nn.Parameter], online: Iterable[nn.Parameter], fused: bool) -> torch.optim.Adam:
    """One optimiser with two groups: everything of the method with coupled weight decay, and the online evaluation.

    Clipping by value and Adam both act on each element alone, so one optimiser equals the released code's two.
    """
    trained = [parameter for parameter in ssl if parameter.requires_grad]
    groups = [
        {"params": trained, "weight_decay": optim.weight_decay},
        {"params": list(online), "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)


def learning_rates(optim: Optim, clock: Clock) -> tuple[float, float]:
    """Rates of the two groups of `adam` at a step: a function of the clock alone, so a resumed run needs no state."""
    if optim.lr_interval == "epoch":
        factor = by_epoch(clock.epoch, optim.epochs, optim.warmup_epochs)
    else:
        factor = by_step(clock.step / clock.steps_per_epoch, 1 / clock.steps_per_epoch, optim)
    passed = sum(clock.epoch >= milestone for milestone in (optim.epochs // 3, 2 * optim.epochs // 3))
    return optim.lr * optim.batch_size / 256 * factor, optim.online_lr * 0.1**passed


def by_epoch(epoch: int, epochs: int, warmup: int) -> float:
    """The released schedule: constant within an epoch, 0 in epoch 0, full in the last epoch of the warm-up.

    This is lightning-bolts' LinearWarmupCosineAnnealingLR stepped once an epoch.
    """
    if epoch < warmup:
        return epoch / max(warmup - 1, 1)
    return _cosine(epoch - warmup, epochs - warmup)


def by_step(time: float, step: float, optim: Optim) -> float:
    """The same shape without its stairs; `time` and `step` in epochs. The first step already learns."""
    if time < optim.warmup_epochs:
        return min((time + step) / optim.warmup_epochs, 1.0)
    return _cosine(time - optim.warmup_epochs, optim.epochs - optim.warmup_epochs)


def _cosine(time: float, total: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * time / total))
