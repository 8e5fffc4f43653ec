"""W-MSE (Ermolov et al. 2021): the whitened embeddings of an image's views coincide."""

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, full_precision, image_count
from issl.spec import objective as spec
from issl.views.random import generator, send


class WMSE(Objective):
    """Views attract each other after whitening, which keeps the embeddings from collapsing without negatives.

    With w^v the embeddings of view v, whitened and then of unit length, and V views (Ermolov et al. 2021, section 3;
    W-MSE 2 and W-MSE 4 have V = 2 and 4):

        loss = mean_{v < v'} mean_n |w^v_n - w^v'_n|^2,  from 0 to 4

    Each view is whitened in parts of at least `size` images, by the inverse of the Cholesky factor of its covariance
    matrix. The parts are a random division of the batch of all ranks, the same for all views, and the loss is a mean
    over `iterations` divisions. No class is predicted, so there is no log loss.
    """

    def __init__(self, objective: spec.WMSE, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.projector = heads.batch_norm_mlp(dim, objective.out, [objective.hidden], bias=True)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        number = len(z) // image_count(z, views)
        u = distributed.all_gather_views(full_precision(self.projector(z)), number)
        by_view = u.unflatten(0, (number, -1))  # (V, B of all ranks, out)
        iterations = range(self.objective.iterations)
        loss = sum(self.distance(by_view, clock.step, nth) for nth in iterations) / len(iterations)
        return Terms(loss, {})

    def distance(self, u: Tensor, step: int, iteration: int) -> Tensor:
        """The loss for one random division into parts, (V, B, out) -> ()."""
        images = u.shape[1]
        order = torch.randperm(images, generator=generator("whitening", step, iteration))
        parts = send(order, u.device).tensor_split(max(1, images // self.objective.size))
        white = torch.cat([whitened(u[:, part], self.objective.epsilon) for part in parts], 1)
        pairs = [(a - b).square().sum(1).mean() for a, b in combinations(F.normalize(white, dim=2), 2)]
        return sum(pairs) / len(pairs)


def whitened(x: Tensor, epsilon: float) -> Tensor:
    """Rows with mean 0 and covariance 1, set by set, (..., n, d) -> (..., n, d).

    As in the authors' code: x times the inverse of the lower Cholesky factor of its unbiased covariance, or of
    (1 - epsilon) times it plus epsilon on the diagonal, which has a factor for any number of rows. In float64, because
    the covariance of nearly dependent dimensions is too close to singular for float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        centred = (x - x.mean(-2, keepdim=True)).double()
        covariance = centred.mT @ centred / max(x.shape[-2] - 1, 1)
        shrunk = (1 - epsilon) * covariance + epsilon * torch.eye(x.shape[-1], dtype=torch.float64, device=x.device)
        factor, _ = torch.linalg.cholesky_ex(shrunk)  # without the check for success, which would wait for the device
        return torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT.to(x.dtype)
