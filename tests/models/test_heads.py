"""Heads: sizes, layer order, initialisation and the weight-normalised prototypes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from issl.models.heads import PrototypeHead, batch_norm_mlp, init_, linear, mlp


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kinds(module: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in module]


@pytest.mark.parametrize(
    ("head", "parameters"),
    [
        (lambda: mlp(512, 128, [1024], norm_out=True), 657_792),  # SimCLR; CISSL projector
        (lambda: linear(512, 128, norm_out=True), 65_920),  # CISSL predictor
        (lambda: mlp(512, 128, [2048, 2048], norm_out=True), 5_513_600),  # CISSL-MLP, both
        (lambda: mlp(512, 16384, [1024], bottleneck=512), 9_456_640),  # DISSL projector
        (lambda: linear(512, 16384, bottleneck=512), 8_668_160),  # DISSL predictor
        (lambda: mlp(512, 16384, [2048, 2048], bottleneck=512), 14_705_664),  # DISSL-MLP, both
        (lambda: PrototypeHead(512, 1000, 1024, 256, normalize_after=False), 1_045_480),  # DINO
    ],
)
def test_heads_have_the_closed_form_parameter_counts(head, parameters):
    assert count(head()) == parameters


def test_layers_have_the_released_order():
    assert kinds(mlp(8, 4, [6, 5], norm_out=True)) == [
        *("Linear", "BatchNorm1d", "ReLU"),
        *("Linear", "BatchNorm1d", "ReLU"),
        *("Linear", "BatchNorm1d"),
    ]
    assert kinds(mlp(8, 4, [6], bottleneck=3, activation=nn.GELU)) == [
        *("Linear", "BatchNorm1d", "GELU"),
        *("Linear", "BatchNorm1d", "Linear"),  # no activation in the bottleneck
    ]
    assert kinds(linear(8, 4)) == ["Linear"]


def test_only_the_last_linear_has_a_bias():
    biases = [layer.bias is not None for layer in mlp(8, 4, [6, 5], bottleneck=3) if isinstance(layer, nn.Linear)]
    assert biases == [False, False, False, True]


def test_a_linear_head_with_bottleneck_is_linear_of_low_rank():
    torch.manual_seed(0)
    head = linear(8, 6, bottleneck=2).double().eval()
    a, b, zero = torch.randn(8).double(), torch.randn(8).double(), torch.zeros(8).double()

    def f(x: torch.Tensor) -> torch.Tensor:
        return head(x[None])[0] - head(zero[None])[0]  # without the bias

    torch.testing.assert_close(f(2 * a - 3 * b), 2 * f(a) - 3 * f(b))
    assert torch.linalg.matrix_rank(torch.stack([f(row) for row in torch.eye(8).double()])) == 2


def test_heads_have_the_released_initialisation():
    torch.manual_seed(0)
    head = mlp(512, 1000, [1024], bottleneck=256, norm_out=True)
    for layer in head:
        if isinstance(layer, nn.Linear):
            assert abs(layer.weight.std().item() / 0.02 - 1) < 0.01
            assert abs(layer.weight.mean().item()) < 2e-4
            assert layer.bias is None or not layer.bias.any()
        elif isinstance(layer, nn.BatchNorm1d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()


def test_init_resets_any_module_in_place():
    module = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm2d(3))
    nn.init.constant_(module[0].bias, 7), nn.init.constant_(module[1].weight, 7)
    assert init_(module) is module
    assert abs(module[0].weight.std().item() / 0.02 - 1) < 0.02
    assert not module[0].bias.any() and (module[1].weight == 1).all()


# --- heads of methods that are not in the released code ---


@pytest.mark.parametrize(
    ("head", "parameters"),
    [
        # BYOL, Grill et al. 2020, for a ResNet-50: 4096 to 256 behind 2048 and behind 256 dimensions.
        (lambda: batch_norm_mlp(2048, 256, [4096]), 2048 * 4096 + 2 * 4096 + 4096 * 256),
        (lambda: batch_norm_mlp(256, 256, [4096]), 256 * 4096 + 2 * 4096 + 4096 * 256),
        # SimSiam, Chen & He 2021: three layers of 2048, then 512 to 2048.
        (lambda: batch_norm_mlp(2048, 2048, [2048, 2048], norm_out=True), 3 * 2048**2 + 2 * 2 * 2048),
        (lambda: batch_norm_mlp(2048, 2048, [512], bias=True), 2048 * 512 + 2 * 512 + 512 * 2048 + 2048),
    ],
)
def test_batch_norm_mlps_have_the_closed_form_parameter_counts(head, parameters):
    with torch.device("meta"):
        assert count(head()) == parameters


def test_a_batch_norm_mlp_equals_its_formula():
    torch.manual_seed(0)
    head, z = batch_norm_mlp(6, 3, [5, 4], norm_out=True).double(), torch.randn(9, 6).double()

    def standardised(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()

    x = z
    for layer in (head[0], head[3]):
        x = standardised(x @ layer.weight.T).relu()
    torch.testing.assert_close(head(z), standardised(x @ head[6].weight.T))
    assert not list(head[7].parameters())
    plain = batch_norm_mlp(6, 3, [4], bias=True).double()
    expected = standardised(z @ plain[0].weight.T).relu() @ plain[3].weight.T + plain[3].bias
    torch.testing.assert_close(plain(z), expected)


def test_a_batch_norm_mlp_starts_as_torchs_layers():
    """Uniform within 1 / sqrt(fan-in)."""
    torch.manual_seed(0)
    for layer in batch_norm_mlp(400, 300, [900], bias=True):
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            assert layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


# --- prototypes ---


@pytest.mark.parametrize("normalize_after", [False, True])
def test_the_prototype_head_equals_its_formula(normalize_after):
    torch.manual_seed(0)
    head = PrototypeHead(6, 5, 7, 4, normalize_after=normalize_after).double().eval()
    z = torch.randn(3, 6).double()
    hidden = F.gelu(z @ head.hidden[0].weight.T / (1 + 1e-5) ** 0.5)  # running mean 0 and variance 1
    if normalize_after:
        x = hidden @ head.bottleneck.weight.T
        x = x / x.norm(dim=1, keepdim=True)
    else:
        x = hidden / hidden.norm(dim=1, keepdim=True) @ head.bottleneck.weight.T
    directions = head.direction / head.direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(z), x @ directions.T)
    assert (head(z).abs().max() <= 1) or not normalize_after


def test_prototypes_stay_unit_vectors_without_trained_magnitudes():
    torch.manual_seed(0)
    head = PrototypeHead(6, 5, 7, 4, normalize_after=False)
    optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    before = head.direction.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        head(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    assert not torch.equal(head.direction, before)
    assert head.magnitude.grad is None and (head.magnitude == 1).all()
    torch.testing.assert_close(head.prototypes.weight.norm(dim=1), torch.ones(5))


def test_prototypes_start_from_the_usual_normal():
    torch.manual_seed(0)
    head = PrototypeHead(64, 1000, 64, 256, normalize_after=False)
    assert abs(head.direction.std().item() / 0.02 - 1) < 0.02


def test_frozen_prototypes_give_the_same_output_and_no_gradient():
    torch.manual_seed(0)
    head = PrototypeHead(6, 5, 7, 4, normalize_after=False)
    z = torch.randn(8, 6)
    torch.testing.assert_close(head(z, freeze_prototypes=True), head(z))
    head(z, freeze_prototypes=True).square().sum().backward()
    assert head.direction.grad is None
    assert head.bottleneck.weight.grad.any()
