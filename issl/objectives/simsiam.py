"""SimSiam (Chen & He 2021): a network predicts its own projection of the other view, which is held fixed."""

from torch import Tensor, nn

from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, mean_cosine, two_views
from issl.spec import objective as spec


class SimSiam(Objective):
    """The prediction from one view agrees with the projection of the other, which has no gradient.

    With u = projector(z), p = predictor(u) and sg the stop-gradient (Chen & He 2021, equations 1 to 4):

        loss = -1/2 mean_i [ cos(p^1_i, sg(u^2_i)) + cos(p^2_i, sg(u^1_i)) ],  from -1 to 1

    No class is predicted, so there is no log loss. Departures, e.g. the decay of the predictor's learning rate:
    docs/fidelity.md.
    """

    def __init__(self, objective: spec.SimSiam, dim: int, encoder: nn.Module):
        super().__init__()
        hidden = [objective.hidden] * (objective.layers - 1)
        self.projector = heads.batch_norm_mlp(dim, objective.out, hidden, norm_out=True)
        self.predictor = heads.batch_norm_mlp(objective.out, objective.out, [objective.bottleneck], bias=True)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        u = self.projector(z)  # (2B, out)
        p1, p2 = two_views(self.predictor(u))
        fixed1, fixed2 = two_views(u.detach())
        return Terms(-(mean_cosine(p1, fixed2) + mean_cosine(p2, fixed1)) / 2, {})
