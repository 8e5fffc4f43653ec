"""LARS (You et al. 2017): SGD whose step on each parameter is proportional to the parameter's norm.

Written here because neither torch nor Lightning has LARS, and NVIDIA's apex, whose LARC the released code uses, is not
on PyPI.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

EPS = 1e-8


class LARS(torch.optim.Optimizer):
    """NVIDIA apex's LARC without clipping, which the released code uses on ImageNet. For a tensor p with gradient g:

        g <- trust |p| / (|g| + weight_decay |p| + eps) (g + weight_decay p)    if neither norm is 0, else g
        v <- momentum v + g
        p <- p - lr v

    A group with `trust: None` gets plain SGD with weight decay; no other parameter is left out. Set each group's rate
    at every step.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float, weight_decay: float):
        defaults = {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay, "trust": None}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = adapted(parameter, parameter.grad, group["weight_decay"], group["trust"])
                state = self.state[parameter]
                if not state:
                    state["velocity"] = torch.zeros_like(parameter)
                state["velocity"].mul_(group["momentum"]).add_(gradient)
                parameter.add_(state["velocity"], alpha=-group["lr"])
        return loss


def adapted(parameter: Tensor, gradient: Tensor, weight_decay: float, trust: float | None) -> Tensor:
    """The gradient with weight decay, rescaled to the parameter's norm, without synchronising with the device."""
    decayed = gradient + weight_decay * parameter
    if trust is None:
        return decayed
    scale, moves = local_rate(parameter.norm(), gradient.norm(), weight_decay, trust)
    return torch.where(moves, scale * decayed, gradient)


def local_rate(length: Tensor, slope: Tensor, weight_decay: Tensor | float, trust: float) -> tuple[Tensor, Tensor]:
    """LARS's factor for parameters and gradients of these norms, and where it applies: where neither norm is 0."""
    return trust * length / (slope + weight_decay * length + EPS), (length > 0) & (slope > 0)
