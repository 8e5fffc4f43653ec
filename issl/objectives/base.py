"""What an objective is: tensors in, loss and logs out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Clock(NamedTuple):
    """Where training stands. Epochs and steps count from 0; `step` counts through all epochs."""

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int

    @property
    def progress(self) -> float:
        """The part of all steps that is done, in [0, 1)."""
        return self.step / (self.epochs * self.steps_per_epoch)


class Terms(NamedTuple):
    """The loss, a 0-d tensor with a graph, and what to log beside it: detached 0-d tensors by name."""

    loss: Tensor
    logs: dict[str, Tensor]


class Objective(nn.Module):
    """A self-supervised loss with its heads.

    A subclass takes its spec, the dimension of the representation and the encoder at its initial weights, which only
    methods with a teacher read. It knows neither trainer, nor config, nor files, and in eval mode it changes no state.
    """

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        """Scores the representations of V views of B images; rows i, B + i, 2B + i ... show the same image.

        z (VB, dim): representations; views (2B, 3, H, W): the images that the first 2B of them stand for, which all
        have one resolution. V is 2, and any number from 2 for a method of many views. Among the logs, `log_loss` is the
        cross-entropy in nats of predicting an equivalence class from z: the part of the loss that methods share.
        Raises ValueError if the number of rows is odd, or for many views, no multiple of B.
        """
        raise NotImplementedError

    def evaluated(self, encoder: nn.Module) -> nn.Module:
        """The encoder that is the result of pretraining: the trained one, or a teacher of the same shape."""
        return encoder

    def after_step(self, encoder: nn.Module, clock: Clock) -> None:
        """Called after the optimiser's step, with the clock of the batch it used; most methods have nothing to do."""


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
