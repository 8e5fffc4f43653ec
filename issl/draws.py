"""Random numbers that depend only on what they are for, never on what was drawn before.

A run that resumes, or computes on another device, therefore sees the same order of images and the same augmentations.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def generator(purpose: str, *position: int) -> torch.Generator:
    """CPU generator for one purpose at one position, e.g. ``generator("augment", seed, epoch, step)``."""
    digest = hashlib.sha256(f"{purpose}:{position}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


class EpochOrder:
    """Sampler of whole batches: each epoch is a permutation of n rows drawn from (seed, epoch), last batch kept.

    Lightning calls `set_epoch` before each epoch, also after a resume.
    """

    def __init__(self, purpose: str, seed: int, n: int, batch_size: int):
        self.purpose, self.seed, self.n, self.batch_size = purpose, seed, n, batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(self.n, generator=generator(self.purpose, self.seed, self.epoch))
        return iter(order.split(self.batch_size))
