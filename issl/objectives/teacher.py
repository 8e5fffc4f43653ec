"""A teacher that follows its student slowly: an exponential moving average of the student's parameters.

Mean teachers (Tarvainen & Valpola 2017), momentum encoders (He et al. 2020), target networks (Grill et al. 2020).
"""

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def frozen_copy(student: nn.Module) -> nn.Module:
    """A teacher that starts as its student, with buffers of its own and without gradient."""
    return deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: Sequence[nn.Module], student: Sequence[nn.Module], decay: float) -> None:
    """Moves the teacher's parameters, but not its buffers: teacher = decay * teacher + (1 - decay) * student.

    The modules of both must have the same parameters in the same order.
    """
    slow, fast = ([parameter for part in parts for parameter in part.parameters()] for parts in (teacher, student))
    get_ema_multi_avg_fn(decay)(slow, fast, None)


def momentum(start: float, schedule: str, progress: float) -> float:
    """Momentum of the teacher's moving average at `progress` in [0, 1]: rises as a cosine from `start` to 1.

    "half_period" reaches 1 at the end, as in Grill et al. 2020 and Caron et al. 2021. "full_period" reaches it halfway
    and returns to `start`: the released code of Dubois et al. 2022 counts every step twice, once for each of its two
    optimisers.
    """
    turns = {"half_period": 0.5, "full_period": 1.0}[schedule]
    return 1 - (1 - start) * (math.cos(2 * math.pi * turns * progress) + 1) / 2
