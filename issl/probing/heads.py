"""Probes: supervised heads on frozen features, a whole grid of them in one pass (released code).

Heads that differ only in weight decay see the same batches and are trained side by side: H linear heads are one linear
layer with H times the outputs, and what acts on each weight alone (clipping, momentum, decay) need not know.
"""

import logging
import math
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs import device, provenance
from issl.jobs.execution import Execution
from issl.jobs.files import write_csv, write_json
from issl.jobs.locks import build_once
from issl.spec.probe import ProbeGrid, ProbeSpec, grid_id
from issl.views.random import epoch_order, generator

log = logging.getLogger(__name__)

COLUMNS = ("probe", "weight_decay", "fraction", "n_labels", "probe_epochs", "n_test", "test_acc", "holdout_acc")


def probe(grid: ProbeGrid, seed: int, features: Path, data: Path, out: Path, execution: Execution) -> None:
    """Trains every probe of the grid and writes one row each to the CSV `out`, and what made it to a JSON beside it.

    `test_acc` is that of the probe trained on all labels of its subset. Where a subset has several weight decays to
    choose from, `holdout_acc` is that of a second probe, trained without a stratified part of the subset and
    evaluated on this part: the honest ground for a choice. The features are in memory once: on the CPU as pages of
    the file, on a GPU as one float16 copy; all subsets are numbers of their rows. Waits while another process trains
    the same probes, and then takes its result. Raises UserError when a subset
    cannot be drawn, or when a probe diverges.
    """
    outputs = [out, out.with_suffix(".json")]
    build_once(outputs, lambda: _probe(grid, seed, features, data, out, execution))


def _probe(grid: ProbeGrid, seed: int, features: Path, data: Path, out: Path, execution: Execution) -> None:
    began, made_by = time.monotonic(), provenance.describe("probe")
    where = device.choose(execution)
    kind = device.precision(execution, where)
    arrays = read(data)
    try:
        z = torch.from_numpy(np.load(features, mmap_mode="c"))  # (N, dim) float16, train rows first
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{features}: cannot be read ({error}); delete it and featurize again") from None
    if len(z) != len(arrays.labels):
        raise UserError(f"{features}: {len(z)} rows, but {data} has {len(arrays.labels)} images")
    features_and_labels = z.to(where), torch.from_numpy(arrays.labels.copy()).to(where)
    numbers = np.arange(len(z))
    train, test = numbers[arrays.split("train")], numbers[arrays.split("test")]

    def accuracies(group: list[ProbeSpec], fit_on: np.ndarray, score_on: np.ndarray) -> list[float]:
        chosen = torch.from_numpy(fit_on).to(where), torch.from_numpy(score_on).to(where)
        return fit_and_score(group, seed, features_and_labels, features_and_labels, arrays.n_classes, kind, *chosen)

    rows = []
    for group in _side_by_side(grid.probes):
        started = time.monotonic()
        spec = group[0]
        subset = stratified(arrays.labels[train], spec.fraction, seed)
        tested = accuracies(group, train[subset], test)
        held_out: Sequence[float | None] = [None] * len(group)
        if len(group) > 1:
            kept, left = hold_out(arrays.labels[train], subset, spec.holdout, seed)
            held_out = accuracies(group, train[kept], train[left])
        for member, test_acc, holdout_acc in zip(group, tested, held_out):
            values = (member.kind, member.weight_decay, member.fraction, len(subset), member.epochs, len(test))
            rows.append(dict(zip(COLUMNS, (*values, test_acc, holdout_acc))))
        log.info(
            "%d %s probes on %d labels: test accuracy %s %%, %.0f s",
            *(len(group), spec.kind, len(subset)),
            *(", ".join(f"{100 * acc:.1f}" for acc in tested), time.monotonic() - started),
        )
    about = {"grid": grid_id(grid), "seed": seed, "spec": grid.model_dump(mode="json"), "data": arrays.meta["sha256"]}
    write_json(out.with_suffix(".json"), about | device.usage(where, kind, began) | made_by)
    write_csv(out, COLUMNS, rows)


def _side_by_side(probes: Sequence[ProbeSpec]) -> list[list[ProbeSpec]]:
    """Groups of probes that differ in nothing but their weight decay."""

    def shared(spec: ProbeSpec) -> str:
        return spec.model_copy(update={"weight_decay": 0.0}).model_dump_json()

    return [list(group) for _, group in groupby(sorted(probes, key=shared), key=shared)]


# --- subsets ---------------------------------------------------------------------------------------------------------


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Row numbers of a stratified draw without replacement, as the released code draws them with scikit-learn.

    Raises UserError when the fraction leaves a class without an image.
    """
    rows = np.arange(len(labels))
    if fraction == 1:
        return rows
    return _split(rows, labels, fraction, seed, f"probes: fraction {fraction}")[1]


def hold_out(labels: np.ndarray, subset: np.ndarray, part: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits a subset into rows to train on and a stratified part to choose on. Raises UserError when impossible."""
    return _split(subset, labels[subset], part, seed, f"probes: holdout {part} of {len(subset)} labels")


def _split(rows: np.ndarray, labels: np.ndarray, part: float, seed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split  # takes a second to import, and a grid may need no draw

    try:
        rest, drawn = train_test_split(rows, test_size=part, stratify=labels, random_state=seed)
    except ValueError as error:
        raise UserError(f"{what}: cannot be drawn from {len(rows)} labels: {error}") from None
    return rest, drawn


# --- training --------------------------------------------------------------------------------------------------------


def fit_and_score(
    group: Sequence[ProbeSpec],
    seed: int,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    precision: str,
    fit_on: Tensor | None = None,
    score_on: Tensor | None = None,
) -> list[float]:
    """Top-1 accuracy on `test` of each probe in a group after training on `train`.

    SGD with momentum, cosine by epoch without warm-up, gradients clipped by value before the decay is added, last
    partial batch kept. All heads start from the same draw. `train` and `test` are features (N, dim) and labels (N,),
    `fit_on` and `score_on` the numbers of the rows to use of them, (n,), by default all; everything on one device.
    Rows are gathered and converted batch by batch, so no second copy of the features comes to be. Raises UserError
    when a probe diverges.
    """
    spec, z, labels = group[0], *train
    fit_on = torch.arange(len(labels), device=z.device) if fit_on is None else fit_on
    heads = Heads(spec, len(group), z.shape[1], classes, generator("probe", seed)).to(z.device)
    decay = torch.tensor([member.weight_decay for member in group], device=z.device)
    sgd = torch.optim.SGD(heads.parameters(), lr=spec.lr, momentum=spec.momentum, fused=True)
    scaler = torch.amp.GradScaler(z.device.type, enabled=precision == "fp16")
    for epoch in range(spec.epochs):
        rate = spec.lr * spec.batch_size / 256 * 0.5 * (1 + math.cos(math.pi * epoch / spec.epochs))
        sgd.param_groups[0]["lr"] = rate
        [order] = epoch_order("probe order", seed, epoch, len(fit_on), batch_size=len(fit_on))
        for rows in fit_on[order.to(z.device)].split(spec.batch_size):
            if len(rows) == 1 and spec.kind == "mlp":
                continue  # batch norm has no variance to divide by
            # On a CPU `z[rows]` takes five times as long, and so does float16 to bf16 in one step.
            x = z.index_select(0, rows).float()  # (B, dim)
            with device.autocast(z.device, precision):
                logits = heads(x)  # (B, H, classes)
            targets = labels[rows, None].expand(-1, len(group))  # (B, H)
            losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum") / len(rows)
            sgd.zero_grad()
            scaler.scale(losses).backward()
            scaler.unscale_(sgd)
            heads.clip_and_decay(spec.clip_value, decay)
            scaler.step(sgd)
            scaler.update()
        if not losses.isfinite():
            raise UserError(f"a {spec.kind} probe on {len(fit_on)} labels diverged in epoch {epoch}; lower its lr")
    return heads.accuracy(*test, precision, score_on)


class Heads(nn.Module):
    """H equal heads on one input: z (B, dim) -> logits (B, H, classes); linear, or an MLP with two hidden layers."""

    def __init__(self, spec: ProbeSpec, heads: int, dim: int, classes: int, draws: torch.Generator):
        super().__init__()
        self.heads = heads
        if spec.kind == "linear":
            layers = [SideBySide(heads, dim, classes, draws, first=True, bias=True)]
        else:
            layers = [
                SideBySide(heads, dim, spec.hidden, draws, first=True),
                HeadsNorm(heads, spec.hidden),
                SideBySide(heads, spec.hidden, spec.hidden, draws),
                HeadsNorm(heads, spec.hidden),
                SideBySide(heads, spec.hidden, classes, draws, bias=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)

    def clip_and_decay(self, clip_value: float, decay: Tensor) -> None:
        """Clips all gradients by value, then adds the coupled weight decay of each head, (H,): their first axis."""
        for parameter in self.parameters():
            each = decay.view(-1, *[1] * (parameter.dim() - 1))
            parameter.grad.clamp_(-clip_value, clip_value).addcmul_(parameter.detach(), each)

    @torch.no_grad()
    def accuracy(self, z: Tensor, labels: Tensor, precision: str, score_on: Tensor | None = None) -> list[float]:
        """Top-1 accuracy of each head on features (N, dim), or on their rows numbered `score_on`, (n,)."""
        self.eval()
        score_on = torch.arange(len(labels), device=z.device) if score_on is None else score_on
        correct = torch.zeros(self.heads, dtype=torch.int64, device=z.device)
        for rows in score_on.split(2048):
            with device.autocast(z.device, precision):
                logits = self(z.index_select(0, rows).float())  # (B, H, classes)
            correct += (logits.argmax(-1) == labels[rows, None]).sum(0)
        return [count / len(score_on) for count in correct.tolist()]


class SideBySide(nn.Module):
    """A linear layer of each head: (B, in) if `first`, else (B, H, in), -> (B, H, out). Normal 0.02, bias 0."""

    def __init__(
        self, heads: int, inputs: int, outputs: int, draws: torch.Generator, first: bool = False, bias: bool = False
    ):
        super().__init__()
        self.first = first
        start = torch.empty(outputs, inputs).normal_(0, 0.02, generator=draws)
        self.weight = nn.Parameter(start.repeat(heads, 1, 1))  # (H, out, in)
        self.bias = nn.Parameter(torch.zeros(heads, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.first:  # one matrix product for all heads, since all read the same rows
            bias = None if self.bias is None else self.bias.flatten()
            return F.linear(x, self.weight.flatten(0, 1), bias).unflatten(1, self.weight.shape[:2])
        y = torch.einsum("bhi,hoi->bho", x, self.weight)
        return y if self.bias is None else y + self.bias


class HeadsNorm(nn.Module):
    """Batch norm and ReLU of each head: (B, H, width) -> (B, H, width)."""

    def __init__(self, heads: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))
        self.register_buffer("mean", torch.zeros(heads * width))
        self.register_buffer("variance", torch.ones(heads * width))

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = F.batch_norm(
            x.flatten(1), self.mean, self.variance, self.weight.flatten(), self.bias.flatten(), training=self.training
        )
        return F.relu(x).view(shape)
