"""Optimisation of pretraining: Adam or LARS, warm-up, cosine (released code of Dubois et al., 2022)."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from issl.models.lars import LARS
from issl.objectives.base import Clock
from issl.spec.optim import Optim


def adam(optim: Optim, ssl: Iterable[nn.Parameter], online: Iterable[nn.Parameter], fused: bool) -> torch.optim.Adam:
    """One optimiser with two groups: the method, with coupled weight decay, and the online evaluation, without.

    Clipping by value and Adam both work elementwise, so one optimiser equals the released code's two.
    """
    trained = [parameter for parameter in ssl if parameter.requires_grad]
    groups = [
        {"params": trained, "weight_decay": optim.weight_decay},
        {"params": list(online), "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)


def build(
    optim: Optim, ssl: Iterable[nn.Parameter], online: Iterable[nn.Parameter], fused: bool
) -> torch.optim.Optimizer:
    """The optimiser that the spec asks for; its two groups are those of `adam`."""
    if optim.optimizer == "lars":
        return lars(optim, ssl, online)
    return adam(optim, ssl, online, fused)


def lars(optim: Optim, ssl: Iterable[nn.Parameter], online: Iterable[nn.Parameter]) -> LARS:
    """LARS for the method, including biases and batch norms; plain SGD for the online evaluation."""
    groups = [
        {"params": [parameter for parameter in ssl if parameter.requires_grad], "trust": optim.trust},
        {"params": list(online), "trust": None, "weight_decay": 0.0},
    ]
    return LARS(groups, momentum=optim.momentum, weight_decay=optim.weight_decay)


def learning_rates(optim: Optim, clock: Clock) -> tuple[float, float]:
    """Learning rates of the two groups at a step; they depend only on the clock, so a resumed run needs no state."""
    peak, time, step = optim.lr * optim.batch_size / 256, clock.step / clock.steps_per_epoch, 1 / clock.steps_per_epoch
    if optim.cosine == "whole_run":
        rate = whole_run(time, peak, optim)
    elif optim.lr_interval == "epoch":
        rate = peak * by_epoch(clock.epoch, optim.epochs, optim.warmup_epochs)
    else:
        rate = peak * by_step(time, step, optim)
    passed = sum(clock.epoch >= milestone for milestone in (optim.epochs // 3, 2 * optim.epochs // 3))
    return rate, optim.online_lr * 0.1**passed


def whole_run(time: float, peak: float, optim: Optim) -> float:
    """The rate on ImageNet, as released: linear from `warmup_lr` to the peak, then a cosine that began at step 0.

    `time` is in epochs. At the end of the warm-up the rate drops, by 2.4 % of the peak if that is a tenth of the run.
    """
    if time <= optim.warmup_epochs:
        return optim.warmup_lr + (peak - optim.warmup_lr) * (time / optim.warmup_epochs if optim.warmup_epochs else 1)
    return peak * _cosine(time, optim.epochs)


def by_epoch(epoch: int, epochs: int, warmup: int) -> float:
    """The released schedule: constant within an epoch, 0 in epoch 0, full in the last epoch of the warm-up.

    This is lightning-bolts' LinearWarmupCosineAnnealingLR, stepped once per epoch.
    """
    if epoch < warmup:
        return epoch / max(warmup - 1, 1)
    return _cosine(epoch - warmup, epochs - warmup)


def by_step(time: float, step: float, optim: Optim) -> float:
    """The same shape without its stairs; `time` and `step` are in epochs. The first step has a rate above 0."""
    if time < optim.warmup_epochs:
        return min((time + step) / optim.warmup_epochs, 1.0)
    return _cosine(time - optim.warmup_epochs, optim.epochs - optim.warmup_epochs)


def _cosine(time: float, total: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * time / total))
