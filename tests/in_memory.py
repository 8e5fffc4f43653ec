"""What probes are given, made of tensors: no shards, no prepared data set."""

import numpy as np
import torch
from torch import Tensor

from issl.probing.task import Task

CPU = torch.device("cpu")


class InMemory:
    """Features (N, dim) that are all there; `read` notes how many rows were asked for each time."""

    def __init__(self, z: Tensor):
        self.z, self.dim, self.read = z, z.shape[1], []

    def place(self, rows: Tensor) -> Tensor:
        return rows

    def __call__(self, rows: Tensor) -> Tensor:
        self.read.append(len(rows))
        return self.z[rows].float()


def task(z: Tensor, labels: np.ndarray, n_train: int, seed: int = 0, precision: str = "32") -> Task:
    """A task on features (N, dim) and labels (N,), of which the first `n_train` are for training."""
    rows = np.arange(len(labels))
    return Task(
        *(seed, np.asarray(labels), rows[:n_train], rows[n_train:], int(max(labels)) + 1, CPU, precision),
        features=InMemory(z),
    )
