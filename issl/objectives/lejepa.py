"""LeJEPA (Balestriero & LeCun 2025): views predict each other, and SIGReg makes the embeddings normal."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, full_precision, image_count
from issl.spec import objective as spec
from issl.views.random import generator, send


class LeJEPA(Objective):
    """Each view predicts the centre of the first two, and SIGReg draws its embeddings to a standard normal.

    With u^v the embeddings of view v, of V >= 2 (Balestriero & LeCun 2025, algorithms 1 and 2):

        loss      = (1 - lambda) mean_{v, n, i} (u^v_ni - (u^1_ni + u^2_ni) / 2)^2 + lambda mean_v SIGReg(u^v)
        SIGReg(u) = mean_s T(u s)  over random unit vectors s, new ones at each step
        T(x)      = N integral |mean_n exp(i t x_n) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt  over the N rows of all ranks

    T is the statistic of Epps and Pulley (1983) for a standard normal. The two terms are logged as `invariance` and
    `sigreg`. No class is predicted, so there is no log loss.
    """

    def __init__(self, objective: spec.LeJEPA, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.projector = heads.batch_norm_mlp(dim, objective.out, [objective.hidden] * 2, bias=True)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        images, o = image_count(z, views), self.objective
        u = full_precision(self.projector(z)).unflatten(0, (-1, images))  # (V, B, out)
        invariance = (u - u[:2].mean(0)).square().mean()
        slices = send(directions(o.out, o.slices, clock.step), z.device).to(u.dtype)  # (out, slices)
        with torch.autocast(z.device.type, enabled=False):
            sigreg = sum(epps_pulley(view @ slices, o.t_max, o.points).mean() for view in u) / len(u)
        loss = (1 - o.sigreg_weight) * invariance + o.sigreg_weight * sigreg
        return Terms(loss, {"invariance": invariance.detach(), "sigreg": sigreg.detach()})


def directions(dim: int, number: int, step: int) -> Tensor:
    """Random unit vectors as columns, (dim, number), drawn for a step: the same on every rank and device."""
    return F.normalize(torch.randn(dim, number, generator=generator("slices", step)), dim=0)


def epps_pulley(x: Tensor, t_max: float, points: int) -> Tensor:
    """The statistic T of each column over the rows of all ranks, (n, s) -> (s,).

    The integrand is even: it is integrated from 0 to `t_max` by the trapezoidal rule, with this many points, and
    doubled.
    """
    t = torch.linspace(0, t_max, points, dtype=x.dtype, device=x.device)
    normal = (-t.square() / 2).exp()  # the characteristic function, and the weight
    angles = x[..., None] * t  # (n, s, points)
    real, imaginary = (distributed.mean(part.mean(0)) for part in (angles.cos(), angles.sin()))
    distance = (real - normal).square() + imaginary.square()  # (s, points)
    rows = len(x) * distributed.world_size()
    return 2 * rows * torch.trapezoid(distance * normal, t, dim=1)
