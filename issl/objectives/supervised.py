"""Training with labels, as a reference: the cross-entropy of a linear classifier on every view."""

from torch import Tensor, nn
from torch.nn import functional as F

from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, full_precision
from issl.spec import objective as spec


class Supervised(Objective):
    """The only objective that is given labels; the others cannot see them."""

    def __init__(self, objective: spec.Supervised, dim: int, encoder: nn.Module):
        super().__init__()
        self.classifier = heads.linear(dim, objective.classes)

    def forward(self, z: Tensor, views: Tensor, clock: Clock, labels: Tensor) -> Terms:
        """Loss of the representations z (VB, dim) of images whose classes are `labels` (B,) int64."""
        logits = full_precision(self.classifier(z))  # (VB, classes)
        return Terms(F.cross_entropy(logits, labels.repeat(len(z) // len(labels))), {})
