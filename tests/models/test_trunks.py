"""Encoders of timm: equal to timm's own model, of the sizes that papers state, and refused in one line."""

import copy
import sys

import pytest
import torch

from issl.errors import UserError
from issl.jobs import distributed
from issl.models import encoders
from issl.models.trunks import grid
from issl.spec.encoder import Timm


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


def settings(name: str, dim: int, **keys) -> Timm:
    return Timm(arch=f"timm/{name}", dim=dim, **keys)


def random_images(size: int, number: int = 3) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1))


# Settings, and what they ask of timm.create_model.
SAME = [
    (settings("test_vit", 64, patch=8), 32, {"img_size": 32, "patch_size": 8}),
    (settings("test_vit", 64, patch=8, pool="mean"), 64, {"img_size": 64, "patch_size": 8, "global_pool": "avg"}),
    (settings("test_vit", 64), 224, {"img_size": 224}),
    (settings("test_convnext", 64), 64, {}),
    (settings("test_convnext", 64, patch=2), 32, {"patch_size": 2}),
    (settings("test_resnet", 96), 64, {}),
    (settings("test_efficientnet", 256), 64, {}),
]


@pytest.mark.parametrize(("encoder", "size", "options"), SAME, ids=lambda each: getattr(each, "arch", None))
def test_an_encoder_without_a_head_gives_what_timms_model_gives(timm, encoder, size, options):
    torch.manual_seed(0)
    theirs = timm.create_model(encoder.arch.removeprefix("timm/"), num_classes=0, **options).eval()
    ours = encoders.build(encoder, size).eval()
    ours.load_state_dict({f"trunk.{name}": tensor for name, tensor in theirs.state_dict().items()}, strict=True)
    images = random_images(size)
    with torch.no_grad():
        z, maps = ours.with_maps(images)
        [expected] = theirs.forward_intermediates(
            images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        torch.testing.assert_close(z, theirs(images), rtol=1e-5, atol=1e-6)
        assert torch.equal(ours(images), z) and torch.equal(ours.maps(images), maps)
    assert z.shape == (3, ours.dim) and maps.shape[1] == ours.channels
    if encoder.pool != "mean" and "efficientnet" not in encoder.arch:  # timm norms these behind the pooling
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "size", "parameters", "maps"),
    [
        # ViT-S/16 (Touvron et al. 2021): 22.05 M with a classifier of 1000 classes.
        (settings("vit_small_patch16_224", 384), 224, 22_050_664 - 385_000, (384, 14, 14)),
        # Patches of 4 px: 48 weights each instead of 768, and 65 positions instead of 197.
        (settings("vit_small_patch16_224", 384, patch=4), 32, 21_665_664 - 384 * (720 + 132), (384, 8, 8)),
        (settings("vit_small_patch16_224", 384, patch=8), 64, 21_665_664 - 384 * (576 + 132), (384, 8, 8)),
        # ConvNeXt-T (Liu et al. 2022): 28.6 M with the classifier.
        (settings("convnext_tiny", 768), 224, 28_589_128 - 769_000, (768, 7, 7)),
        (settings("convnext_tiny", 768), 32, 28_589_128 - 769_000, (768, 1, 1)),
        (settings("convnext_tiny", 768, patch=1), 64, 28_589_128 - 769_000 - 96 * 45, (768, 8, 8)),
        (settings("resnet34", 512), 64, 21_797_672 - 513_000, (512, 2, 2)),
        (settings("resnet50", 2048), 224, 25_557_032 - 2_049_000, (2048, 7, 7)),
    ],
    ids=str,
)
def test_encoders_have_the_published_sizes(timm, encoder, size, parameters, maps):
    with torch.device("meta"):
        network = encoders.build(encoder, size).eval()
        found = network.maps(torch.empty(1, 3, size, size))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert found.shape == (1, *maps)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "tokens"])
def test_positions_are_in_the_order_of_the_image(layout):
    expected = torch.arange(2 * 5 * 9.0).view(2, 5, 3, 3)
    tokens = torch.stack([torch.zeros(2, 5), *(expected[:, :, i, j] for i in range(3) for j in range(3))], dim=1)
    given = {"NCHW": expected, "NHWC": expected.permute(0, 2, 3, 1), "tokens": tokens}[layout]
    trunk = torch.nn.Identity()
    trunk.num_prefix_tokens, trunk.output_fmt = 1, layout
    assert torch.equal(grid(trunk, given), expected)


@pytest.mark.parametrize("dim", [48, 128])  # with and without the residual
@pytest.mark.parametrize(
    ("name", "keys"), [("test_vit", {"patch": 8}), ("test_vit", {"patch": 8, "pool": "mean"}), ("test_convnext", {})]
)
def test_the_head_reads_the_class_token_or_every_position(timm, name, keys, dim):
    torch.manual_seed(0)
    network = encoders.build(settings(name, dim, head="expand", bottleneck=16, **keys), 64)
    images = random_images(64, 8)
    network.train()(images)  # statistics that are neither 0 nor 1
    network.eval()
    with torch.no_grad():
        if name == "test_vit" and "pool" not in keys:
            read = network.trunk.forward_features(images)[:, 0].reshape(8, 64, 1, 1)
        elif name == "test_vit":
            read = network.trunk.fc_norm(network.trunk.forward_features(images)[:, 1:])
            read = read.unflatten(1, (8, 8)).permute(0, 3, 1, 2)
        else:
            maps = network.trunk.forward_features(images).permute(0, 2, 3, 1)
            norm = network.trunk.head.norm
            read = torch.nn.functional.layer_norm(maps, (64,), norm.weight, norm.bias, norm.eps).permute(0, 3, 1, 2)
        expected = network.resizer(read).mean((2, 3))
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (8, dim) and expected.std(0).mean() > 0.01, "images that look alike would show nothing"
    unused = [name for name, p in grads(network, images).items() if p is None]
    assert unused == [], "every parameter learns"


def grads(network, images):
    network.train()(images).sum().backward()
    return {name: p.grad for name, p in network.named_parameters()}


def test_a_vit_takes_views_of_several_sizes(timm):
    """Its positions are resampled, as timm does; at its own size nothing changes."""
    torch.manual_seed(0)
    network = encoders.build(settings("test_vit", 64, patch=8), 64).eval()
    with torch.no_grad():
        z = network(random_images(32))
    own = timm.create_model("test_vit", num_classes=0, img_size=32, patch_size=8).eval()
    weights = {name.removeprefix("trunk."): tensor for name, tensor in network.state_dict().items()}
    old = weights["pos_embed"]
    weights["pos_embed"] = timm.layers.resample_abs_pos_embed(old, [4, 4], num_prefix_tokens=1)
    own.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(z, own(random_images(32)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "size", "says"),
    [
        (
            settings("vit_smal_patch16_224", 384),
            64,
            "unknown 'timm/vit_smal_patch16_224', did you mean 'timm/vit_small",
        ),
        (settings("test_vit", 96), 64, "dim 96: timm/test_vit alone gives 64; set 'dim: 64', or 'head: expand'"),
        (settings("test_vit", 96, head="expand"), 64, "dim 96 must be a multiple of 64, the width of timm/test_vit"),
        (settings("test_vit", 64), 40, "40 px is no multiple of its patches of 16 px; set 'patch' to a divisor of 40"),
        (settings("test_vit", 64), 8, "8 px is no multiple of its patches of 16 px"),
        (settings("inception_next_atto", 80, head="expand"), 64, "inception_next_atto cannot have a head: "),
        (settings("jx_nest_base", 512), 64, "unknown 'timm/jx_nest_base'"),
        (settings("test_resnet", 96, patch=4), 64, "cannot be built for images of 64 px, patch 4: "),
        (settings("test_resnet", 96, pool="token"), 64, "cannot be built for images of 64 px, pool token: "),
        (settings("test_convnext", 64), 16, "arch timm/test_convnext cannot take images of 16 px: "),
        (settings("test_efficientnet", 256), 16, "images of 16 px: too small for its strides"),
    ],
)
def test_what_an_architecture_cannot_be_is_refused_in_one_line(timm, encoder, size, says):
    with pytest.raises(UserError) as error:
        encoders.check(encoder, size, [size])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_every_other_size_of_the_images_is_checked(timm):
    encoder = settings("test_vit", 64)
    encoders.check(encoder, 64, [64, 32, 128])
    with pytest.raises(UserError, match="cannot take images of 36 px"):
        encoders.check(encoder, 64, [64, 36])


def test_without_timm_one_line_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm, which is not installed: python -m pip install timm$"):
        encoders.build(settings("resnet34", 512), 64)


def test_batch_norms_with_an_activation_inside_keep_it_in_several_processes(timm, monkeypatch):
    """Of one process that believes to be several, batch norms over all rows are those over its own."""
    torch.manual_seed(0)
    network = encoders.build(settings("test_efficientnet", 256), 64)
    plain = copy.deepcopy(network)
    with monkeypatch.context() as believing:
        believing.setattr(distributed, "world_size", lambda: 2)
        shared = distributed.synchronised(network, torch.device("cpu"))
    assert any(isinstance(part, distributed.GlobalBatchNorm) for part in shared.modules())
    assert shared.state_dict().keys() == plain.state_dict().keys()
    images = random_images(64, 8)
    torch.testing.assert_close(shared(images), plain(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-5)
