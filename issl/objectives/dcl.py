"""DCL, decoupled contrastive learning (Yeh et al. 2022): SimCLR without the positive in the denominator."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms
from issl.objectives.contrastive import cosines, entry, information
from issl.spec import objective as spec


class DCL(Objective):
    """Each row attracts its other view and repels the 2B - 2 rows of other images; an easy positive weakens neither.

    With l = cosines / temperature, and i+ the other view of row i (Yeh et al. 2022):

        loss = mean_i [ log( sum_{j not in {i, i+}} exp l_ij ) - w_i l_ii+ ]

    w_i = 1; if `weighted` (DCLW), w_i = 2 - exp(c_i / sigma) / mean_k exp(c_k / sigma), with c_i the cosine of row i
    and its other view. Nothing is repelled in a batch of one image. The log loss is SimCLR's loss of the same logits:
    log(1 + exp loss_i) for w_i = 1.
    """

    def __init__(self, objective: spec.DCL, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.projector = heads.mlp(dim, objective.out, [objective.hidden], norm_out=True)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        u = self.projector(z)  # (2B, out)
        cosine = cosines(u, distributed.all_gather_views(u))  # (2B, 2B of all ranks)
        itself, other = distributed.columns(len(z), z.device)
        positive = entry(cosine, other)  # (2B,)
        attraction = positive / self.objective.temperature
        same_image = torch.stack([itself, other], 1)
        repulsion = (cosine / self.objective.temperature).scatter(1, same_image, -math.inf).logsumexp(1)
        loss = -(self.weight(positive) * attraction).mean()
        if cosine.shape[1] > 2:  # else there is no other image, and the repulsion is log 0
            loss = loss + repulsion.mean()
        log_loss = F.softplus(repulsion - attraction).mean()
        return Terms(loss, information(log_loss, candidates=cosine.shape[1] - 1).logs)

    def weight(self, positive: Tensor) -> Tensor | float:
        """Weights of the positives from their cosines, (2B,) -> (2B,): large for dissimilar views, 1 on average."""
        if not self.objective.weighted:
            return 1.0
        similarity = (positive / self.objective.sigma).exp()
        return 2 - similarity / distributed.mean(similarity.mean())
