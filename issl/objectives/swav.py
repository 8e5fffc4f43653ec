"""SwAV (Caron et al. 2020): from one view, predict the cluster to which a balanced assignment gives the other."""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, cross_entropy, full_precision, image_count, two_views
from issl.spec import objective as spec

ASSIGNED = 2  # the large views, which come first


class SwAV(Objective):
    """Swapped prediction: each view predicts the codes of the large views, which are balanced over the batch.

    With s = C u the (B, K) cosines of a view's unit projections u and the K unit prototypes C, p = softmax(s /
    temperature), and q the codes of a large view (Caron et al. 2020, equation 2, and 6 for many views):

        loss = mean_{i < 2, j < V, j != i} CE(q^i, p^j)

    The codes solve max_Q <Q, s> + epsilon H(Q) over the Q that use all prototypes equally (equations 3 to 5), up to a
    few iterations of `sinkhorn`, over the images of all ranks and a queue of earlier ones. They have no gradient. The
    loss is the log loss: the codes are soft classes. Departures: docs/fidelity.md.
    """

    def __init__(self, objective: spec.SwAV, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.projector = heads.batch_norm_mlp(dim, objective.out, [objective.hidden], bias=True)
        self.prototypes = nn.Linear(objective.out, objective.prototypes, bias=False)
        self._normalise_prototypes()
        # Unit projections of earlier images, the newest first, for each large view; zeros until it is full.
        queue = torch.zeros(ASSIGNED, objective.queue, objective.out) if objective.queue else None
        self.queue: Tensor | None
        self.register_buffer("queue", queue)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        images = image_count(z, views)
        frozen = clock.epoch < self.objective.freeze_prototypes_epochs
        u = F.normalize(full_precision(self.projector(z)), dim=1)  # (VB, out)
        scores = self._scores(u, self.prototypes.weight.detach() if frozen else self.prototypes.weight)
        log_p = F.log_softmax(scores / self.objective.temperature, dim=1).split(images)  # V x (B, K)
        log_q = self.codes(u[: ASSIGNED * images], clock)  # 2 x (B, K)
        q = [view.exp() for view in log_q]
        swapped = [(i, j) for i, j in product(range(ASSIGNED), range(len(log_p))) if i != j]
        loss = sum(cross_entropy(q[i], log_p[j]) for i, j in swapped) / len(swapped)
        uncertainty = sum(map(cross_entropy, q, log_q)) / ASSIGNED
        return Terms(loss, {"log_loss": loss.detach(), "H_Mlz": uncertainty})

    @torch.no_grad()
    def codes(self, u: Tensor, clock: Clock) -> list[Tensor]:
        """Log-probabilities of the prototypes for this rank's two large views, (2B, out) -> 2 x (B, K).

        They are balanced over the images of all ranks and the queue, into which, in train mode, those images then move.
        """
        everywhere = distributed.all_gather_views(u)  # (2B of all ranks, out)
        images = len(u) // ASSIGNED
        own = slice(distributed.rank() * images, (distributed.rank() + 1) * images)
        log_q = []
        for view, rows in enumerate(two_views(everywhere)):
            if self.queue is not None and clock.epoch >= self.objective.queue_start_epoch:
                rows = torch.cat([rows, self.queue[view]])
            logits = self._scores(rows, self.prototypes.weight) / self.objective.epsilon
            log_q.append(sinkhorn(logits, self.objective.sinkhorn_iterations)[own])
        if self.queue is not None and self.training:
            self.queue.copy_(
                torch.cat([torch.stack(two_views(everywhere)), self.queue], dim=1)[:, : len(self.queue[0])]
            )
        return log_q

    @staticmethod
    def _scores(u: Tensor, prototypes: Tensor) -> Tensor:
        """Cosines of unit rows, (n, out), (K, out) -> (n, K); outside autocast, because epsilon divides them."""
        with torch.autocast(u.device.type, enabled=False):
            return u @ prototypes.T

    def after_step(self, encoder: nn.Module, clock: Clock) -> None:
        """Makes the prototypes unit vectors again."""
        if self.training:
            self._normalise_prototypes()

    @torch.no_grad()
    def _normalise_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """Log-probabilities of the K classes for each of n rows, whose sum over rows is about n / K for every class.

    (n, K) -> (n, K). Each iteration of Sinkhorn and Knopp divides exp(logits) by the sums of its columns and then of
    its rows; in logarithms, nothing can overflow. More iterations equalise the classes better (Cuturi 2013).
    """
    for _ in range(iterations):
        logits = F.log_softmax(F.log_softmax(logits, dim=0), dim=1)
    return logits
