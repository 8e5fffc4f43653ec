"""Moments of embeddings over the batch of all ranks, with gradient."""

import torch
from torch import Tensor

from issl.jobs import distributed


def centred(x: Tensor) -> Tensor:
    """The rows minus their mean, (n, d) -> (n, d)."""
    return x - distributed.mean(x.mean(0))


def variances(centred_x: Tensor) -> Tensor:
    """Mean squares of centred rows, (n, d) -> (d,): divided by the number of rows, not by one less."""
    return distributed.mean(centred_x.square().mean(0))


def products(a: Tensor, b: Tensor) -> Tensor:
    """Mean products of each dimension of one with each of the other, (n, d), (n, e) -> (d, e).

    Each rank multiplies its own rows, and only the result travels: a covariance of centred rows, a correlation of
    standardised ones.
    """
    with torch.autocast(a.device.type, enabled=False):
        return distributed.mean(a.T @ b / len(a))


def off_diagonal(matrix: Tensor) -> Tensor:
    """The matrix with a diagonal of zeros, (d, d) -> (d, d)."""
    return matrix - matrix.diagonal().diag()
