"""The interface of an objective: tensors in, loss and logs out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Clock(NamedTuple):
    """The position in training. Epochs and steps count from 0; `step` counts through all epochs."""

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int

    @property
    def progress(self) -> float:
        """The fraction of all steps that are done, in [0, 1)."""
        return self.step / (self.epochs * self.steps_per_epoch)


class Terms(NamedTuple):
    """The loss, a 0-d tensor with a graph, and values to log: detached 0-d tensors by name."""

    loss: Tensor
    logs: dict[str, Tensor]


class Objective(nn.Module):
    """A self-supervised loss with its heads.

    A subclass takes its spec, the dimension of the representation and the encoder at its initial weights, which only
    methods with a teacher use. It knows no trainer, config or files, and changes no state in eval mode.
    """

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        """Loss of the representations of V views of B images; rows i, B + i, 2B + i ... show the same image.

        z (VB, dim): representations; views (2B, 3, H, W): the images of the first 2B of them, of one resolution. V is
        2, or at least 2 for methods of many views. `log_loss` in the logs is the cross-entropy in nats of predicting an
        equivalence class from z, the part of the loss that comparable methods share; a method that predicts no class
        has none, and its settings say so by `has_log_loss`. Raises ValueError if the number of rows is odd or, for
        methods of many views, not a multiple of B.
        """
        raise NotImplementedError

    def evaluated(self, encoder: nn.Module) -> nn.Module:
        """The encoder that pretraining returns: the trained one, or a teacher of the same shape."""
        return encoder

    def after_step(self, encoder: nn.Module, clock: Clock) -> None:
        """Called after the optimiser's step, with the clock of its batch; most methods have nothing to do."""


def two_views(x: Tensor) -> tuple[Tensor, Tensor]:
    """Splits (2B, ...) into the two views, (B, ...) each. Raises ValueError if the number of rows is odd."""
    if len(x) % 2:
        raise ValueError(f"{len(x)} rows cannot be two views of the same images")
    return x[: len(x) // 2], x[len(x) // 2 :]


def full_precision(x: Tensor) -> Tensor:
    """The tensor in at least float32: temperatures and softmaxes are never computed in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cross_entropy(p: Tensor, log_q: Tensor) -> Tensor:
    """Mean over the n rows of -sum_c p_c log q_c in nats, (n, C), (n, C) -> ()."""
    return -(p * log_q).sum(1).mean()


def mean_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the n rows of the cosine of the angle between a row and its counterpart, (n, d), (n, d) -> ()."""
    return F.cosine_similarity(full_precision(a), full_precision(b), dim=1).mean()


def image_count(z: Tensor, views: Tensor) -> int:
    """B, the number of images of which `z` (VB, dim) has V >= 2 views and `views` (2B, 3, H, W) the first two.

    Raises ValueError if the rows of `z` do not fit.
    """
    images = len(two_views(views)[0])
    if len(z) < len(views) or len(z) % images:
        raise ValueError(f"{len(z)} rows cannot be two or more views of {images} images")
    return images
