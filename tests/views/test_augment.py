"""The truth is torchvision's pipeline on PIL images, with the same draws and on real photographs."""

import io
import os
import subprocess
import sys
import zipfile
from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.stats import chisquare, ks_2samp
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from issl.spec.augment import Augment
from issl.views import augment
from issl.views.augment import Draws, apply, clean, draw, normalize, random_views, two_views

SIZE = 64
COARSE = Augment(strength=2, blur=True)


# --- photographs and the reference -----------------------------------------------------------------------------------


def tinyimagenet(path: str, n: int) -> list[Image.Image]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if "/train/" in name and name.endswith(".JPEG")]
        chosen = names[:: len(names) // n][:n]
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen]


def patches_of_photographs(n: int) -> list[Image.Image]:
    photographs = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    height, width, _ = photographs[0].shape
    rng = np.random.default_rng(0)
    corners = zip(rng.integers(0, height - SIZE, n), rng.integers(0, width - SIZE, n))
    return [
        Image.fromarray(photographs[i % 2][top : top + SIZE, left : left + SIZE])
        for i, (top, left) in enumerate(corners)
    ]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The batches are small, and on a busy machine threads wait longer for each other than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """(128, 3, 64, 64) uint8."""
    archive = os.environ.get("ISSL_TINYIMAGENET_ZIP")
    pictures = tinyimagenet(archive, 128) if archive else patches_of_photographs(128)
    return torch.stack([F.pil_to_tensor(picture) for picture in pictures])


def unchanging(n: int, height: int = SIZE, width: int = SIZE) -> Draws:
    """Draws that leave the images as they are."""
    no, one, zero = torch.zeros(n, dtype=torch.bool), torch.ones(n), torch.zeros(n)
    return Draws(
        crop=torch.tensor([0, 0, height, width]).expand(n, 4),
        flip=no,
        jitter=no,
        brightness=one,
        contrast=one,
        saturation=one,
        hue=zero,
        order=torch.arange(4).expand(n, 4),
        gray=no,
        blur=no,
        sigma=one,
    )


def reference(image: Tensor, draws: Draws, i: int) -> Tensor:
    """torchvision's functions on a PIL image, in the order of the spec, with the draws of image i.

    A hue that stays is left out, as in ColorJitter(hue=0): PIL's way to HSV and back alone costs grey levels.
    """
    _, height, width = image.shape
    picture = F.to_pil_image(image)
    picture = F.resized_crop(picture, *draws.crop[i].tolist(), [height, width], InterpolationMode.BICUBIC)
    if draws.flip[i]:
        picture = F.hflip(picture)
    if draws.jitter[i]:
        operations = [
            lambda p: F.adjust_brightness(p, draws.brightness[i].item()),
            lambda p: F.adjust_contrast(p, draws.contrast[i].item()),
            lambda p: F.adjust_saturation(p, draws.saturation[i].item()),
            lambda p: F.adjust_hue(p, draws.hue[i].item()) if draws.hue[i] else p,
        ]
        for operation in draws.order[i].tolist():
            picture = operations[operation](picture)
    if draws.gray[i]:
        picture = F.rgb_to_grayscale(picture, 3)
    if draws.blur[i]:
        kernel = int(0.1 * height) + (int(0.1 * height) + 1) % 2
        picture = F.gaussian_blur(picture, kernel, draws.sigma[i].item())
    return F.pil_to_tensor(picture)


def differences(images: Tensor, draws: Draws) -> Tensor:
    """Views minus reference in grey levels of 255, (n, 3, H, W)."""
    expected = torch.stack([reference(image, draws, i) for i, image in enumerate(images)])
    return apply(images, draws) * 255 - expected


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(n: int, low: float, high: float, seed: int = 0) -> Tensor:
    return torch.empty(n).uniform_(low, high, generator=seeded(seed))


def jitter_first(operation: int, n: int, **amounts: Tensor) -> Draws:
    """Only the amounts given differ from "no change"; the operation they belong to comes first."""
    order = torch.tensor([operation] + [other for other in range(4) if other != operation]).expand(n, 4)
    return replace(unchanging(n), jitter=torch.ones(n, dtype=torch.bool), order=order, **amounts)


# --- operation by operation ------------------------------------------------------------------------------------------


def test_neutral_draws_return_the_image(photos):
    assert torch.allclose(apply(photos, unchanging(len(photos))) * 255, photos.float(), atol=1e-4)


@pytest.mark.parametrize("strength", [0.25, 1, 2])
def test_crops_and_flips_equal_torchvisions(photos, strength):
    """PIL resamples with 8 bits between its two passes, and rounds: half a level, passed on with weights up to 1.3."""
    drawn = draw(Augment(strength=strength), len(photos), SIZE, SIZE, seeded(1))
    off = differences(photos, replace(unchanging(len(photos)), crop=drawn.crop, flip=drawn.flip))
    assert 0 < drawn.flip.sum() < len(photos)
    assert off.abs().max() <= 1.5
    assert abs(off.mean()) < 0.02


def test_tiny_and_oblong_crops_equal_torchvisions():
    """Down to one pixel, at every border, and on images that are not square."""
    images = torch.randint(0, 256, (5, 3, 24, 40), dtype=torch.uint8, generator=seeded(0))
    crop = torch.tensor([[0, 0, 1, 1], [23, 39, 1, 1], [0, 37, 24, 3], [22, 0, 2, 40], [0, 0, 24, 40]])
    assert differences(images, replace(unchanging(5, 24, 40), crop=crop)).abs().max() <= 1.5


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_brightness_contrast_and_saturation_equal_torchvisions(photos, name):
    """PIL cuts the fraction off where this keeps it, so views are up to one level brighter.

    PIL's grey levels and their mean are rounded too; that counts for |1 - factor| <= 0.8 of a level more.
    """
    operation = ["brightness", "contrast", "saturation"].index(name)
    factors = uniform(len(photos), 0.2, 1.8)
    off = differences(photos, jitter_first(operation, len(photos), **{name: factors}))
    assert off.abs().max() <= 1.9
    assert -0.1 < off.mean() < 0.6


@pytest.mark.parametrize("adjust", [augment.adjust_contrast, augment.adjust_saturation])
def test_a_flat_grey_image_has_nothing_to_change(adjust):
    levels = torch.arange(256).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 255
    for factor in (0.0, 0.5, 1.5):
        changed = adjust(levels, torch.full((256, 1, 1, 1), factor))
        torch.testing.assert_close(changed, levels, atol=1e-6, rtol=0)


def test_hue_shifts_equal_torchvisions(photos):
    """PIL keeps hue and saturation in 8 bits, cut off: a step of hue is 6 / 255 of the chroma, at most 6 levels."""
    shift = uniform(len(photos), -0.5, 0.5)
    off = differences(photos, jitter_first(3, len(photos), hue=shift)).abs()
    assert off.max() <= 12
    assert off.mean() < 1
    assert off.flatten().kthvalue(int(0.99 * off.numel())).values <= 5


def test_grayscale_equals_torchvisions(photos):
    off = differences(photos, replace(unchanging(len(photos)), gray=torch.ones(len(photos), dtype=torch.bool)))
    assert off.abs().max() <= 0.51


@pytest.mark.parametrize("size", [64, 32])
def test_blur_equals_torchvisions(photos, size):
    """The kernel has 7 taps at 64 pixels and 3 at 32; torchvision only rounds at the end."""
    images, n = photos[..., :size, :size], len(photos)
    blurred = replace(unchanging(n, size, size), blur=torch.ones(n, dtype=torch.bool), sigma=uniform(n, 0.1, 2))
    assert differences(images, blurred).abs().max() <= 0.51


@pytest.mark.parametrize("spec", [Augment(strength=0.25), Augment(), COARSE], ids=lambda spec: f"s{spec.strength:g}")
def test_the_whole_pipeline_equals_torchvisions(photos, spec):
    """All operations in each image's own order; what PIL cuts off adds up and is spread by later factors."""
    draws = draw(spec, len(photos), SIZE, SIZE, seeded(3))
    assert len({tuple(order) for order in draws.order.tolist()}) > 20
    off = differences(photos, draws).abs()
    assert off.mean() < 1.5
    assert off.flatten().kthvalue(int(0.999 * off.numel())).values <= 10
    assert off.mean((1, 2, 3)).max() < 8


# --- the draws -------------------------------------------------------------------------------------------------------


def crops_by_torchvision(n: int, min_area: float, height: int, width: int) -> np.ndarray:
    image = torch.empty(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        get = transforms.RandomResizedCrop.get_params
        return np.array([get(image, [min_area, 1], [3 / 4, 4 / 3]) for _ in range(n)])


def crops_drawn(n: int, strength: float, height: int, width: int) -> np.ndarray:
    return draw(Augment(strength=strength), n, height, width, seeded(1)).crop.numpy()


@pytest.mark.parametrize("strength", [0.25, 0.5, 1, 2])
def test_crops_have_torchvisions_distribution(strength):
    ours = crops_drawn(50_000, strength, SIZE, SIZE)
    theirs = crops_by_torchvision(10_000, 0.2 / strength, SIZE, SIZE)
    for summary in (
        *(lambda box, i=i: box[:, i] for i in range(4)),  # top, left, height, width
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
        lambda box: box[:, 0] / np.maximum(1, SIZE - box[:, 2]),  # where the box lies in its room
    ):
        assert ks_2samp(summary(ours), summary(theirs)).pvalue > 1e-3
    whole = [(box[:, 2:] == SIZE).all(1).mean() for box in (ours, theirs)]
    assert abs(whole[0] - whole[1]) < 0.004


def test_crops_of_oblong_images_have_torchvisions_distribution():
    """Such images often fall back to the central box of the extreme aspect ratio."""
    ours, theirs = crops_drawn(20_000, 0.25, 20, 64), crops_by_torchvision(5000, 0.8, 20, 64)
    assert (ours == [0, 18, 20, 27]).all() and (theirs == [0, 18, 20, 27]).all()
    ours, theirs = crops_drawn(20_000, 0.25, 64, 20), crops_by_torchvision(500, 0.8, 64, 20)
    assert (ours == [18, 0, 27, 20]).all() and (theirs == [18, 0, 27, 20]).all()
    ours, theirs = crops_drawn(20_000, 2, 64, 40), crops_by_torchvision(5000, 0.1, 64, 40)
    assert all(ks_2samp(ours[:, i], theirs[:, i]).pvalue > 1e-3 for i in range(4))


def test_no_crop_is_empty_however_small_the_image():
    """A sixteenth of 2 x 2 pixels is narrower or lower than half a pixel: the whole image is taken."""
    areas = (0.06, 0.0625)
    assert (draw(Augment(), 1000, 2, 2, seeded(0), areas).crop == torch.tensor([0, 0, 2, 2])).all()
    assert transforms.RandomResizedCrop.get_params(torch.empty(3, 2, 2), areas, (3 / 4, 4 / 3)) == (0, 0, 2, 2)


@pytest.mark.parametrize(
    ("strength", "acceptance", "kept"), [(0.25, 0.43, 0.87), (0.5, 0.80, 0.65), (1, 0.85, 0.55), (2, 0.87, 0.50)]
)
def test_crop_areas_and_rates_follow_the_strength(strength, acceptance, kept, monkeypatch):
    boxes = crops_drawn(50_000, strength, SIZE, SIZE)
    assert (boxes[:, 2] * boxes[:, 3]).mean() / SIZE**2 == pytest.approx(kept, abs=0.01)
    monkeypatch.setattr(augment, "CROP_TRIES", 1)
    boxes = crops_drawn(50_000, strength, SIZE, SIZE)
    assert (boxes[:, 2:] < SIZE).any(1).mean() == pytest.approx(acceptance, abs=0.012)


@pytest.mark.parametrize(
    ("strength", "area", "factor", "hue", "gray"),
    [(0.25, 0.8, 0.1, 0.025, 0.025), (0.5, 0.4, 0.2, 0.05, 0.05), (1, 0.2, 0.4, 0.1, 0.1), (2, 0.1, 0.8, 0.2, 0.2)],
)
def test_draws_cover_the_ranges_of_the_spec(strength, area, factor, hue, gray):
    n = 20_000
    draws = draw(Augment(strength=strength, blur=True), n, SIZE, SIZE, seeded(0))
    top, left, height, width = draws.crop.T
    assert (torch.stack([top, left]) >= 0).all() and (top + height <= SIZE).all() and (left + width <= SIZE).all()
    smallest = (height * width).min() / SIZE**2
    assert area * 0.95 < smallest < area * 1.1
    for factors in (draws.brightness, draws.contrast, draws.saturation):
        assert ks_2samp(factors, np.linspace(1 - factor, 1 + factor, n)).pvalue > 1e-3
        assert 1 - factor <= factors.min() and factors.max() <= 1 + factor
    assert ks_2samp(draws.hue, np.linspace(-hue, hue, n)).pvalue > 1e-3
    assert ks_2samp(draws.sigma, np.linspace(0.1, 2, n)).pvalue > 1e-3
    for chosen, probability in ((draws.flip, 0.5), (draws.jitter, 0.8), (draws.gray, gray), (draws.blur, 0.5)):
        assert chosen.float().mean() == pytest.approx(probability, abs=4 * (probability * (1 - probability) / n) ** 0.5)


def test_color_draws_have_torchvisions_distribution():
    jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [
            jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(10_000)
        ]
    ours = draw(COARSE, 10_000, SIZE, SIZE, seeded(0))
    for i, name in enumerate(("brightness", "contrast", "saturation", "hue"), start=1):
        assert ks_2samp(getattr(ours, name), [params[i] for params in theirs]).pvalue > 1e-3


def test_every_order_of_color_operations_is_equally_likely():
    orders = [tuple(order) for order in draw(Augment(), 24_000, SIZE, SIZE, seeded(0)).order.tolist()]
    assert chisquare([orders.count(order) for order in permutations(range(4))]).pvalue > 1e-3


def test_draws_are_independent_of_each_other():
    draws = draw(COARSE, 20_000, SIZE, SIZE, seeded(0))
    columns = [value.float().reshape(20_000, -1).T for value in (getattr(draws, f.name) for f in fields(draws))]
    correlations = torch.corrcoef(torch.cat([column for column, f in zip(columns, fields(draws)) if f.name != "order"]))
    correlations[:4, :4] = 0  # position and size of a crop depend on each other
    assert (correlations - torch.diag(correlations.diagonal())).abs().max() < 0.035


def test_factors_stop_at_zero_and_blur_is_optional():
    strong = draw(Augment(strength=5, blur=True), 10_000, SIZE, SIZE, seeded(0))
    assert 0 <= strong.brightness.min() < 0.01 and 2.99 < strong.brightness.max() <= 3
    assert not draw(Augment(strength=5), 1000, SIZE, SIZE, seeded(0)).blur.any()


def test_a_generator_determines_the_views():
    once, again, other = (draw(COARSE, 50, SIZE, SIZE, seeded(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(getattr(once, f.name), getattr(again, f.name)) for f in fields(Draws))
    assert not any(torch.equal(getattr(once, f.name), getattr(other, f.name)) for f in fields(Draws))
    weak, strong = (draw(spec, 50, SIZE, SIZE, seeded(0)) for spec in (Augment(), COARSE))
    assert torch.equal(weak.flip, strong.flip) and torch.equal(weak.order, strong.order)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_view_does_not_depend_on_its_batch(photos):
    images = photos[:40]
    draws = draw(COARSE, len(images), SIZE, SIZE, seeded(0))
    together = apply(images, draws)
    apart = torch.cat([apply(images[i : i + 1], draws[i : i + 1]) for i in range(len(images))])
    assert torch.allclose(together, apart, atol=1e-5)
    assert together.dtype == torch.float32 and together.shape == images.shape
    assert together.min() >= 0 and together.max() <= 1


def test_large_batches_are_processed_in_chunks(photos, monkeypatch):
    draws = draw(COARSE, len(photos), SIZE, SIZE, seeded(0))
    together, sizes, views = apply(photos, draws), [], augment._views
    monkeypatch.setattr(augment, "CPU_PIXELS", 30 * SIZE**2)
    monkeypatch.setattr(augment, "_views", lambda images, *rest: sizes.append(len(images)) or views(images, *rest))
    assert torch.allclose(together, apply(photos, draws), atol=1e-5)
    assert sizes == [30, 30, 30, 30, 8]


def test_equal_images_get_different_views(photos):
    images = photos[:1].expand(64, -1, -1, -1)
    views = apply(images, draw(Augment(), 64, SIZE, SIZE, seeded(0)))
    distances = torch.cdist(views.flatten(1), views.flatten(1)) + 100 * torch.eye(64)
    assert distances.min() > 0.1


def test_autocast_changes_nothing(photos):
    draws = draw(COARSE, len(photos), SIZE, SIZE, seeded(0))
    with torch.autocast("cpu", torch.bfloat16):
        views = apply(photos, draws)
    assert torch.equal(views, apply(photos, draws))


def test_augmentation_never_waits_for_the_device(photos):
    """Tensors on the meta device have no values: to look at one is an error."""
    draws = draw(COARSE, len(photos), SIZE, SIZE, seeded(0))
    for compute, kernel in ((augment._views, "tenth"), (augment._developed, "pillow")):
        views = compute(photos.to("meta"), draws, kernel)
        assert normalize(views).shape == photos.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_views_without_waiting(photos):
    draws = draw(COARSE, len(photos), SIZE, SIZE, seeded(0))
    images = photos.cuda()
    apply(images, draws)  # the libraries' own start may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = normalize(apply(images, draws))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (views.cpu() - normalize(apply(photos, draws))).abs().max() < 0.05


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 3, 8, 8), torch.float32), ((3, 8, 8), torch.uint8), ((2, 1, 8, 8), torch.uint8)]
)
def test_tensors_of_other_types_are_refused(shape, dtype):
    with pytest.raises(ValueError, match="uint8 images of shape"):
        apply(torch.zeros(shape, dtype=dtype), unchanging(2, 8, 8))


def test_a_missing_draw_is_refused(photos):
    with pytest.raises(ValueError, match="128 images, but 2 draws"):
        apply(photos, unchanging(2))


# --- what training and evaluation see --------------------------------------------------------------------------------


def test_normalisation_equals_torchvisions(photos):
    expected = F.normalize(photos / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for normalized in (normalize(photos), normalize(photos / 255), clean(photos)):
        assert torch.allclose(normalized, expected, atol=1e-5)
        assert normalized.is_contiguous(memory_format=torch.channels_last)


def test_two_views_of_an_image_differ(photos):
    n = len(photos)
    views = two_views(photos, COARSE, seeded(0))
    assert views.shape == (2 * n, 3, SIZE, SIZE) and views.dtype == torch.float32
    assert views.is_contiguous(memory_format=torch.channels_last) and not views.requires_grad

    draws = draw(COARSE, 2 * n, SIZE, SIZE, seeded(0))
    assert torch.allclose(views[:n], normalize(apply(photos, draws[:n])), atol=1e-4)
    assert torch.allclose(views[n:], normalize(apply(photos, draws[n:])), atol=1e-4)
    assert (views[:n] - views[n:]).abs().mean((1, 2, 3)).min() > 0.01

    generator = seeded(0)
    assert torch.equal(two_views(photos, COARSE, generator), views)
    assert not torch.equal(two_views(photos, COARSE, generator), views)


def test_more_views_are_drawn_view_by_view_whoever_shares_the_batch(photos):
    n = len(photos) // 2 * 2
    views = random_views(photos[:n], 4, COARSE, seeded(0))
    draws = draw(COARSE, 4 * n, SIZE, SIZE, seeded(0))
    for nth, view in enumerate(views.split(n)):
        expected = normalize(apply(photos[:n], draws[nth * n : (nth + 1) * n]))
        assert torch.allclose(view, expected, atol=1e-4)
    halves = [random_views(half, 4, COARSE, seeded(0), 2, share) for share, half in enumerate(photos[:n].chunk(2))]
    joined = torch.cat([view for pair in zip(*(half.chunk(4) for half in halves)) for view in pair])
    assert torch.allclose(joined, views, atol=1e-4)


def test_an_empty_batch_gives_no_views():
    assert two_views(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), COARSE, seeded(0)).shape == (0, 3, 8, 8)


def test_augmentation_imports_without_torchvision():
    code = "import sys, issl.views.augment; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- photographs that have been cropped already ----------------------------------------------------------------------

IMAGENET = Augment(
    jitter=0.8,
    hue=0.2,
    gray=0.2,
    blur=True,
    blur_kernel="pillow",
    views=[{"number": 2, "size": SIZE, "min_area": 0.08}],
)


def pillow_reference(image: Tensor, draws: Draws, i: int) -> Tensor:
    """The released ImageNet pipeline after its crop, on a PIL image."""
    whole = replace(draws, crop=torch.tensor([0, 0, *image.shape[1:]]).expand(len(draws), 4), blur=draws.blur & False)
    picture = F.to_pil_image(reference(image, whole, i))
    if draws.blur[i]:
        picture = picture.filter(ImageFilter.GaussianBlur(draws.sigma[i].item()))
    return F.pil_to_tensor(picture)


def test_photographs_follow_the_released_pipeline_after_the_crop(photos):
    draws = draw(IMAGENET, len(photos), SIZE, SIZE, seeded(1), areas=(0.08, 1.0))
    assert draws.flip.any() and draws.jitter.any() and draws.gray.any() and draws.blur.any()
    expected = torch.stack([pillow_reference(image, draws, i) for i, image in enumerate(photos)])
    apart = augment.color_and_blur(photos, draws, "pillow") * 255 - expected
    assert apart.abs().mean() < 1.5 and apart.mean().abs() < 1.5  # Pillow goes back to 8 bits after each operation


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.99, 1.3, 1.7, 2.0])
def test_photographs_are_blurred_as_in_pillow(photos, sigma):
    images = photos[:8, :, :40]  # not square
    draws = replace(unchanging(8, 40), blur=torch.ones(8, dtype=torch.bool), sigma=torch.full((8,), sigma))
    radius = draws.sigma[0].item()
    expected = torch.stack(
        [F.pil_to_tensor(F.to_pil_image(image).filter(ImageFilter.GaussianBlur(radius))) for image in images]
    )
    blurred = augment.color_and_blur(images, draws, "pillow") * 255
    apart = blurred - expected
    assert apart.abs().max() < 3.5 and apart.abs().mean() < 0.8  # three passes each way, each rounded to 8 bits
    assert (blurred - images).abs().max() > 20 or sigma == 0.1


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.41, 1.42, 1.45, 1.99])
def test_the_blur_of_the_finest_stripes_is_pillows(sigma):
    """They tell apart the widths of box filters that have the same variance; only the sides are left out."""
    stripes = (torch.arange(48) % 2 * 255).to(torch.uint8).expand(1, 3, 48, 48)
    draws = replace(unchanging(1, 48, 48), blur=torch.ones(1, dtype=torch.bool), sigma=torch.full((1,), sigma))
    picture = F.to_pil_image(stripes[0]).filter(ImageFilter.GaussianBlur(draws.sigma.item()))
    apart = augment.color_and_blur(stripes, draws, "pillow")[0] * 255 - F.pil_to_tensor(picture)
    assert apart[..., 8:-8].abs().max() < 2


def test_a_mirrored_crop_is_mirrored_exactly(photos):
    draws = replace(unchanging(4), flip=torch.tensor([True, False, True, False]))
    views = augment.color_and_blur(photos[:4], draws)
    torch.testing.assert_close(views[0::2], photos[:4:2].flip(3) / 255)
    torch.testing.assert_close(views[1::2], photos[1:4:2] / 255)


def test_view_areas_are_not_scaled_by_the_strength():
    weak, strong = (draw(Augment(strength=s), 500, 300, 400, seeded(0), areas=(0.05, 0.14)).crop for s in (1.0, 2.0))
    assert torch.equal(weak, strong)
