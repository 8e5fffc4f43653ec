"""The released schedules, value by value, and the optimiser against two separate ones."""

import math

import pytest
import torch
from torch import nn

from issl.objectives.base import Clock
from issl.spec.optim import Optim
from issl.training.optim import adam, build, by_epoch, learning_rates


def rate(optim, epoch, step=0, steps=196):
    return learning_rates(optim, Clock(epoch, optim.epochs, epoch * steps + step, steps))[0]


def test_the_schedule_equals_the_released_one_value_by_value():
    """300 epochs at batch 512: 0 in epoch 0, full in epochs 9 and 10, 1.2e-7 in the last one."""
    optim = Optim()
    assert rate(optim, 0) == 0
    assert rate(optim, 1) == pytest.approx(4e-3 / 9)
    assert rate(optim, 9) == rate(optim, 10) == pytest.approx(4e-3)
    assert rate(optim, 155) == pytest.approx(2e-3)
    assert rate(optim, 299) == pytest.approx(1.17e-7, rel=0.01)
    assert rate(optim, 5, step=0) == rate(optim, 5, step=195)


def test_the_schedule_is_the_closed_form_of_lightning_bolts():
    """The recursion that the released code steps once an epoch (LinearWarmupCosineAnnealingLR), written out."""
    import math

    base, warmup, epochs = 1.0, 10, 100
    value = 0.0
    for epoch in range(1, epochs):
        if epoch < warmup:
            value += base / (warmup - 1)
        elif epoch == warmup:
            value = base
        else:
            value *= (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / (
                1 + math.cos(math.pi * (epoch - 1 - warmup) / (epochs - warmup))
            )
        assert by_epoch(epoch, epochs, warmup) == pytest.approx(value, abs=1e-9)


def test_the_smooth_schedule_starts_above_zero_and_agrees_at_the_corners():
    optim = Optim(lr_interval="step")
    assert 0 < rate(optim, 0) < rate(optim, 0, step=1) < rate(optim, 5)
    assert rate(optim, 10) == pytest.approx(4e-3)
    assert rate(optim, 155) == pytest.approx(2e-3)
    assert rate(optim, 299, step=195) < 1e-6


def test_without_warm_up_the_schedule_starts_at_its_peak():
    assert rate(Optim(warmup_epochs=0), 0) == pytest.approx(4e-3)
    assert rate(Optim(warmup_epochs=0, lr_interval="step"), 0) == pytest.approx(4e-3)


@pytest.mark.parametrize(("batch_size", "peak"), [(256, 2e-3), (512, 4e-3), (1024, 8e-3)])
def test_the_learning_rate_scales_with_the_batch_size(batch_size, peak):
    assert rate(Optim(batch_size=batch_size), 10) == pytest.approx(peak)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 3e-4), (99, 3e-4), (100, 3e-5), (199, 3e-5), (200, 3e-6)])
def test_the_online_evaluation_has_milestones_and_no_scaling(epoch, expected):
    assert learning_rates(Optim(), Clock(epoch, 300, epoch, 1))[1] == pytest.approx(expected)


def test_one_optimizer_equals_the_two_of_the_released_code():
    """Adam with L2 added to the gradient on one group, plain Adam on the other, as written in the Adam paper."""
    torch.manual_seed(0)
    ssl, online = nn.Linear(3, 2), nn.Linear(2, 2)
    expected = [p.detach().clone() for p in (*ssl.parameters(), *online.parameters())]
    optimiser = adam(Optim(weight_decay=0.1), ssl.parameters(), online.parameters(), fused=False)
    for group, lr in zip(optimiser.param_groups, (0.01, 0.02)):
        group["lr"] = lr
    x = torch.randn(5, 3)
    first, second = [0] * 4, [0] * 4
    for step in range(1, 4):
        optimiser.zero_grad()
        online(ssl(x)).pow(2).sum().backward()
        for i, p in enumerate((*ssl.parameters(), *online.parameters())):
            grad = p.grad + (0.1 * p.detach() if i < 2 else 0)
            first[i] = 0.9 * first[i] + 0.1 * grad
            second[i] = 0.999 * second[i] + 0.001 * grad**2
            mean, spread = first[i] / (1 - 0.9**step), (second[i] / (1 - 0.999**step)) ** 0.5
            expected[i] = p.detach() - (0.01 if i < 2 else 0.02) * mean / (spread + 1e-8)
        optimiser.step()
        for p, e in zip((*ssl.parameters(), *online.parameters()), expected):
            torch.testing.assert_close(p.detach(), e)


def test_frozen_parameters_are_not_optimised():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    assert adam(Optim(), layer.parameters(), [], fused=False).param_groups[0]["params"] == [layer.weight]


# --- ImageNet --------------------------------------------------------------------------------------------------------


def imagenet(epochs: int) -> Optim:
    return Optim(
        epochs=epochs,
        batch_size=2560,
        lr=0.3,
        lr_interval="step",
        cosine="whole_run",
        warmup_lr=0.001,
        optimizer="lars",
    )


@pytest.mark.parametrize(("epochs", "handover"), [(100, 2.9266), (400, 2.9954), (800, 2.9988)])
def test_the_imagenet_cosine_spans_the_whole_run(epochs, handover):
    """500 steps an epoch: 1 281 167 images in whole batches of 2560."""
    optim, last = imagenet(epochs), 500 * epochs - 1

    def rate(step: int) -> float:
        return learning_rates(optim, Clock(step // 500, epochs, step, 500))[0]

    assert rate(0) == pytest.approx(0.001)
    assert rate(2500) == pytest.approx((0.001 + 3) / 2)
    assert rate(5000) == pytest.approx(3.0)
    assert rate(5001) == pytest.approx(handover, abs=1e-4)
    assert rate(500 * epochs // 2) == pytest.approx(1.5)
    assert rate(last) == pytest.approx(3 * (math.pi / 500 / epochs / 2) ** 2, rel=1e-6)
    for step in range(0, last, 997):  # u <= w: linear from 0.001; else half a cosine of u, u counted from step 0
        u, w = step / (500 * epochs), 10 / epochs
        expected = 0.001 + (3 - 0.001) * u / w if u <= w else 1.5 * (1 + math.cos(math.pi * u))
        assert rate(step) == pytest.approx(expected, rel=1e-9)


def test_lars_takes_every_parameter_and_leaves_the_online_evaluation_to_sgd():
    layer, online = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)), torch.nn.Linear(2, 2)
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    groups = build(imagenet(100), [*layer.parameters(), frozen], online.parameters(), fused=True).param_groups
    assert groups[0]["params"] == list(layer.parameters()) and groups[1]["params"] == list(online.parameters())
    assert [(g["trust"], g["weight_decay"], g["momentum"]) for g in groups] == [(0.001, 1e-6, 0.9), (None, 0.0, 0.9)]
    assert isinstance(build(Optim(), layer.parameters(), online.parameters(), fused=False), torch.optim.Adam)
