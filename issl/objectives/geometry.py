"""Geometry of the representations: monitored for all methods, never optimised."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.objectives.base import full_precision, two_views


class Geometry(nn.Module):
    """Centred cosine similarities within and between images, (2B, dim) -> three 0-d tensors by name.

    `cosine_pos` is the mean over the two views of an image, `cosine_neg` the mean over views of different images (0 for
    a single image), and `dist_to_etf` = (1 - cosine_pos) + cosine_neg measures the distance from a simplex (equiangular
    tight frame), where it is close to 0. The centre is half the view's own mean and half a running mean, which moves in
    train mode only. Dubois et al. 2022, released code.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.running: Tensor
        self.register_buffer("running", torch.zeros(dim, dtype=torch.float64))

    @torch.no_grad()
    def forward(self, z: Tensor) -> dict[str, Tensor]:
        a, b = (self._centred(view) for view in two_views(full_precision(z)))  # (B, dim) unit rows, view by view
        processes = distributed.world_size()
        images = len(a) * processes
        same = distributed.mean((a * b).sum()) * processes
        every = (
            distributed.mean(a.sum(0)) * distributed.mean(b.sum(0))
        ).sum() * processes**2  # all B x B cosines, no matrix
        pos, neg = same / images, (every - same) / max(images * (images - 1), 1)
        return {"cosine_pos": pos, "cosine_neg": neg, "dist_to_etf": 1 - pos + neg}

    def _centred(self, view: Tensor) -> Tensor:
        mean = distributed.mean(view.mean(0))  # (dim,)
        center = 0.5 * mean + 0.5 * self.running.to(mean)
        if self.training:
            self.running.lerp_(mean.to(self.running), 0.1)
        return F.normalize(view - center, dim=1)
