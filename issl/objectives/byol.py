"""BYOL (Grill et al. 2020): a network predicts what its own moving average makes of the other view."""

import torch
from torch import Tensor, nn

from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, mean_cosine, two_views
from issl.objectives.teacher import follow, frozen_copy, momentum
from issl.spec import objective as spec


class BYOL(Objective):
    """From one view of an image, an online network predicts the projection of the other view by a target network.

    With q = predictor(projector(z)) of the online network and t the projection of the target network, for views 1 and 2
    (Grill et al. 2020, equation 2, symmetrised as in section 3.1):

        loss = mean_i [ 2 - 2 cos(q^1_i, t^2_i) ] + [ 2 - 2 cos(q^2_i, t^1_i) ],  from 0 to 8

    The target network is an exponential moving average of the online one, without gradient; its momentum rises to 1 as
    a cosine. In train mode its BatchNorm uses batch statistics, and keeps its own running ones. The online encoder is
    the result. No class is predicted, so there is no log loss. Departures: docs/fidelity.md.
    """

    def __init__(self, objective: spec.BYOL, dim: int, encoder: nn.Module):
        super().__init__()
        self.ema = objective.ema
        self.projector = heads.batch_norm_mlp(dim, objective.out, [objective.hidden])
        self.predictor = heads.batch_norm_mlp(objective.out, objective.out, [objective.hidden])
        self.teacher = frozen_copy(nn.Sequential(encoder, self.projector))

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        q1, q2 = two_views(self.predictor(self.projector(z)))  # (B, out)
        with torch.no_grad():
            t1, t2 = two_views(self.teacher(views))  # (B, out)
        return Terms(4 - 2 * mean_cosine(q1, t2) - 2 * mean_cosine(q2, t1), {})

    def after_step(self, encoder: nn.Module, clock: Clock) -> None:
        """Moves the target network's parameters, but not its buffers, towards those of the online network."""
        if self.training:
            follow([self.teacher], [encoder, self.projector], momentum(self.ema, "half_period", clock.progress))
