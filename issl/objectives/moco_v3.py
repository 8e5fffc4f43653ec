"""MoCo v3 (Chen, Xie & He 2021): the query of a view finds a slow encoder's key of the other view."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, two_views
from issl.objectives.contrastive import cosines, information
from issl.objectives.teacher import follow, frozen_copy, momentum
from issl.spec import objective as spec


class MoCoV3(Objective):
    """Queries of the trained encoder are told apart by keys of a momentum encoder, without a queue.

    With q = predictor(projector(z)), k the projections of the momentum encoder, and B images on all ranks (Chen, Xie &
    He 2021, equation 1 and algorithm 1):

        ctr(q, k) = mean_i -log( exp l_ii / sum_{j <= B} exp l_ij ),  l_ij = cos(q_i, k_j) / temperature
        loss      = 2 temperature [ ctr(q^1, k^2) + ctr(q^2, k^1) ]

    The log loss is the mean of the two contrasts; its chance level is ln B. The momentum encoder is an exponential
    moving average without gradient, whose momentum rises to 1 as a cosine. In train mode its BatchNorm uses batch
    statistics, and keeps its own running ones. Departures: docs/fidelity.md.
    """

    def __init__(self, objective: spec.MoCoV3, dim: int, encoder: nn.Module):
        super().__init__()
        self.temperature, self.ema = objective.temperature, objective.ema
        hidden, out, vit = objective.hidden, objective.out, objective.heads == "vit"
        self.projector = heads.batch_norm_mlp(dim, out, [hidden] * (2 if vit else 1), norm_out=True)
        self.predictor = heads.batch_norm_mlp(out, out, [hidden], norm_out=vit)
        self.teacher = frozen_copy(nn.Sequential(encoder, self.projector))

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        q1, q2 = two_views(self.predictor(self.projector(z)))  # (B, out)
        with torch.no_grad():
            k1, k2 = two_views(distributed.all_gather_views(self.teacher(views)))  # (B of all ranks, out)
        own, _ = two_views(distributed.columns(len(z), z.device)[0])  # (B,), among the images of all ranks
        contrast = (self.contrast(q1, k2, own) + self.contrast(q2, k1, own)) / 2
        return Terms(4 * self.temperature * contrast, information(contrast, candidates=len(k1)).logs)

    def contrast(self, queries: Tensor, keys: Tensor, positives: Tensor) -> Tensor:
        """Cross-entropy in nats of finding each query's key among the m keys, (n, d), (m, d), (n,) -> ()."""
        return F.cross_entropy(cosines(queries, keys) / self.temperature, positives)

    def after_step(self, encoder: nn.Module, clock: Clock) -> None:
        """Moves the momentum encoder's parameters, but not its buffers, towards those of the trained encoder."""
        if self.training:
            follow([self.teacher], [encoder, self.projector], momentum(self.ema, "half_period", clock.progress))
