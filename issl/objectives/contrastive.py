"""Contrastive methods: SimCLR (Chen et al. 2020) and CISSL (Dubois et al. 2022), as in the released code."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, full_precision
from issl.spec import objective as spec


class SimCLR(Objective):
    """One head for all rows; each row must tell its other view apart from the 2B - 2 rows of other images.

    loss = mean_i -log( exp l_ii+ / sum_{j != i} exp l_ij ),  l = cosines / temperature
    """

    def __init__(self, objective: spec.SimCLR, dim: int, encoder: nn.Module):
        super().__init__()
        self.temperature = objective.temperature
        self.projector = heads.mlp(dim, objective.out, objective.widths or [objective.hidden], norm_out=True)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        u = self.projector(z)  # (2B, out)
        logits = cosines(u, distributed.all_gather_views(u)) / self.temperature  # (2B, 2B of all ranks)
        itself, other = distributed.columns(len(z), z.device)
        others = logits.scatter(1, itself[:, None], -math.inf)
        loss = (others.logsumexp(1) - entry(logits, other)).mean()
        return information(loss, candidates=logits.shape[1] - 1)


class CISSL(Objective):
    """An asymmetric contrastive loss whose predictor belongs to the same family as the probe.

    Both views of an image are positives, the row itself included, and all 2B rows are candidates; the minimum is ln 2.
    Gradients also train the projector (teacher): there is no stop-gradient.

    loss = mean_i -1/2 (log q_ii + log q_ii+),  q_i = softmax_j( cosine(predictor_i, projector_j) / temperature )
    """

    def __init__(self, objective: spec.CISSL, dim: int, encoder: nn.Module):
        super().__init__()
        self.temperature = objective.temperature
        if objective.predictor == "mlp":
            self.predictor, self.projector = (
                heads.mlp(dim, objective.out, [objective.mlp_hidden] * 2, norm_out=True) for _ in range(2)
            )
        else:
            self.predictor = heads.linear(dim, objective.out, norm_out=True)
            self.projector = heads.mlp(dim, objective.out, objective.widths or [objective.hidden], norm_out=True)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        logits = cosines(self.predictor(z), distributed.all_gather_views(self.projector(z))) / self.temperature
        itself, other = distributed.columns(len(z), z.device)  # of (2B, 2B of all ranks)
        positives = (entry(logits, itself) + entry(logits, other)) / 2  # (2B,)
        loss = (logits.logsumexp(1) - positives).mean()
        return information(loss, candidates=logits.shape[1])


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """All cosine similarities, (n, d), (m, d) -> (n, m), in at least float32.

    Outside autocast: bfloat16 would round a cosine near 1 by 0.002, a logit at temperature 0.07 by 0.03, eight times as
    much as the released code's float16; compared with the encoder, this product costs nothing.
    """
    with torch.autocast(a.device.type, enabled=False):
        return F.normalize(full_precision(a), dim=1) @ F.normalize(full_precision(b), dim=1).T


def entry(logits: Tensor, column: Tensor) -> Tensor:
    """The entry of each row in its given column, (n, m), (n,) -> (n,)."""
    return logits.gather(1, column[:, None]).squeeze(1)


def information(loss: Tensor, candidates: int) -> Terms:
    """Logs the bound on the information I[Z; M] = H[M] - H[M|Z] in nats, with H[M] the entropy of a uniform choice."""
    entropy = loss.detach().new_full((), math.log(candidates))
    log_loss = loss.detach()
    return Terms(loss, {"log_loss": log_loss, "hat_H_m": entropy, "I_q_zm": entropy - log_loss})
