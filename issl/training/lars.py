"""LARS (You et al. 2017): SGD whose step on each parameter is as long as the parameter is, times a constant."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

EPS = 1e-8


class LARS(torch.optim.Optimizer):
    """As in NVIDIA apex's LARC without clipping, which the released code uses on ImageNet. For a tensor p, gradient g:

        g <- trust |p| / (|g| + weight_decay |p| + eps) (g + weight_decay p)    if neither norm is 0, else g
        v <- momentum v + g
        p <- p - lr v

    No parameter is left out unless its group says `trust: None`, which makes it plain SGD with weight decay. The rate
    is that of each group, to be set at every step.
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
    """The gradient with weight decay, rescaled to the parameter's length; nothing here asks the device for a value."""
    decayed = gradient + weight_decay * parameter
    if trust is None:
        return decayed
    length, slope = parameter.norm(), gradient.norm()
    scale = trust * length / (slope + weight_decay * length + EPS)
    return torch.where((length > 0) & (slope > 0), scale * decayed, gradient)
