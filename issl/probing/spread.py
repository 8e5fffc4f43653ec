"""What representations are like without labels or training: their rank, their uniformity and their alignment.

RankMe: Garrido et al., *RankMe: Assessing the downstream performance of pretrained self-supervised representations by
their rank*, ICML 2023, equation 1. Uniformity: Wang & Isola, *Understanding contrastive representation learning through
alignment and uniformity on the hypersphere*, ICML 2020, section 4.1, with their exponents: t = 2, alpha = 2.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from issl.data.arrays import Arrays
from issl.probing.shards import Features

ROWS = 25_600  # of which the rank is estimated, as by Garrido et al.
PAIRED = 4096  # images whose pairs are compared: 8 million pairs
EPSILON = 1e-7  # added to each share, as by Garrido et al.


def of(features: Features, arrays: Arrays) -> dict[str, float]:
    """`rank_me` of the training images and `uniformity` of the test images, for a record; nothing if one overflows."""
    found = [features(features.place(some(arrays, *which))) for which in (("train", ROWS), ("test", PAIRED))]
    if not all(z.isfinite().all() for z in found):
        return {}
    return {"rank_me": rank_me(found[0]), "uniformity": uniformity(found[1])}


def some(arrays: Arrays, split: str, most: int) -> Tensor:
    """Row numbers of a split: all, or `most` at equal distances, so those of all classes."""
    rows = np.arange(len(arrays.labels))[arrays.split(split)]
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    return torch.from_numpy(rows[chosen])


def rank_me(z: Tensor) -> float:
    """The effective rank of features (n, d), from 1 to min(n, d): exp of the entropy of their singular values.

    Taken from the eigenvalues of d x d products in float64; of at most n of which are not 0.
    """
    z = z.double()
    gram = z.T @ z if z.shape[1] <= z.shape[0] else z @ z.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if not singular.sum():  # all features are 0
        return 0.0
    shares = singular / singular.sum() + EPSILON
    return math.exp(-(shares * shares.log()).sum().item())


def uniformity(z: Tensor) -> float:
    """log of the mean of exp(-2 |u - v|^2) over pairs of different rows of unit length; lower is more uniform.

    0 if all features point one way; -4 if they are uniform on a sphere of many dimensions.
    """
    if len(z) < 2:
        return 0.0
    u = F.normalize(z.double(), dim=1)
    return torch.pdist(u).square().mul(-2).exp().mean().log().item()


def alignment(first: Tensor, second: Tensor) -> float:
    """The mean of |u - v|^2 over the rows of two views' representations, (n, d) each, at unit length; lower is better.

    0 if the views of an image are always represented alike; 2 on average if they are as far apart as unrelated rows of
    a uniform distribution.
    """
    u, v = (F.normalize(z.double(), dim=1) for z in (first, second))
    return (u - v).square().sum(1).mean().item()
