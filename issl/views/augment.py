"""The SimCLR views: drawn per image on the CPU, computed for a whole batch on the images' device.

Written here because it is 2.5 times as fast as torchvision on PIL images and 2.35 times as kornia on batches
(docs/performance.md), and resumes to the same views.

The reference is torchvision's pipeline on PIL images: RandomResizedCrop (bicubic), RandomHorizontalFlip, ColorJitter,
RandomGrayscale and GaussianBlur, in this order. This follows it operation by operation, with one difference: PIL
returns to 8 bits after each operation, mostly by truncation, and this stays in float32. A view is therefore about one
level of 255 brighter on average (bounded in `tests/views/test_augment.py`).

Random numbers and arithmetic are separate. `draw` returns all random numbers of a batch as small CPU tensors, so a seed
gives the same views on every device, and the CPU knows which images each operation applies to: nothing here waits for a
GPU.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from issl.spec.augment import Augment
from issl.spec.shape import MEAN, STD
from issl.views.blur import BLURS, SIGMAS, separable
from issl.views.random import send

ASPECT_RATIOS = (3 / 4, 4 / 3)
CROP_TRIES = 10
LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # ITU-R 601 in the fixed point of PIL's convert("L")
CPU_PIXELS = 2**19  # per channel and step on a CPU: 128 images of 64 px, whose copies stay in the cache


@dataclass(frozen=True)
class Draws:
    """The random numbers of n views, all on the CPU; ``draws[2:5]`` are those of three views."""

    crop: Tensor  # (n, 4) int64: top, left, height, width in pixels
    flip: Tensor  # (n,) bool
    jitter: Tensor  # (n,) bool: whether the four colour operations are applied
    brightness: Tensor  # (n,) float32 factors, 1 changes nothing
    contrast: Tensor  # (n,)
    saturation: Tensor  # (n,)
    hue: Tensor  # (n,) float32 shift in turns, 0 changes nothing
    order: Tensor  # (n, 4) int64: which operation comes first, second ...; 0 is brightness and 3 is hue, as above
    gray: Tensor  # (n,) bool
    blur: Tensor  # (n,) bool
    sigma: Tensor  # (n,) float32, of the blur, in pixels

    def __len__(self) -> int:
        return len(self.crop)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw(
    augment: Augment,
    n: int,
    height: int,
    width: int,
    generator: torch.Generator,
    areas: tuple[float, float] | None = None,
) -> Draws:
    """Draws n views of images of height x width pixels.

    Everything is drawn whether or not it is used, so specs that differ in strength or blur share the random numbers of
    their crops and flips. Ranges are those of the released code, scaled by `augment.strength`.

    Args:
        generator: on the CPU; advanced by the same amount for every spec.
        areas: smallest and largest crop, as fractions of the image; by default the spec's, scaled.

    Raises:
        RuntimeError: the generator is not on the CPU.
    """

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    def chance(probability: float) -> Tensor:
        return torch.rand(n, generator=generator) < probability

    spread = augment.jitter * augment.strength
    factors = max(0.0, 1 - spread), 1 + spread
    shift = augment.hue * augment.strength
    return Draws(
        crop=_draw_crops(areas or (augment.min_area / augment.strength, 1.0), n, height, width, generator),
        flip=chance(augment.flip_p),
        jitter=chance(augment.jitter_p),
        brightness=uniform(*factors),
        contrast=uniform(*factors),
        saturation=uniform(*factors),
        hue=uniform(-shift, shift),
        order=torch.rand(n, 4, generator=generator).argsort(1),
        gray=chance(augment.gray * augment.strength),
        blur=chance(augment.blur_p if augment.blur else 0.0),
        sigma=uniform(*SIGMAS),
    )


def _draw_crops(areas: tuple[float, float], n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """torchvision's RandomResizedCrop.get_params for n images: (n, 4) int64, top, left, height, width."""
    area, ratio, top, left = torch.rand(4, n, CROP_TRIES, generator=generator, dtype=torch.float64)
    area = height * width * (areas[0] + (areas[1] - areas[0]) * area)
    low, high = map(math.log, ASPECT_RATIOS)
    ratio = torch.exp(low + (high - low) * ratio)

    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()  # (n, tries)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    tops, lefts = (top * (height - heights + 1)).floor(), (left * (width - widths + 1)).floor()
    boxes = torch.stack([tops, lefts, heights, widths], -1).long()  # (n, tries, 4)

    first = fits.int().argmax(1)  # the first try that fits, or 0 if none does
    chosen = boxes[torch.arange(n), first]
    return torch.where(fits.any(1, keepdim=True), chosen, torch.tensor(_fallback_crop(height, width)))


def _fallback_crop(height: int, width: int) -> tuple[int, int, int, int]:
    """The largest central box of an allowed aspect ratio: the whole image if its own ratio is allowed."""
    low, high = ASPECT_RATIOS
    box_height = min(height, round(width / low))
    box_width = min(width, round(height * high))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


# --- computing -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def apply(images: Tensor, draws: Draws, kernel: str = "tenth") -> Tensor:
    """Computes the views, in the size of the images.

    Args:
        images: (n, 3, H, W) uint8, on any device.
        draws: n draws for images of H x W.
        kernel: of the blur, as in `Augment.blur_kernel`.

    Returns:
        (n, 3, H, W) float32 in [0, 1] on the device of the images, even under autocast.

    Raises:
        ValueError: the images are not (n, 3, H, W) uint8, or their number is not that of the draws.
    """
    return _computed(_views, images, draws, kernel)


@torch.no_grad()
def color_and_blur(crops: Tensor, draws: Draws, kernel: str = "tenth") -> Tensor:
    """`apply` without the cropping: mirrors, recolours and blurs crops."""
    return _computed(_developed, crops, draws, kernel)


Compute = Callable[[Tensor, Draws, str], Tensor]


def _computed(compute: Compute, images: Tensor, draws: Draws, kernel: str) -> Tensor:
    """Computes the whole batch at once on a GPU, and parts that fit into the cache on a CPU."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"views need uint8 images of shape (n, 3, H, W), not {images.dtype} of {tuple(images.shape)}")
    if len(images) != len(draws):
        raise ValueError(f"{len(images)} images, but {len(draws)} draws: give one for each")
    with torch.autocast(images.device.type, enabled=False):  # products in half precision would lose grey levels
        if images.device.type != "cpu":
            return compute(images, draws, kernel)
        views = torch.empty(images.shape)
        step = max(1, CPU_PIXELS // images[0, 0].numel()) if len(images) else 1
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            views[part] = compute(images[part], draws[part], kernel)
        return views


def _views(images: Tensor, draws: Draws, kernel: str) -> Tensor:
    """`apply` on the whole batch at once, without synchronising with the device."""
    top, left, box_height, box_width, flip, *adjustments = _numbers(draws, images.device)
    rows = _crop_matrices(top, box_height, images.shape[2])
    cols = _crop_matrices(left, box_width, images.shape[3])
    cols = torch.where(flip[:, None, None] > 0, cols.flip(1), cols)
    return _recoloured(separable(images / 255, rows, cols), draws, adjustments, kernel)


def _developed(crops: Tensor, draws: Draws, kernel: str) -> Tensor:
    """`color_and_blur` on the whole batch at once."""
    *_, flip, brightness, contrast, saturation, hue, sigma = _numbers(draws, crops.device)
    views = crops / 255
    views = torch.where(flip[:, None, None, None] > 0, views.flip(3), views)
    return _recoloured(views, draws, [brightness, contrast, saturation, hue, sigma], kernel)


def _recoloured(views: Tensor, draws: Draws, amounts: Sequence[Tensor], kernel: str) -> Tensor:
    """Recolours and blurs in place; `amounts` are those of the four colour operations and of the blur, (n,) each."""
    *adjustments, sigma = amounts
    # a grayscale image is one of saturation 0
    operations = (*4 * ADJUSTMENTS, adjust_saturation, BLURS[kernel])
    amounts = (*4 * adjustments, torch.zeros_like(sigma), sigma)
    for operation, amount, members in zip(operations, amounts, _selections(draws, views.device)):
        if len(members):
            amount = amount.index_select(0, members)[:, None, None, None]
            views.index_copy_(0, members, operation(views.index_select(0, members), amount))
    return views


def _numbers(draws: Draws, device: torch.device) -> tuple[Tensor, ...]:
    """The numeric draws on the device, in one transfer: ten (n,) float32."""
    hue = (draws.hue * 255).trunc() / 255  # torchvision shifts the 8-bit hue of PIL by whole steps
    columns = (*draws.crop.unbind(1), draws.flip, draws.brightness, draws.contrast, draws.saturation, hue, draws.sigma)
    return send(torch.stack([column.float() for column in columns]), device).unbind()


def _selections(draws: Draws, device: torch.device) -> tuple[Tensor, ...]:
    """Indices of the images in each of the 4 x 4 colour steps, the grayscale and the blur, in one transfer: int64."""
    steps = [draws.jitter & (draws.order[:, step] == operation) for step in range(4) for operation in range(4)]
    members = [chosen.nonzero()[:, 0] for chosen in (*steps, draws.gray, draws.blur)]
    return send(torch.cat(members), device).split([len(some) for some in members])


# --- geometry --------------------------------------------------------------------------------------------------------


def _crop_matrices(start: Tensor, length: Tensor, size: int) -> Tensor:
    """(n, size, size) weights that stretch ``length`` pixels from ``start``, both (n,), over the whole side.

    This is PIL's bicubic resampling of the cropped image: only pixels inside the crop count, and their weights sum to
    one. A crop never exceeds the side, so it is never shrunk: four taps suffice, without antialiasing.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixels = torch.arange(size, device=start.device)[:, None]
    centre = (pixels + 0.5) * (length / size)  # (n, size, 1) in the coordinates of the crop, as are the taps
    taps = (centre - 0.5).floor() + torch.arange(-1, 3, device=start.device)  # (n, size, 4)
    weights = _bicubic(taps + 0.5 - centre).masked_fill_((taps < 0) | (taps >= length), 0)
    weights /= weights.sum(-1, keepdim=True)
    # taps outside the image, at most two per side, write their zeros to margins that are cut off
    matrices = weights.new_zeros(len(start), size, size + 4)
    return matrices.scatter_(2, (start + taps + 2).long(), weights)[..., 2:-2]


def _bicubic(x: Tensor) -> Tensor:
    """The cubic convolution kernel (Keys, 1981) with a = -0.5, as in PIL, for |x| <= 2."""
    x = x.abs()
    return torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2)


# --- colour: (n, 3, H, W) in [0, 1] and (n, 1, 1, 1) to (n, 3, H, W) in [0, 1] ---------------------------------------


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with black."""
    return (images * factor).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean grey level, which PIL rounds."""
    mean = _luma(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp((mean * 255 + 0.5).floor() / 255, images, factor).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the grayscale image."""
    return torch.lerp(_luma(images), images, factor).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shifts the hue of HSV by ``shift`` turns; value and chroma, and hence saturation, stay the same."""
    red, green, blue = images.unbind(1)  # (n, H, W)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    is_red, is_green = value == red, value == green
    within = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    # not torch.where, which would copy these numbers to a GPU and wait
    sector = torch.full_like(value, 2 / 3).masked_fill_(is_green, 1 / 3).masked_fill_(is_red, 0)
    hue = within / (6 * chroma).clamp_min_(1e-6) + sector + shift[:, 0]  # in turns; any number where chroma is 0

    # a channel is lowest within 1/6 turn of its complementary hue, and highest beyond 1/3 turn
    complements = (2 * torch.arange(3, device=images.device) - 3)[:, None, None] / 6  # cyan, magenta, yellow
    away = hue[:, None] - complements  # (n, 3, H, W)
    away = (away - away.round()).abs_()
    lack = away.mul_(-6).add_(2).clamp_(0, 1)
    return value[:, None] - lack.mul_(chroma[:, None])


def _luma(images: Tensor) -> Tensor:
    """(n, 1, H, W) grey levels."""
    red, green, blue = images.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)  # numbered as in Draws.order


# --- inputs of the encoder -------------------------------------------------------------------------------------------


@torch.no_grad()
def normalize(images: Tensor) -> Tensor:
    """Standardises the channels with the mean and standard deviation of ImageNet.

    Args:
        images: (n, 3, H, W), uint8 or float in [0, 1].

    Returns:
        (n, 3, H, W) float32, channels_last, the fast format for convolutions.
    """
    scale = 1 / 255 if images.dtype == torch.uint8 else 1.0
    normalized = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    for channel, (mean, std) in enumerate(zip(MEAN, STD)):  # numbers: a tensor would have to be copied first
        normalized[:, channel] = images[:, channel] * (scale / std) - mean / std
    return normalized


def random_views(
    images: Tensor, number: int, augment: Augment, generator: torch.Generator, shares: int = 1, share: int = 0
) -> Tensor:
    """Independently drawn, normalised views of each image.

    Args:
        images: (n, 3, H, W) uint8, on any device.
        number: V, of views of each image.
        generator: on the CPU.
        shares: number of equal parts of the batch; these images are one part, and get the views of the whole batch.
        share: index of the part, from 0.

    Returns:
        (V n, 3, H, W) float32, channels_last, on the device of the images, view by view.

    Raises:
        ValueError: the images are not (n, 3, H, W) uint8.
    """
    copies = torch.cat([images] * number)
    height, width = images.shape[-2:]
    draws = draw(augment, shares * len(copies), height, width, generator)
    if shares > 1:
        first = share * len(images) + torch.arange(len(images))
        draws = draws[torch.cat([first + view * shares * len(images) for view in range(number)])]
    return normalize(apply(copies, draws, augment.blur_kernel))


def two_views(images: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """`random_views` with two views of each image: rows 0 to n-1 are x, the others x_tilde."""
    return random_views(images, 2, augment, generator)


def clean(images: Tensor) -> Tensor:
    """The images for evaluation: only normalised."""
    return normalize(images)
