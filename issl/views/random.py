"""Random numbers that depend only on their purpose and position, never on earlier draws.

A run that resumes, or computes on another device, therefore has the same order of images and the same augmentations.
"""

import hashlib

import torch
from torch import Tensor


def generator(purpose: str, *position: int) -> torch.Generator:
    """CPU generator for one purpose at one position, e.g. ``generator("augment", seed, epoch, step)``."""
    digest = hashlib.sha256(f"{purpose}:{position}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def epoch_order(
    purpose: str, seed: int, epoch: int, n: int, batch_size: int, drop_last: bool = False
) -> tuple[Tensor, ...]:
    """The batches of one epoch: row numbers from a permutation of n rows, (batch_size,) each.

    The last batch may be shorter, and is then dropped if `drop_last`.
    """
    order = torch.randperm(n, generator=generator(purpose, seed, epoch))
    return order[: n - n % batch_size if drop_last else n].split(batch_size)


def send(numbers: Tensor, device: torch.device) -> Tensor:
    """Copies what was drawn to the device, for a GPU from page-locked memory, so that the CPU need not wait."""
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)
