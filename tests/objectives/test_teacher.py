"""The moving average of a student: its explicit formula, its schedules, and what it leaves alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from issl.objectives.teacher import follow, frozen_copy, momentum


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()


def shift(student: nn.Module, by: float) -> None:
    for parameter in student.parameters():
        parameter.data.add_(by)


def test_three_steps_equal_the_weighted_sum_of_the_students():
    """After steps of decay a, b, c the teacher is abc t + bc (1 - a) s1 + c (1 - b) s2 + (1 - c) s3."""
    student = network()
    teacher, start = frozen_copy(student), student[0].weight.detach().clone()
    for decay in (0.9, 0.5, 0.75):
        shift(student, 1.0)
        follow([teacher[0], teacher[1:]], [student[0], student[1:]], decay)
    weights = (0.9 * 0.5 * 0.75, 0.1 * 0.5 * 0.75, 0.5 * 0.75, 0.25)
    expected = sum(weight * (start + k) for k, weight in enumerate(weights))
    torch.testing.assert_close(teacher[0].weight, expected, rtol=1e-12, atol=0)
    for slow, fast in zip(teacher.parameters(), student.parameters()):  # every parameter lags by as much
        torch.testing.assert_close(fast - slow, torch.full_like(fast, 3 - weights[1] - 2 * weights[2] - 3 * weights[3]))


def test_a_momentum_of_1_stops_the_teacher_and_one_of_0_copies_the_student():
    student = network()
    teacher = frozen_copy(student)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    shift(student, 1.0)
    follow([teacher], [student], 1.0)
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
    follow([teacher], [student], 0.0)
    torch.testing.assert_close(teacher.state_dict(), student.state_dict(), rtol=0, atol=0)


def test_a_teacher_starts_equal_shares_nothing_and_has_no_gradient():
    student = network()
    teacher = frozen_copy(student)
    torch.testing.assert_close(teacher.state_dict(), student.state_dict(), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    held = {value.data_ptr() for value in student.state_dict().values()}
    assert not held & {value.data_ptr() for value in teacher.state_dict().values()}


def test_buffers_stay_the_teachers_own():
    student = network()
    teacher = frozen_copy(student)
    student[1].running_mean.add_(5.0)
    follow([teacher], [student], 0.5)
    assert not teacher[1].running_mean.any()


# --- schedules ---


@pytest.mark.parametrize(
    ("schedule", "values"),
    [("full_period", [0.996, 0.998, 1.0, 0.998, 0.996]), ("half_period", [0.996, 0.996586, 0.998, 0.999414, 1.0])],
)
def test_the_momentum_follows_its_schedule(schedule, values):
    assert [momentum(0.996, schedule, p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(values, abs=1e-6)


def test_the_full_period_momentum_equals_the_released_formula():
    for p in np.linspace(0, 1, 11):
        released = 1 - 0.002 * (1 + math.cos(2 * math.pi * p))
        assert momentum(0.996, "full_period", p) == pytest.approx(released, abs=1e-12)
