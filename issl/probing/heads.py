"""The probes of the paper's TinyImageNet experiments (released code): a linear layer, or an MLP with two hidden layers.

Heads that differ only in weight decay are trained side by side: H linear heads are one linear layer with H times the
outputs, and elementwise operations (clipping, momentum, decay) need no change.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.probing import side_by_side
from issl.probing.scores import Score
from issl.probing.task import Task
from issl.spec.probe import MLP, Linear, ProbeGrid


def evaluate(grid: ProbeGrid, task: Task) -> list[Score]:
    """Scores of every head of the grid: SGD with momentum, gradients clipped by value before the decay is added."""
    return side_by_side.evaluate(grid, task, RECIPE)


class Heads(nn.Module):
    """H equal heads on one input: z (B, dim) -> logits (B, H, classes)."""

    def __init__(self, group: Sequence[Linear | MLP], dim: int, classes: int, draws: torch.Generator):
        super().__init__()
        heads, probe = len(group), group[0]
        self.normalizes = isinstance(probe, MLP)
        self.clip_value = probe.clip_value
        self.register_buffer("decay", torch.tensor([each.weight_decay for each in group]))
        if isinstance(probe, MLP):
            layers = [
                LinearHeads(heads, dim, probe.hidden, draws, first=True),
                NormHeads(heads, probe.hidden),
                LinearHeads(heads, probe.hidden, probe.hidden, draws),
                NormHeads(heads, probe.hidden),
                LinearHeads(heads, probe.hidden, classes, draws, bias=True),
            ]
        else:
            layers = [LinearHeads(heads, dim, classes, draws, first=True, bias=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)

    def adjust_gradients(self) -> None:
        """Clips all gradients by value, then adds each head's coupled weight decay; heads are the first axis."""
        for parameter in self.parameters():
            each = self.decay.view(-1, *[1] * (parameter.dim() - 1))
            parameter.grad.clamp_(-self.clip_value, self.clip_value).addcmul_(parameter.detach(), each)


class LinearHeads(nn.Module):
    """A linear layer per head: (B, in) if `first`, else (B, H, in), -> (B, H, out). Weights normal (0.02), biases 0."""

    def __init__(
        self, heads: int, inputs: int, outputs: int, draws: torch.Generator, first: bool = False, bias: bool = False
    ):
        super().__init__()
        self.first = first
        start = torch.empty(outputs, inputs).normal_(0, 0.02, generator=draws)
        self.weight = nn.Parameter(start.repeat(heads, 1, 1))  # (H, out, in)
        self.bias = nn.Parameter(torch.zeros(heads, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.first:  # one matrix product for all heads: they read the same rows
            bias = None if self.bias is None else self.bias.flatten()
            return F.linear(x, self.weight.flatten(0, 1), bias).unflatten(1, self.weight.shape[:2])
        y = torch.einsum("bhi,hoi->bho", x, self.weight)
        return y if self.bias is None else y + self.bias


class NormHeads(nn.Module):
    """Batch norm and ReLU per head: (B, H, width) -> (B, H, width)."""

    def __init__(self, heads: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))
        self.register_buffer("mean", torch.zeros(heads * width))
        self.register_buffer("variance", torch.ones(heads * width))

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = F.batch_norm(
            x.flatten(1), self.mean, self.variance, self.weight.flatten(), self.bias.flatten(), training=self.training
        )
        return F.relu(x).view(shape)


RECIPE = side_by_side.Recipe(
    Heads, "probe", lambda probe: probe.lr * probe.batch_size / 256, frozenset({"weight_decay"})
)
