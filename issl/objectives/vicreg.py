"""VICReg (Bardes et al. 2022): two views agree, each dimension varies, and no two dimensions vary together."""

from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, full_precision, two_views
from issl.objectives.moments import centred, off_diagonal, products, variances
from issl.spec import objective as spec

EPSILON = 1e-4  # added to variances, whose square root would have an infinite slope at 0


class VICReg(Objective):
    """Variance, invariance and covariance of the embeddings a and b of the two views, of d dimensions each.

    With unbiased variances and covariances over the batch of all ranks (Bardes et al. 2022, equations 1 to 6):

        loss = lambda mean_{n, i} (a_ni - b_ni)^2                               invariance
             + mu 1/2 mean_i [ max(0, 1 - sd a_i) + max(0, 1 - sd b_i) ]        variance
             + nu 1/d sum_{i != j} [ cov(a_i, a_j)^2 + cov(b_i, b_j)^2 ]        covariance

    As in the authors' code, which averages the invariance over the dimensions and halves the variance, where the
    paper's equations do not. No class is predicted, so there is no log loss.
    """

    def __init__(self, objective: spec.VICReg, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.projector = heads.batch_norm_mlp(dim, objective.out, [objective.hidden] * 2)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        a, b = two_views(full_precision(self.projector(z)))  # (B, out)
        invariance = F.mse_loss(a, b)
        both = [centred(a), centred(b)]
        variance = sum(narrowness(x) for x in both) / 2
        covariance = sum(overlap(x) for x in both)
        o = self.objective
        loss = o.invariance * invariance + o.variance * variance + o.covariance * covariance
        logs = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return Terms(loss, {name: term.detach() for name, term in logs.items()})


def narrowness(x: Tensor) -> Tensor:
    """How far the standard deviations of centred rows stay below 1, (n, d) -> ()."""
    return F.relu(1 - (bessel(x) * variances(x) + EPSILON).sqrt()).mean()


def overlap(x: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions of centred rows, divided by d, (n, d) -> ()."""
    return off_diagonal(bessel(x) * products(x, x)).square().sum() / x.shape[1]


def bessel(x: Tensor) -> float:
    """N / (N - 1) for the N rows of all ranks: turns a mean square into an unbiased variance."""
    rows = len(x) * distributed.world_size()
    return rows / max(rows - 1, 1)  # the last batch of the test images may be a single one
