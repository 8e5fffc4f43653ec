"""DINO against loops over the formulas: targets, centre, schedules, moving average, frozen prototypes."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from issl.objectives.base import Clock
from issl.objectives.dino import DINO
from issl.spec import objective as spec

B, C, DIM = 4, 9, 6


def encoder() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, DIM), nn.BatchNorm1d(DIM), nn.ReLU())


def dino(student: nn.Module | None = None, **keys) -> DINO:
    torch.manual_seed(0)
    small = {"classes": C, "hidden": 7, "bottleneck": 5} | keys
    return DINO(spec.DINO(name="dino", **small), DIM, student or encoder()).double()


def views(seed: int = 1) -> torch.Tensor:
    return torch.randn(2 * B, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(seed: int = 2) -> torch.Tensor:
    return torch.randn(2 * B, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at(epoch: int, epochs: int = 300, step: int | None = None, steps_per_epoch: int = 10) -> Clock:
    return Clock(epoch, epochs, epoch * steps_per_epoch if step is None else step, steps_per_epoch)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def half_loss(student: np.ndarray, teacher: np.ndarray, center: np.ndarray, temperature: float) -> tuple[float, float]:
    """Cross-entropy and teacher entropy of one pair of views, by loops."""
    loss = uncertainty = 0.0
    for s, t in zip(student, teacher):
        p, q = softmax((t - center) / temperature), softmax(s / 0.1)
        loss -= sum(p[c] * math.log(q[c]) for c in range(C)) / B
        uncertainty -= sum(p[c] * math.log(p[c]) for c in range(C)) / B
    return loss, uncertainty


@pytest.mark.parametrize("normalize", ["before_bottleneck", "after_bottleneck"])
def test_two_steps_equal_loops_over_views(normalize):
    """The second half-loss, which has teacher view 1, already sees the centre that the first one moved."""
    objective, center = dino(normalize=normalize), np.zeros(C)
    for epoch in (0, 7):
        z, images = rows(epoch), views(epoch + 1)
        loss, logs = objective(z, images, at(epoch))
        with torch.no_grad():  # batch statistics in train mode: a second call gives the same
            s = objective.projector(z).numpy()
            t = objective.teacher_projector(objective.teacher_encoder(images)).numpy()
        temperature = 0.04 + 0.03 * epoch / 49
        first, uncertainty1 = half_loss(s[:B], t[B:], center, temperature)
        center = 0.9 * center + 0.1 * t[B:].mean(0)
        second, uncertainty2 = half_loss(s[B:], t[:B], center, temperature)
        center = 0.9 * center + 0.1 * t[:B].mean(0)
        assert loss.item() == pytest.approx((first + second) / 2, rel=1e-10)
        assert logs["log_loss"].item() == loss.item()
        assert logs["H_Mlz"].item() == pytest.approx((uncertainty1 + uncertainty2) / 2, rel=1e-10)
        np.testing.assert_allclose(objective.center.numpy()[0], center, rtol=1e-10)


def test_the_initial_loss_and_head_size_are_the_published_ones():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(12, 512), nn.ReLU())
    objective = DINO(spec.DINO(name="dino"), 512, student)
    images = torch.randn(128, 3, 2, 2)
    loss = objective(student(images), images, at(0)).loss.item()
    assert 6.90 < loss < 6.94
    assert loss == pytest.approx(math.log(1000), abs=0.03)
    assert sum(p.numel() for p in objective.projector.parameters()) == 1_045_480


# --- schedules ---


def test_the_teacher_temperature_warms_up():
    objective = dino()
    points = np.linspace(0.04, 0.07, 50)
    assert [objective.temperature(epoch) for epoch in range(50)] == pytest.approx(points.tolist())
    assert objective.temperature(0) == 0.04
    assert {objective.temperature(epoch) for epoch in (49, 50, 299)} == {0.07}
    assert {dino(temperature_warmup_epochs=0).temperature(epoch) for epoch in (0, 9)} == {0.07}


@pytest.mark.parametrize("schedule", ["full_period", "half_period"])
def test_the_moving_average_covers_parameters_only(schedule):
    student = encoder().double()
    objective = dino(student, ema_schedule=schedule, ema=0.9)
    for parameter in [*student.parameters(), *objective.projector.parameters()]:
        if parameter.requires_grad:
            parameter.data.add_(1.0)
    student[2].running_mean.add_(5.0)
    before = copy.deepcopy(dict(objective.named_parameters()))
    objective.after_step(student, at(0, epochs=3, step=0))  # the first update uses exactly `ema`
    for name, parameter in objective.teacher_encoder.named_parameters():
        expected = 0.9 * before[f"teacher_encoder.{name}"] + 0.1 * student.get_parameter(name)
        torch.testing.assert_close(parameter, expected, rtol=1e-12, atol=0)
    for name, parameter in objective.teacher_projector.named_parameters():
        expected = 0.9 * before[f"teacher_projector.{name}"] + 0.1 * before[f"projector.{name}"]
        torch.testing.assert_close(parameter, expected, rtol=1e-12, atol=0)
    assert not objective.teacher_encoder[2].running_mean.any()  # buffers are the teacher's own
    assert (objective.teacher_projector.magnitude == 1).all()


def test_the_released_teacher_stops_moving_at_half_time():
    student = encoder().double()
    objective = dino(student)
    for parameter in student.parameters():
        parameter.data.add_(1.0)
    before = copy.deepcopy(objective.state_dict())
    objective.after_step(student, at(150))
    torch.testing.assert_close(objective.state_dict(), before, rtol=0, atol=0)


# --- teacher ---


def test_teacher_encoder_starts_as_a_copy_of_its_own():
    student = encoder().double()
    objective = dino(student)
    torch.testing.assert_close(objective.teacher_encoder.state_dict(), student.state_dict())
    nn.init.zeros_(student[1].weight)
    assert objective.teacher_encoder[1].weight.any()


def test_the_student_is_evaluated_unless_the_teacher_is_requested():
    student = encoder().double()
    assert dino(student).evaluated(student) is student
    official = dino(student, evaluate="teacher")
    assert official.evaluated(student) is official.teacher_encoder


def test_the_teacher_projector_is_new_as_released_or_a_copy():
    released, paper = dino(), dino(teacher_projector="copy")
    assert not torch.equal(released.teacher_projector.direction, released.projector.direction)
    torch.testing.assert_close(paper.teacher_projector.state_dict(), paper.projector.state_dict())
    assert paper.teacher_projector.direction.data_ptr() != paper.projector.direction.data_ptr()


def test_teacher_has_no_gradient_and_uses_batch_statistics():
    objective = dino()
    before = objective.teacher_encoder[2].running_mean.clone()
    objective(rows(), views(), at(3)).loss.backward()
    for name, parameter in objective.named_parameters():
        teacher = name.startswith("teacher_")
        assert parameter.requires_grad != (teacher or name.endswith("original0")), name
        assert (parameter.grad is None) == (not parameter.requires_grad), name
    assert not torch.equal(objective.teacher_encoder[2].running_mean, before)


def test_the_gradient_equals_finite_differences():
    objective, z = dino().eval(), rows().requires_grad_()  # in eval mode, or the centre would move between calls
    assert torch.autograd.gradcheck(lambda z: objective(z, views(), at(3)).loss, z, atol=1e-5)


def test_the_centre_moves_in_train_mode_only():
    objective = dino()
    objective.eval()(rows(), views(), at(0))
    assert not objective.center.any()
    objective.train()(rows(), views(), at(0))
    assert objective.center.any()


@pytest.mark.parametrize(("epochs", "frozen"), [(0, []), (1, [0]), (2, [0, 1])])
def test_prototypes_are_frozen_in_the_first_epochs(epochs, frozen):
    objective = dino(freeze_last_layer_epochs=epochs)
    for epoch in range(3):
        objective.zero_grad()
        objective(rows(), views(), at(epoch)).loss.backward()
        assert (objective.projector.direction.grad is None) == (epoch in frozen)
        assert objective.projector.bottleneck.weight.grad.any()
