"""What every objective promises, whichever its method."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from issl import objectives
from issl.models import encoders
from issl.objectives.base import Clock, Objective, cross_entropy, full_precision, two_views
from issl.spec import objective as spec
from issl.spec.encoder import Timm

DIM, SIZE = 16, 4
START = Clock(epoch=0, epochs=4, step=0, steps_per_epoch=10)

SMALL = {"hidden": 24}
VARIANTS: dict[str, spec.ObjectiveSpec] = {
    "simclr": spec.SimCLR(name="simclr", out=8, **SMALL),
    "cissl": spec.CISSL(name="cissl", out=8, **SMALL),
    "cissl_mlp": spec.CISSL(name="cissl", predictor="mlp", mlp_hidden=24, out=8),
    "dissl": spec.DISSL(name="dissl", classes=20, bottleneck=12, **SMALL),
    "dissl_mlp": spec.DISSL(name="dissl", predictor="mlp", mlp_hidden=24, classes=20, bottleneck=12),
    "dissl_cosine": spec.DISSL(name="dissl", classes=20, bottleneck=12, heads="cosine", **SMALL),
    "dissl_multicrop": spec.DISSLMultiCrop(name="dissl_multicrop", classes=20, bottleneck=12, **SMALL),
    "dissl_multicrop_reduced": spec.DISSLMultiCrop(
        name="dissl_multicrop", classes=20, bottleneck=12, teacher="reduced", **SMALL
    ),
    "dino": spec.DINO(name="dino", classes=20, bottleneck=12, **SMALL),
    "dino_paper": spec.DINO(
        name="dino",
        classes=20,
        bottleneck=12,
        ema_schedule="half_period",
        teacher_projector="copy",
        normalize="after_bottleneck",
        **SMALL,
    ),
    "dcl": spec.DCL(name="dcl", out=8, **SMALL),
    "dcl_weighted": spec.DCL(name="dcl", weighted=True, out=8, **SMALL),
    "barlow_twins": spec.BarlowTwins(name="barlow_twins", out=8, **SMALL),
    "vicreg": spec.VICReg(name="vicreg", out=8, **SMALL),
    "wmse": spec.WMSE(name="wmse", size=8, iterations=2, out=4, **SMALL),
    "lejepa": spec.LeJEPA(name="lejepa", slices=32, out=8, **SMALL),
    "byol": spec.BYOL(name="byol", out=8, **SMALL),
    "simsiam": spec.SimSiam(name="simsiam", out=16, bottleneck=8, **SMALL),
    "moco_v3": spec.MoCoV3(name="moco_v3", out=8, **SMALL),
    "moco_v3_vit": spec.MoCoV3(name="moco_v3", heads="vit", temperature=0.2, out=8, **SMALL),
    "swav": spec.SwAV(name="swav", prototypes=20, out=8, **SMALL),
    "swav_queue": spec.SwAV(name="swav", prototypes=20, out=8, queue=24, queue_start_epoch=1, **SMALL),
}
REFERENCES = {"supervised", "untrained"}  # of another kind: tests/objectives/test_references.py
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def toy_encoder() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, DIM), nn.BatchNorm1d(DIM), nn.ReLU())


def toy_views(images: Tensor, noise: float = 0.3) -> Tensor:
    """Two noisy copies of each image, (B, 3, H, W) -> (2B, 3, H, W)."""
    pairs = torch.cat([images, images])
    return pairs + noise * torch.randn_like(pairs)


def build(variant: str, seed: int = 0) -> tuple[Objective, nn.Module, Tensor]:
    """An objective, its encoder and views of 16 images."""
    torch.manual_seed(seed)
    encoder = toy_encoder()
    return objectives.build(VARIANTS[variant], DIM, encoder), encoder, toy_views(torch.randn(16, 3, SIZE, SIZE))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_method_of_the_spec_has_an_objective():
    names = {VARIANTS[variant].name for variant in VARIANTS}
    assert names | REFERENCES == set(objectives.OBJECTIVES)


@every_variant
def test_every_method_returns_a_finite_loss_and_its_logs(variant):
    objective, encoder, views = build(variant)
    loss, logs = objective(encoder(views), views, START)
    assert loss.shape == () and loss.requires_grad and loss.isfinite()
    for name, value in logs.items():
        assert isinstance(value, Tensor) and value.shape == () and not value.requires_grad, name
        assert value.isfinite(), name
    assert ("log_loss" in logs) == VARIANTS[variant].has_log_loss


@every_variant
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_a_step_trains_an_encoder_of_timm(variant, name):
    """In half precision, with views of two sizes for methods that take many; a teacher has the student's tensors."""
    pytest.importorskip("timm")
    torch.manual_seed(0)
    dims = {"test_vit": {"dim": 64, "patch": 8}, "test_efficientnet": {"dim": 48, "head": "expand", "bottleneck": 16}}
    encoder = encoders.build(Timm(arch=f"timm/{name}", **dims[name]), 64).to(memory_format=torch.channels_last)
    method = VARIANTS[variant]
    objective = objectives.build(method, encoder.dim, encoder)
    before, images = snapshot(encoder), torch.randn(8, 3, 64, 64)
    trained = [p for p in [*encoder.parameters(), *objective.parameters()] if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        views = toy_views(images)
        small = [toy_views(images[:, :, ::2, ::2])] if method.many_views else []
        z = torch.cat([encoder(group) for group in (views, *small)])
        loss = objective(z, views, START).loss
    loss.backward()
    optimizer.step()
    objective.after_step(encoder, START)
    assert z.shape == ((4 if small else 2) * 8, encoder.dim) and loss.isfinite()
    after = encoder.state_dict()
    moved = {name for name, _ in encoder.named_parameters() if not torch.equal(before[name], after[name])}
    assert moved >= {name for name, p in encoder.named_parameters() if p.dim() == 4}, "every convolution learns"
    result = objective.evaluated(encoder).state_dict()
    assert result.keys() == after.keys() and all(tensor.isfinite().all() for tensor in result.values())


@every_variant
def test_training_lowers_the_loss(variant):
    objective, encoder, _ = build(variant)
    images = torch.randn(16, 3, SIZE, SIZE)
    trained = [p for p in [*encoder.parameters(), *objective.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    losses = []
    for step in range(40):
        views, clock = toy_views(images), Clock(step // 10, 4, step, 10)
        optimizer.zero_grad()
        loss = objective(encoder(views), views, clock).loss
        loss.backward()
        optimizer.step()
        objective.after_step(encoder, clock)
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.03


@every_variant
def test_the_loss_under_autocast_is_close_to_float32(variant):
    objective, encoder, views = build(variant)
    twin, twin_encoder = copy.deepcopy(objective), copy.deepcopy(encoder)
    loss, logs = objective(encoder(views), views, START)
    with torch.autocast("cpu", torch.bfloat16):
        z = twin_encoder(views).bfloat16()
        half, half_logs = twin(z, views, START)
    assert half.dtype == torch.float32 and all(value.dtype == torch.float32 for value in half_logs.values())
    torch.testing.assert_close(half, loss, rtol=0.02, atol=0.02)
    for name in logs:
        torch.testing.assert_close(half_logs[name], logs[name], rtol=0.03, atol=0.05)
    half.backward()
    assert all(p.grad.isfinite().all() for p in twin.parameters() if p.grad is not None)


@every_variant
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_single_image_has_a_finite_loss_and_gradient(variant, training):
    """As the last batch of an epoch, or of the test images, may have."""
    objective, encoder, views = build(variant)
    objective.train(training)
    z, pair = encoder(views)[::16], views[::16]
    loss, logs = objective(z, pair, START)
    loss.backward()
    assert loss.isfinite() and all(value.isfinite() for value in logs.values())
    trained = [p.grad for p in [*encoder.parameters(), *objective.parameters()] if p.grad is not None]
    assert trained and all(gradient.isfinite().all() for gradient in trained)


@every_variant
def test_eval_mode_changes_no_state(variant):
    objective, encoder, views = build(variant)
    objective.eval()
    before = snapshot(objective)
    first = objective(encoder(views), views, START).loss
    torch.testing.assert_close(objective(encoder(views), views, START).loss, first)
    for parameter in encoder.parameters():  # or a teacher that starts as its student would not move in any mode
        parameter.data.add_(1.0)
    objective.after_step(encoder, START)
    assert same(before, snapshot(objective))


@every_variant
def test_the_state_dict_is_the_whole_state(variant):
    objective, encoder, views = build(variant)
    objective(encoder(views), views, START)
    objective.after_step(encoder, START)
    other, _, _ = build(variant, seed=1)
    other.load_state_dict(snapshot(objective))
    clock = Clock(1, 4, 10, 10)
    z = encoder(views).detach()
    torch.testing.assert_close(other(z, views, clock).loss, objective(z, views, clock).loss, rtol=0, atol=0)
    assert same(snapshot(other), snapshot(objective))


class NoReadBack(TorchDispatchMode):
    """Fails wherever a tensor's value is read by Python, which on a GPU waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor was read back"
        return func(*args, **(kwargs or {}))


@every_variant
def test_no_method_waits_for_the_device(variant):
    objective, encoder, views = build(variant)
    with NoReadBack():
        objective(encoder(views), views, START).loss.backward()
        objective.after_step(encoder, START)
    with pytest.raises(AssertionError, match="read back"), NoReadBack():
        torch.ones(()).item()


@every_variant
def test_odd_rows_are_refused(variant):
    objective, encoder, views = build(variant)
    with pytest.raises(ValueError, match="31 rows cannot be two views"):
        objective(encoder(views)[:-1], views[:-1], START)


def test_the_clock_gives_the_progress_of_training():
    assert START.progress == 0
    assert Clock(epoch=2, epochs=4, step=20, steps_per_epoch=10).progress == 0.5
    assert Clock(epoch=3, epochs=4, step=39, steps_per_epoch=10).progress < 1


def test_an_objective_must_define_forward():
    with pytest.raises(NotImplementedError):
        Objective()(torch.zeros(2, 1), torch.zeros(2, 3, 1, 1), START)


def test_two_views_splits_rows_in_halves():
    first, second = two_views(torch.arange(6))
    assert first.tolist() == [0, 1, 2] and second.tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_full_precision_raises_half_types_to_float32(given, expected):
    assert full_precision(torch.zeros(1, dtype=given)).dtype == expected


def test_the_cross_entropy_equals_its_closed_form():
    p, q = torch.tensor([[0.25, 0.75], [1.0, 0.0]]), torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    expected = (torch.tensor(2.0).log() + torch.tensor(4.0).log()) / 2
    torch.testing.assert_close(cross_entropy(p, q.log()), expected)
