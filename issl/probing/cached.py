"""Linear classifiers on cached features, as for the released ImageNet models: a grid of rates, decays, optimisers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.models.lars import local_rate
from issl.probing import side_by_side
from issl.probing.scores import Score
from issl.probing.task import Task
from issl.spec.probe import Cached, ProbeGrid

TRUST = 0.001  # of LARS


def evaluate(grid: ProbeGrid, task: Task) -> list[Score]:
    """Scores of every classifier of the grid: SGD with momentum, with or without LARS."""
    return side_by_side.evaluate(grid, task, RECIPE)


class Heads(nn.Module):
    """A linear classifier for each probe of a group, on one input: z (B, dim) -> logits (B, H, classes).

    All start from the same draw: weights normal with standard deviation 0.02, truncated at 2 as in torch, biases 0.
    """

    def __init__(self, group: Sequence[Cached], dim: int, classes: int, draws: torch.Generator):
        super().__init__()
        start = nn.init.trunc_normal_(torch.empty(classes, dim), std=0.02, generator=draws)
        self.weight = nn.Parameter(start.repeat(len(group), 1, 1))  # (H, classes, dim)
        self.bias = nn.Parameter(torch.zeros(len(group), classes))
        self.normalizes = group[0].batch_norm
        self.norm = nn.BatchNorm1d(dim, affine=False) if self.normalizes else nn.Identity()
        self.register_buffer("rate", torch.tensor([probe.lr * probe.batch_size / 256 for probe in group]))
        self.register_buffer("decay", torch.tensor([probe.weight_decay for probe in group]))
        self.register_buffer("lars", torch.tensor([probe.optimizer == "lars" for probe in group]))

    def forward(self, z: Tensor) -> Tensor:
        logits = F.linear(self.norm(z), self.weight.flatten(0, 1), self.bias.flatten())
        return logits.unflatten(1, self.bias.shape)

    def adjust_gradients(self) -> None:
        """Adds each probe's weight decay to its gradients, scales them as LARS does, and multiplies by its rate.

        A probe's rate is constant except for the cosine, which all share, so momentum SGD at the cosine makes the same
        steps as each probe's own optimiser. LARS (You et al. 2017) as in apex's LARC without clipping.
        """
        for parameter in (self.weight, self.bias):
            p, g = parameter.detach().flatten(1), parameter.grad.flatten(1)  # (H, n), a view of the gradient
            trust, moves = local_rate(p.norm(dim=1), g.norm(dim=1), self.decay, TRUST)  # (H,)
            decay = torch.where(self.lars & ~moves, 0.0, self.decay)
            trust = torch.where(self.lars & moves, trust, 1.0)
            g.addcmul_(p, decay[:, None]).mul_((trust * self.rate)[:, None])


RECIPE = side_by_side.Recipe(Heads, "cached probe", lambda probe: 1.0, frozenset({"lr", "weight_decay", "optimizer"}))
