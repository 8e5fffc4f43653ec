"""Trains probes on features side by side: those with the same batches share one pass over the features."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from issl.errors import UserError
from issl.jobs import devices
from issl.probing.scores import Accuracies, Score, Tally
from issl.probing.subsets import hold_out, stratified
from issl.probing.task import Task
from issl.spec.probe import Probe, ProbeGrid, label_fraction, setting
from issl.views.random import epoch_order, generator

log = logging.getLogger(__name__)

SCORED = 2048  # rows scored at once


class Recipe(NamedTuple):
    """How the probes of one kind are trained.

    `heads` builds one module for a group of probes from (group, dim, classes, generator): features (B, dim) -> logits
    (B, H, classes). Its `adjust_gradients()` does the steps before the momentum in each probe's optimiser; its
    `normalizes` says whether it has a batch norm, for which a batch of one image has no variance.
    """

    heads: Callable[[Sequence[Probe], int, int, torch.Generator], nn.Module]
    purpose: str  # of the initial weights' random numbers; with " order" appended, of the batches'
    rate: Callable[[Probe], float]  # of the group's shared momentum SGD, before the cosine
    own: frozenset[str]  # settings that may differ within a group


def evaluate(grid: ProbeGrid, task: Task, recipe: Recipe) -> list[Score]:
    """Scores of every probe of the grid, in its order.

    If several compete on the same labels, each is trained twice: on all labels, and without a held-out part, on which
    one probe can be selected. Raises UserError if a subset cannot be drawn or a probe diverges.
    """
    found: dict[Probe, Score] = {}
    for group in groups(grid.probes, recipe.own):
        started, probe = time.monotonic(), group[0]
        fraction = label_fraction(probe)
        subset = stratified(task.labels[task.train], fraction, task.seed)
        tested = fit_and_score(group, recipe, task, task.train[subset], task.test)
        held_out: Sequence[Accuracies | None] = [None] * len(group)
        if sum(label_fraction(other) == fraction for other in grid.probes) > 1:
            kept, left = hold_out(task.labels[task.train], subset, probe.holdout, task.seed)
            held_out = fit_and_score(group, recipe, task, task.train[kept], task.train[left])
        for each, test, holdout in zip(group, tested, held_out):
            counts = len(subset), len(task.test)
            found[each] = Score(setting(each), *counts, test, holdout, each.weight_decay, fraction)
            log.info("%s: %s", each.kind, found[each])
        log.info("%d probes in %.0f s", len(group), time.monotonic() - started)
    return [found[probe] for probe in grid.probes]


def groups(probes: Sequence[Probe], own: frozenset[str]) -> list[list[Probe]]:
    """Groups of probes with the same batches: they differ only in the settings `own`."""

    def shared(probe: Probe) -> str:
        return probe.model_dump_json(exclude=set(own))

    return [list(group) for _, group in groupby(sorted(probes, key=shared), key=shared)]


def fit_and_score(
    group: Sequence[Probe], recipe: Recipe, task: Task, fit_on: np.ndarray, score_on: np.ndarray
) -> list[Accuracies]:
    """Trains each probe of a group on the rows `fit_on`, and returns its accuracies on the rows `score_on`.

    Cross-entropy, momentum, cosine by epoch to 0 without warm-up, incomplete last batch kept. All probes start from the
    same draw. Rows are gathered and converted batch by batch, without a second copy of the features. Raises UserError
    if a probe diverges.
    """
    probe, read = group[0], task.features
    heads = recipe.heads(group, read.dim, task.classes, generator(recipe.purpose, task.seed)).to(task.device)
    labels = torch.from_numpy(task.labels).to(task.device)
    sgd = torch.optim.SGD(heads.parameters(), lr=1.0, momentum=probe.momentum, fused=True)
    scaler = torch.amp.GradScaler(task.device.type, enabled=task.precision == "fp16")
    numbers = torch.from_numpy(fit_on)
    for epoch in range(probe.epochs):
        sgd.param_groups[0]["lr"] = recipe.rate(probe) * 0.5 * (1 + math.cos(math.pi * epoch / probe.epochs))
        order = epoch_order(f"{recipe.purpose} order", task.seed, epoch, len(fit_on), len(fit_on))[0]
        for rows in read.place(numbers[order]).split(probe.batch_size):
            if len(rows) == 1 and heads.normalizes:
                continue
            targets = labels.index_select(0, rows.to(task.device))[:, None].expand(-1, len(group))  # (B, H)
            with devices.autocast(task.device, task.precision):
                logits = heads(read(rows))  # (B, H, classes)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum") / len(rows)
            sgd.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(sgd)
            heads.adjust_gradients()
            scaler.step(sgd)
            scaler.update()
        if not loss.isfinite():
            what, names = f"a {probe.kind} probe on {len(fit_on)} labels", "; ".join(setting(each) for each in group)
            raise UserError(f"{what} diverged in epoch {epoch}; lower the lr of one of: {names}")
    return _score(heads, task, labels, torch.from_numpy(score_on))


@torch.no_grad()
def _score(heads: nn.Module, task: Task, labels: torch.Tensor, numbers: torch.Tensor) -> list[Accuracies]:
    heads.eval()
    tally = None
    for rows in task.features.place(numbers).split(SCORED):
        with devices.autocast(task.device, task.precision):
            logits = heads(task.features(rows)).float()
        tally = tally or Tally(logits.shape[1], task.classes, task.device)
        tally.add(logits, labels.index_select(0, rows.to(task.device)))
    return tally.scores()
