"""DINO (Caron et al. 2021) as in the released code of Dubois et al. 2022, whose quirks are options of spec.DINO."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from issl.jobs import distributed
from issl.models.heads import PrototypeHead
from issl.objectives.base import Clock, Objective, Terms, cross_entropy, full_precision, two_views
from issl.objectives.teacher import follow, frozen_copy, momentum
from issl.spec import objective as spec


class DINO(Objective):
    """A student predicts, from one view, a slow teacher's centred and sharpened output for the other view.

        loss = 1/2 [ CE(t^2, s^1) + CE(t^1, s^2) ]

    The teacher is an exponential moving average of the student, without gradient. In train mode its BatchNorm also uses
    batch statistics, and keeps its own running ones.
    """

    def __init__(self, objective: spec.DINO, dim: int, encoder: nn.Module):
        super().__init__()
        self.objective = objective
        self.warmup = np.linspace(
            objective.teacher_temperature_start, objective.teacher_temperature, objective.temperature_warmup_epochs
        ).tolist()
        self.projector = self._head(dim)
        self.teacher_encoder = frozen_copy(encoder)
        self.teacher_projector = self._head(dim).requires_grad_(False)
        if objective.teacher_projector == "copy":
            self.teacher_projector.load_state_dict(self.projector.state_dict())
        self.center: Tensor
        self.register_buffer("center", torch.zeros(1, objective.classes))

    def _head(self, dim: int) -> PrototypeHead:
        o = self.objective
        return PrototypeHead(dim, o.classes, o.hidden, o.bottleneck, normalize_after=o.normalize == "after_bottleneck")

    def forward(self, z: Tensor, views: Tensor, clock: Clock) -> Terms:
        frozen = clock.epoch < self.objective.freeze_last_layer_epochs
        student = full_precision(self.projector(z, freeze_prototypes=frozen))  # (2B, C) logits
        log_s1, log_s2 = two_views(F.log_softmax(student / self.objective.student_temperature, dim=1))
        with torch.no_grad():
            teacher = full_precision(self.teacher_projector(self.teacher_encoder(views)))  # (2B, C) logits
            teacher1, teacher2 = two_views(teacher)
            temperature = self.temperature(clock.epoch)
            log_t2 = self._targets(teacher2, temperature)
            log_t1 = self._targets(teacher1, temperature)  # after `log_t2`, which moved the centre
            t1, t2 = log_t1.exp(), log_t2.exp()

        loss = (cross_entropy(t2, log_s1) + cross_entropy(t1, log_s2)) / 2
        with torch.no_grad():
            uncertainty = (cross_entropy(t1, log_t1) + cross_entropy(t2, log_t2)) / 2
        return Terms(loss, {"log_loss": loss.detach(), "H_Mlz": uncertainty})

    def _targets(self, logits: Tensor, temperature: float) -> Tensor:
        """Log-probabilities of the teacher for a view, (B, C) -> (B, C); in train mode, then moves the centre."""
        log_t = F.log_softmax((logits - self.center) / temperature, dim=1)
        if self.training:
            self.center.lerp_(distributed.mean(logits.mean(0, keepdim=True)), 1 - self.objective.center_momentum)
        return log_t

    def temperature(self, epoch: int) -> float:
        """The teacher's temperature: changes linearly in the warm-up epochs, then is constant."""
        return self.warmup[epoch] if epoch < len(self.warmup) else self.objective.teacher_temperature

    def evaluated(self, encoder: nn.Module) -> nn.Module:
        return self.teacher_encoder if self.objective.evaluate == "teacher" else encoder

    def after_step(self, encoder: nn.Module, clock: Clock) -> None:
        """Moves the teacher's parameters, but not its buffers, towards those of the student."""
        if not self.training:
            return
        # The released code updates with the momentum computed after the previous batch, from the steps done until then.
        decay = momentum(self.objective.ema, self.objective.ema_schedule, clock.progress)
        follow([self.teacher_encoder, self.teacher_projector], [encoder, self.projector], decay)
