"""Classification by the nearest neighbours among the training images; nothing is trained."""

import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from issl.errors import UserError
from issl.probing.scores import Accuracies, Score, Tally, named
from issl.probing.subsets import hold_out
from issl.probing.task import Task
from issl.spec.probe import KNN, ProbeGrid

log = logging.getLogger(__name__)

QUERIES, BANK = 512, 65_536  # rows that are compared at once: a matrix of 134 MB


def evaluate(grid: ProbeGrid, task: Task) -> list[Score]:
    """Scores with all training images as neighbours, and with those that are not held out.

    Raises UserError for more neighbours than training images.
    """
    return [score for probe in grid.probes for score in named(_evaluate(probe, task), probe, grid)]


def _evaluate(probe: KNN, task: Task) -> Iterator[Score]:
    kept, left = hold_out(task.labels[task.train], task.train, probe.holdout, task.seed)
    if probe.k > len(kept):
        raise UserError(f"probes: k {probe.k} exceeds the {len(kept)} training images that are not held out")
    test, held_out = (accuracies(probe, task, bank, rows) for bank, rows in ((task.train, task.test), (kept, left)))
    score = Score("", len(task.train), len(task.test), test, held_out)
    log.info("knn, k %d, %s", probe.k, score)
    yield score


def accuracies(probe: KNN, task: Task, bank: np.ndarray, rows: np.ndarray) -> Accuracies:
    """Accuracies on some rows with the neighbours among others."""
    labels = torch.from_numpy(task.labels).to(task.device)
    of_bank = labels[torch.from_numpy(bank).to(task.device)]
    tally, chunks = Tally(1, task.classes, task.device), torch.from_numpy(rows).split(QUERIES)
    for chunk, (near, places) in zip(chunks, nearest(probe, task, bank, chunks)):
        weights = votes(probe, near, of_bank[places], task.classes)
        tally.add(weights[:, None], labels[chunk.to(task.device)])
    return tally.scores()[0]


def nearest(probe: KNN, task: Task, bank: np.ndarray, chunks: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Of each chunk of n rows, the nearness of the k nearest rows of the bank and their places in it: (n, k) each.

    Nearness is the cosine, or the negative Euclidean distance. The bank is read once, for it may be larger than memory.
    """
    neighbours = task.features.place(torch.from_numpy(bank))
    found = [
        (torch.empty(len(chunk), 0, device=task.device), torch.empty(len(chunk), 0, dtype=torch.int64).to(task.device))
        for chunk in chunks
    ]
    for start, stop in pairwise([*range(0, len(bank), BANK), len(bank)]):
        z, here = task.features(neighbours[start:stop]), torch.arange(start, stop, device=task.device)
        for number, chunk in enumerate(chunks):
            near = nearness(probe, task.features(task.features.place(chunk)), z)
            best, places = found[number]
            best, chosen = torch.cat([best, near], 1).topk(min(probe.k, stop), dim=1)
            places = torch.cat([places, here.expand(len(chunk), -1)], 1).gather(1, chosen)
            found[number] = best, places
    return found


def nearness(probe: KNN, queries: Tensor, z: Tensor) -> Tensor:
    """Of every query and every row, (n, dim) and (m, dim) -> (n, m)."""
    if probe.distance == "cosine":
        return F.normalize(queries, dim=1) @ F.normalize(z, dim=1).T
    return -torch.cdist(queries, z, compute_mode="donot_use_mm_for_euclid_dist")


def votes(probe: KNN, nearness: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The weight of each class among the neighbours, (n, k) and (n, k) -> (n, classes).

    A neighbour weighs exp(cosine / temperature) (Wu et al. 2018, equation 4), or 1 without a temperature. Of equal
    classes, the first one is predicted.
    """
    # Less the largest, which changes no order and cannot overflow.
    weights = (
        torch.ones_like(nearness)
        if probe.temperature is None
        else ((nearness - nearness[:, :1]) / probe.temperature).exp()
    )
    return torch.zeros(len(labels), classes, device=labels.device).scatter_add_(1, labels, weights)
