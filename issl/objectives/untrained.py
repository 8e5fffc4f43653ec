"""No objective: the encoder keeps its random initial weights, as the reference that every method should beat."""

from torch import nn

from issl.objectives.base import Objective
from issl.spec import objective as spec


class Untrained(Objective):
    """Has no heads and is never asked for a loss, because its runs have no epochs.

    Its encoder has the initial weights of every other method with the same encoder and seed: they are drawn first.
    """

    def __init__(self, objective: spec.Untrained, dim: int, encoder: nn.Module):
        super().__init__()
