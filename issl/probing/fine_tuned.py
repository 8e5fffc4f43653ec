"""Fine-tuning on a part of the labels: the encoder and a linear classifier on it, trained together.

The protocol of SimCLR: Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020,
appendix B.5. What it leaves open is as in their code (google-research/simclr): the rate falls to 0 by a cosine, step by
step, and the classifier starts at 0.
"""

import logging
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.errors import UserError
from issl.jobs import devices
from issl.probing import encoders, images, on_images, saves
from issl.probing.scores import Accuracies, Score
from issl.probing.subsets import hold_out, stratified
from issl.probing.task import Task
from issl.spec.encoding import Encoding
from issl.spec.probe import FineTuned, ProbeGrid, label_fraction, setting
from issl.views.random import epoch_order

log = logging.getLogger(__name__)


def evaluate(grid: ProbeGrid, task: Task) -> list[Score]:
    """Scores of every setting after its last epoch, in the grid's order.

    If several compete on the same labels, each trains twice: on all labels, and without a held-out part, on which one
    can be selected. Saves after every epoch and continues from the last save. Raises UserError if a subset cannot be
    drawn, a file cannot be decoded, a loss is not finite, or for a save of other settings.
    """
    fractions = [label_fraction(probe) for probe in grid.probes]
    return [_evaluate(probe, task, fractions.count(probe.fraction) > 1) for probe in grid.probes]


def _evaluate(probe: FineTuned, task: Task, competes: bool) -> Score:
    labels = task.labels[task.train]
    subset, held_out = stratified(labels, probe.fraction, task.seed), None
    tested = fit_and_score(probe, task, "all", task.train[subset], task.test)
    if competes:
        kept, left = hold_out(labels, subset, probe.holdout, task.seed)
        held_out = fit_and_score(probe, task, "kept", task.train[kept], task.train[left])
    found = Score(setting(probe), len(subset), len(task.test), tested, held_out, fraction=probe.fraction)
    log.info("fine-tuned, %s", found)
    return found


def fit_and_score(probe: FineTuned, task: Task, name: str, fit_on: np.ndarray, score_on: np.ndarray) -> Accuracies:
    """Fine-tunes on the rows `fit_on`, and gives the accuracies on the central squares of the rows `score_on`.

    SGD with Nesterov momentum on randomly cropped and mirrored images; batch norms use each batch's statistics while
    training. A last batch of one image, which has no variance, is left out. `name` is that of the save.
    """
    device, precision = task.device, task.precision
    network = Classifier(task.images.encoder, task.images.encoding, task.classes)
    network.to(device, memory_format=torch.channels_last)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    sgd = torch.optim.SGD(trained, lr=0.0, momentum=probe.momentum, nesterov=probe.momentum > 0)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    labels, numbers = torch.from_numpy(task.labels), torch.from_numpy(fit_on)
    save = saves.of(probe, task, name)
    parts = {"network": network, "sgd": sgd, "scaler": scaler}
    for epoch in range(save.resume(device, **parts), probe.epochs):
        network.train()
        every = epoch_order("fine-tuning order", task.seed, epoch, len(numbers), probe.batch_size)
        order = [numbers[places] for places in every if len(places) > 1]
        crops = on_images.mirrored_crops(task, probe.min_area, order, "fine-tuning", epoch)
        for step, (rows, squares) in enumerate(zip(order, crops), epoch * len(order)):
            sgd.param_groups[0]["lr"] = rate(probe, len(numbers), step / (probe.epochs * len(order)))
            with devices.autocast(device, precision):
                logits = network(images.inputs(squares, device))
            loss = F.cross_entropy(logits.float(), labels[rows].to(device))
            sgd.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(sgd)
            scaler.update()
        if not loss.isfinite():
            raise UserError(f"fine-tuning on {len(numbers)} labels diverged in epoch {epoch}: lower lr")
        log.info("epoch %d/%d, loss %.3f", epoch + 1, probe.epochs, loss.item())
        save.write(epoch + 1, **parts)

    def of_squares(squares: Tensor) -> Tensor:
        with devices.autocast(device, precision):
            return network(images.inputs(squares, device)).float()[:, None]  # (b, 1, classes)

    network.eval()
    return on_images.accuracies(task, score_on.tolist(), of_squares)[0]


def rate(probe: FineTuned, labels: int, done: float) -> float:
    """The learning rate after a part of the training: that of the batch size, which `labels` may limit, by a cosine."""
    return probe.lr * min(probe.batch_size, labels) / 256 * 0.5 * (1 + math.cos(math.pi * done))


class Classifier(nn.Module):
    """An encoder and a linear layer that starts at 0: (n, 3, S, S) -> (n, classes)."""

    def __init__(self, encoder: str, encoding: Encoding, classes: int):
        super().__init__()
        self.encoder = encoders.representation(encoder, encoding)
        self.linear = nn.Linear(encoders.features(encoder, encoding), classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, squares: Tensor) -> Tensor:
        return self.linear(self.encoder(squares))
