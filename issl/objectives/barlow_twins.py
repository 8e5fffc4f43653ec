"""Barlow Twins (Zbontar et al. 2021): no dimension of the embedding is redundant, and each agrees between views."""

from torch import Tensor, nn

from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, full_precision, two_views
from issl.objectives.moments import centred, off_diagonal, products, variances
from issl.spec import objective as spec

EPSILON = 1e-5  # of the authors' batch norm


class BarlowTwins(Objective):
    """The cross-correlation matrix of the embeddings of the two views approaches the identity.

    With a and b the embeddings of the two views, each dimension standardised over the batch of all ranks (Zbontar et
    al. 2021, equations 1 and 2):

        loss = scale [ sum_i (1 - c_ii)^2 + lambda sum_{i != j} c_ij^2 ],  c_ij = mean_n a_ni b_nj

    The two sums are logged as `invariance` and `redundancy`. No class is predicted, so there is no log loss.
    """

    def __init__(self, objective: spec.BarlowTwins, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.projector = heads.batch_norm_mlp(dim, objective.out, [objective.hidden] * 2)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        a, b = two_views(full_precision(self.projector(z)))  # (B, out)
        correlation = products(standardised(a), standardised(b))  # (out, out)
        invariance = (1 - correlation.diagonal()).square().sum()
        redundancy = off_diagonal(correlation).square().sum()
        loss = self.objective.scale * (invariance + self.objective.redundancy * redundancy)
        return Terms(loss, {"invariance": invariance.detach(), "redundancy": redundancy.detach()})


def standardised(x: Tensor) -> Tensor:
    """Rows whose dimensions have mean 0 and variance 1 over the batch of all ranks, (n, d) -> (n, d)."""
    x = centred(x)
    return x * (variances(x) + EPSILON).rsqrt()
