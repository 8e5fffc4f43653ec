"""DISSL on ImageNet (Dubois et al. 2022): two large views teach, all views learn; as in the released code."""

from itertools import permutations, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.objectives.base import Clock, Objective, Terms, cross_entropy, full_precision, image_count
from issl.objectives.dissl import entropy
from issl.spec import objective as spec

TEACHERS = 2  # the large views, which come first


class DISSLMultiCrop(Objective):
    """DISSL whose student sees more views than its teacher; with two views it differs from `DISSL` only in its heads.

    With p^i the teacher's (B, C) class probabilities for view i and q^j the student's for view j, H the entropy in
    nats, and means over the views named:

        loss =  mean_{i < 2, j < V, j != i} CE(p^i, q^j)     distillation: 2 (V - 1) pairs
              - lambda mean_{i < 2} H(mean_b p^i_b)          maximality: a marginal for each large view
              + beta mean_{i != i' < 2} CE(p^i, p^i')        invariance and determinism

    Nothing is detached. The student is a linear map of low rank; it sees all views in one pass, so its batch norm mixes
    their resolutions. Linear layers keep torch's initialisation.
    """

    def __init__(self, objective: spec.DISSLMultiCrop, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.predictor = nn.Sequential(*_hidden(dim, objective.bottleneck)[:-1], _classes(objective))
        self.projector = _teacher(objective, dim)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        images = image_count(z, views)
        o = self.objective
        teacher = full_precision(self.projector(z[: TEACHERS * images])) / o.teacher_temperature  # (2B, C)
        student = full_precision(self.predictor(z)) / o.student_temperature  # (VB, C)
        log_p = F.log_softmax(teacher, dim=1).split(images)  # 2 x (B, C)
        log_q = F.log_softmax(student, dim=1).split(images)  # V x (B, C)
        p = [view.exp() for view in log_p]

        distilled = [(i, j) for i, j in product(range(TEACHERS), range(len(log_q))) if i != j]
        distillation = sum(cross_entropy(p[i], log_q[j]) for i, j in distilled) / len(distilled)
        # Each marginal is over one view of the images of all ranks.
        maximality = sum(entropy(distributed.mean(view.mean(0))) for view in p) / TEACHERS
        agreeing = list(permutations(range(TEACHERS), 2))
        invariance = sum(cross_entropy(p[i], log_p[j]) for i, j in agreeing) / len(agreeing)
        loss = distillation - o.entropy_weight * maximality + self.beta(clock.step) * invariance

        with torch.no_grad():
            uncertainty = sum(cross_entropy(p[i], log_p[i]) for i in range(TEACHERS)) / TEACHERS
            logs = {
                "log_loss": distillation.detach(),
                "H_M": maximality.detach(),
                "H_Mlz": uncertainty,
                "KL_invariance": invariance.detach() - uncertainty,
            }
        return Terms(loss, logs)

    def beta(self, step: int) -> float:
        """Weight of the invariance; moves from lambda during warm-up, whose steps the released code counts from 1."""
        o = self.objective
        if step + 1 >= o.invariance_warmup_steps:
            return o.invariance_weight
        way = (step + 1) / o.invariance_warmup_steps
        return o.entropy_weight + (o.invariance_weight - o.entropy_weight) * way


# --- heads -----------------------------------------------------------------------------------------------------------


def _teacher(objective: spec.DISSLMultiCrop, dim: int) -> nn.Sequential:
    """The projector, (n, dim) -> (n, C), with its residual block before the bottleneck or within it."""
    hidden, bottleneck = objective.hidden, objective.bottleneck
    if objective.teacher == "residual":
        block = Residual(*_hidden(dim, hidden), *_hidden(hidden, dim))
        return nn.Sequential(block, *_hidden(dim, bottleneck), _classes(objective))
    block = Residual(*_hidden(bottleneck, hidden), *_hidden(hidden, hidden), *_hidden(hidden, bottleneck))
    return nn.Sequential(*_hidden(dim, bottleneck), block, _classes(objective))


class Residual(nn.Module):
    """A residual block: x + f(x), with nothing after the sum."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _hidden(inputs: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()


def _classes(objective: spec.DISSLMultiCrop) -> nn.Linear:
    return nn.Linear(objective.bottleneck, objective.classes)
