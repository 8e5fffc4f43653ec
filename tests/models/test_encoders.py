"""Encoders: sizes, initialisation, and equality with torchvision and with a slow reference."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50

from issl.models.encoders import ExpandingHead, build
from issl.spec.encoder import ResNet


def expanding(dim: int, **keys) -> ResNet:
    return ResNet(head="expand", dim=dim, **keys)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [
        (ResNet(), 11_168_832),
        (expanding(128), 13_858_112),
        (expanding(512), 14_055_488),
        (expanding(2048), 14_844_992),
        (expanding(8192), 18_003_008),
    ],
)
def test_encoders_have_the_published_parameter_counts_at_64_pixels(encoder, parameters):
    assert count(build(encoder, 64)) == parameters


@pytest.mark.parametrize(
    ("encoder", "parameters", "tensors"),
    [
        (ResNet(arch="resnet50", dim=2048), 23_508_032, 318),
        (expanding(4096, arch="resnet50"), 29_023_296, 336),
        (expanding(8192, arch="resnet50"), 31_128_640, 336),
    ],
)
def test_imagenet_encoders_have_the_published_sizes(encoder, parameters, tensors):
    model = build(encoder, 224)
    assert count(model) == parameters
    assert len(model.state_dict()) == tensors


@pytest.mark.parametrize(
    ("encoder", "original"),
    [(ResNet(), resnet18), (ResNet(arch="resnet34"), resnet34), (ResNet(arch="resnet50", dim=2048), resnet50)],
)
@pytest.mark.parametrize("train", [True, False])
def test_an_encoder_with_torchvisions_weights_equals_torchvision(encoder, original, train):
    torch.manual_seed(0)
    theirs = original(weights=None)
    theirs.fc = nn.Identity()
    ours = build(encoder, 112)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 112, 112)
    theirs.train(train), ours.train(train)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_torchvision_weights_fit_a_small_stem_except_conv1():
    result = build(ResNet(), 64).load_state_dict(
        {name: weight for name, weight in resnet18().state_dict().items() if name != "conv1.weight"}, strict=False
    )
    assert result.missing_keys == ["conv1.weight"]
    assert result.unexpected_keys == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("size", "stem", "maps"),
    [
        (64, 64, [32, 32, 16, 8, 4]),  # TinyImageNet keeps the max-pool
        (50, 50, [25, 25, 13, 7, 4]),
        (49, 49, [49, 49, 25, 13, 7]),  # below 50 px it is gone
        (32, 32, [32, 32, 16, 8, 4]),
        (99, 99, [50, 50, 25, 13, 7]),
        (100, 50, [25, 25, 13, 7, 4]),  # the standard 7x7/2 stem
        (224, 112, [56, 56, 28, 14, 7]),
    ],
)
def test_feature_maps_have_the_expected_sizes(size, stem, maps):
    model = build(ResNet(arch="resnet10", width=4, dim=32), size).eval()
    seen = {}
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        getattr(model, name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.shape[-1]}))
    with torch.no_grad():
        z = model(torch.randn(2, 3, size, size))
    assert z.shape == (2, 32)
    assert list(seen.values()) == [stem, *maps]


@pytest.mark.parametrize(
    ("encoder", "dim"),
    [
        (ResNet(arch="resnet10", width=2, dim=16), 16),
        (ResNet(arch="resnet18", width=2, dim=16), 16),
        (ResNet(arch="resnet50", width=2, dim=64), 64),
        (expanding(48, arch="resnet10", width=2, bottleneck=5), 48),
        (expanding(7, arch="resnet10", width=2, bottleneck=5), 7),
        (expanding(128, arch="resnet50", width=2, bottleneck=5), 128),
    ],
)
def test_the_representation_is_non_negative_and_has_its_dimension(encoder, dim):
    z = build(encoder, 32)(torch.randn(4, 3, 32, 32))
    assert z.shape == (4, dim)
    assert (z >= 0).all() and z.any()


# --- expanding head ---


def slow_head(head: ExpandingHead, x: torch.Tensor) -> torch.Tensor:
    """The head written out, with a residual that is added channel by channel."""
    functional = nn.functional
    out = functional.relu(head.bn1(functional.conv2d(x, head.conv1.weight)))
    out = functional.relu(head.bn2(functional.conv2d(out, head.conv2.weight, padding=1)))
    out = head.bn3(functional.conv2d(out, head.conv3.weight))
    channels, dim = x.shape[1], out.shape[1]
    planes = [out[:, c] + x[:, c % channels] if dim >= channels else out[:, c] for c in range(dim)]
    return functional.relu(torch.stack(planes, dim=1))


@pytest.mark.parametrize("dim", [3, 6, 12, 24])
def test_the_expanding_head_equals_a_slow_reference(dim):
    torch.manual_seed(0)
    head = ExpandingHead(6, 5, dim).double().eval()
    for bn in (head.bn1, head.bn2, head.bn3):
        nn.init.uniform_(bn.running_mean), nn.init.uniform_(bn.running_var, 0.5, 2)
        nn.init.uniform_(bn.weight), nn.init.uniform_(bn.bias)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(head(x), slow_head(head, x))


def test_the_residual_is_tiled_not_interleaved():
    head = ExpandingHead(2, 3, 6).eval()
    nn.init.zeros_(head.bn3.weight)  # leaves the residual alone
    x = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    assert head(x).flatten().tolist() == [1, 2, 1, 2, 1, 2]


def test_a_reducing_head_has_no_residual():
    head = ExpandingHead(4, 3, 2).eval()
    nn.init.zeros_(head.bn3.weight)
    assert not head(torch.rand(1, 4, 2, 2)).any()


def test_the_head_keeps_channels_last():
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    head = ExpandingHead(8, 4, 32).to(memory_format=torch.channels_last)
    assert head(x).is_contiguous(memory_format=torch.channels_last)


def test_an_impossible_dimension_is_refused():
    with pytest.raises(ValueError, match="dim 13 must be a multiple of the 8 channels, or smaller"):
        ExpandingHead(8, 4, 13)


# --- initialisation ---


def is_normal(weight: torch.Tensor, std: float) -> None:
    """Mean, scale and tails of a plain normal distribution, within sampling error."""
    weight = weight.detach().double().flatten()
    error = 5 / len(weight) ** 0.5
    assert abs(weight.mean()) < error * std
    assert abs(weight.std() / std - 1) < error
    if len(weight) > 10_000:
        assert weight.abs().max() > 3 * std  # nothing is truncated


def test_weights_have_the_released_initialisation():
    torch.manual_seed(0)
    model = build(expanding(2048), 64)
    is_normal(model.conv1.weight, 1.137 / 27**0.5)  # fan in 3 * 3 * 3
    assert abs(model.conv1.weight.std().item() - 0.219) < 0.01
    is_normal(model.layer1[0].conv1.weight, (2 / (9 * 64)) ** 0.5)  # Kaiming, fan out
    is_normal(model.layer2[0].downsample[0].weight, (2 / 128) ** 0.5)
    is_normal(model.layer4[1].conv2.weight, (2 / (9 * 512)) ** 0.5)
    is_normal(model.resizer.conv1.weight, 512**-0.5)  # plain, by its outputs
    is_normal(model.resizer.conv2.weight, 1.137 / (9 * 512) ** 0.5)
    is_normal(model.resizer.conv3.weight, 1.137 / 512**0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()  # not zero in the last of a block
            assert (module.eps, module.momentum) == (1e-5, 0.1)


def test_the_stem_for_large_images_keeps_torchvisions_initialisation():
    torch.manual_seed(0)
    is_normal(build(ResNet(), 224).conv1.weight, (2 / (49 * 64)) ** 0.5)


def test_head_conv1_scale_follows_its_outputs():
    torch.manual_seed(0)
    is_normal(ExpandingHead(512, 128, 512).conv1.weight, 128**-0.5)


def test_imagenet_convolutions_keep_torchs_initialisation():
    """Kaiming's uniform distribution with a = sqrt(5): bounds of 1 / sqrt(fan-in)."""
    torch.manual_seed(0)
    network = build(expanding(8192, arch="resnet50", init="torch"), 224)
    for name, conv in network.named_modules():
        if isinstance(conv, nn.Conv2d) and not name.startswith("resizer"):
            bound = (conv.in_channels * conv.kernel_size[0] ** 2) ** -0.5
            assert bound * 0.9 < conv.weight.abs().max() <= bound, name
    assert network.resizer.conv1.weight.std().item() == pytest.approx(512**-0.5, rel=0.01)
    assert sum(p.numel() for p in network.parameters()) == 31_128_640
