"""DISSL: distillation of equivalence classes (Dubois et al. 2022), as in the released code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models import heads
from issl.objectives.base import Clock, Objective, Terms, cross_entropy, full_precision, two_views
from issl.spec import objective as spec


class DISSL(Objective):
    """A teacher assigns each view to one of C equivalence classes M; a student of the probe's family predicts them.

    With t^v and s^v the (B, C) class probabilities of teacher and student for view v, and H the entropy in nats:

        loss =  1/2 [ CE(t^1, s^2) + CE(t^2, s^1) ]                 distillation
              - lambda 1/2 [ H(mean_i t^1_i) + H(mean_i t^2_i) ]    maximality
              + beta 1/2 [ CE(t^1, t^2) + CE(t^2, t^1) ]            invariance and determinism

    Nothing is detached: the distillation trains the teacher too, which is why a beta below 1 is enough. `heads: cosine`
    has the heads of the authors' code of 18 August 2022, shortly before the release.
    """

    def __init__(self, objective: spec.DISSL, dim: int, encoder: nn.Module):
        super().__init__()
        self.student_temperature = objective.student_temperature
        self.teacher_temperature = objective.teacher_temperature
        self.entropy_weight = objective.entropy_weight
        self.invariance_weight = objective.invariance_weight
        student, teacher = (), (objective.hidden,)
        if objective.predictor == "mlp":
            student = teacher = (objective.mlp_hidden,) * 2
        cosine = objective.heads == "cosine"
        shape = {"dim": dim, "out": objective.classes, "bottleneck": objective.bottleneck}
        self.predictor = heads.mlp(**shape, hidden=student)
        self.projector = heads.mlp(**shape, hidden=teacher, prototypes=cosine)
        if cosine:  # a random projection that keeps distances: Johnson and Lindenstrauss
            nn.init.normal_(self.predictor[-3].weight, std=objective.bottleneck**-0.5)

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        log_t = F.log_softmax(full_precision(self.projector(z)) / self.teacher_temperature, dim=1)  # (2B, C)
        log_s = F.log_softmax(full_precision(self.predictor(z)) / self.student_temperature, dim=1)  # (2B, C)
        t = log_t.exp()  # (2B, C)
        (t1, t2), (log_t1, log_t2), (log_s1, log_s2) = two_views(t), two_views(log_t), two_views(log_s)

        distillation = (cross_entropy(t1, log_s2) + cross_entropy(t2, log_s1)) / 2
        # The marginal of the classes is estimated for each view separately, over the B rows of all ranks.
        maximality = (entropy(distributed.mean(t1.mean(0))) + entropy(distributed.mean(t2.mean(0)))) / 2
        invariance = (cross_entropy(t1, log_t2) + cross_entropy(t2, log_t1)) / 2
        loss = distillation - self.entropy_weight * maximality + self.invariance_weight * invariance

        with torch.no_grad():
            uncertainty = cross_entropy(t, log_t)
            same_view = cross_entropy(t, log_s)
            logs = {
                "log_loss": distillation.detach(),
                "H_M": maximality.detach(),
                "H_Mlz": uncertainty,
                "KL_invariance": invariance.detach() - uncertainty,
                "KL_distillation": same_view - uncertainty,
            }
        return Terms(loss, logs)


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats, (C,) -> (): renormalised, and clamped at the dtype's epsilon before the logarithm."""
    p = p / p.sum()
    eps = torch.finfo(p.dtype).eps
    return -(p * p.clamp(eps, 1 - eps).log()).sum()
