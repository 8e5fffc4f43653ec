"""Generated images with something to learn: class is shape times texture; colour, place, size and clutter are nuisance.

Classes stay distinct under the SimCLR augmentations: a texture's kind does not change under crops, flips, colour
changes or grayscale, and the two colours of a texture differ in brightness. Simple pixel statistics (mean colours, sign
of the contrast, place of the object) say nothing about the class.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from issl.data.arrays import Content, Rows
from issl.spec.data import Synthetic

Field = np.ndarray  # (images, H, W) float32
PER_IMAGE = (slice(None), None, None)  # turns one number an image into a field

# Textures: +1 and -1 for the object's two colours. (u, v) are object coordinates in radians of the texture's wave,
# `tilt` in -1..1 turns it a little, `mirror` is +1 or -1.


def _stripes(angle: float) -> Callable[[Field, Field, Field, Field], Field]:
    def texture(u: Field, v: Field, tilt: Field, mirror: Field) -> Field:
        direction = mirror * angle + 0.2 * tilt
        return np.sin(np.cos(direction) * u + np.sin(direction) * v)

    return texture


def _rotated(u: Field, v: Field, angle: Field) -> tuple[Field, Field]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * u + sin * v, cos * v - sin * u


def _checks(u: Field, v: Field, tilt: Field, mirror: Field) -> Field:
    u, v = _rotated(u, v, 0.2 * tilt)
    return np.sin(0.8 * u) * np.sin(0.8 * v)


def _dots(u: Field, v: Field, tilt: Field, mirror: Field) -> Field:
    u, v = _rotated(u, v, 0.2 * tilt)
    return mirror * (np.cos(u) + np.cos(v) - 0.9)


def _rings(u: Field, v: Field, tilt: Field, mirror: Field) -> Field:
    return np.sin(np.hypot(u, v) + np.pi * tilt)


def _spokes(u: Field, v: Field, tilt: Field, mirror: Field) -> Field:
    return np.sin(6 * np.arctan2(v, u) + np.pi * tilt)


def _plain(u: Field, v: Field, tilt: Field, mirror: Field) -> Field:
    return np.broadcast_to(mirror, u.shape)


TEXTURES = (_stripes(0.0), _checks, _rings, _stripes(math.pi / 2), _dots, _stripes(math.pi / 4), _spokes, _plain)

# Shapes: positive inside. (x, y) are object coordinates; all shapes fill about the same area.


def _polygon(corners: int, x: Field, y: Field) -> Field:
    sector = 2 * np.pi / corners
    angle = (np.arctan2(x, -y) + sector / 2) % sector - sector / 2
    return 1.5 * math.cos(sector / 2) ** 0.7 - np.hypot(x, y) * np.cos(angle) * 1.15


def _disk(x: Field, y: Field) -> Field:
    return 1 - np.hypot(x, y)


def _cross(x: Field, y: Field) -> Field:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(0.42 - x, 1.25 - y), np.minimum(0.42 - y, 1.25 - x))


def _annulus(x: Field, y: Field) -> Field:
    return 0.3 - np.abs(np.hypot(x, y) - 0.9)


def _star(x: Field, y: Field) -> Field:
    return 0.95 + 0.35 * np.cos(5 * np.arctan2(x, -y)) - np.hypot(x, y)


def _bar(x: Field, y: Field) -> Field:
    return np.minimum(1.4 - np.abs(x), 0.55 - np.abs(y))


def _two_disks(x: Field, y: Field) -> Field:
    return 0.68 - np.hypot(np.abs(x) - 0.75, y)


SHAPES = (_disk, _cross, partial(_polygon, 3), _annulus, _star, partial(_polygon, 4), _bar, _two_disks)


def read(spec: Synthetic, progress: bool = False) -> Content:
    """Images of ``spec.classes`` classes, drawn separately for train and test.

    Image k of a class depends only on the seed, the split, the class and k: not on the counts or the number of
    processes.
    """
    classes = [f"class{number:02d}" for number in range(spec.classes)]
    counts = np.repeat([spec.train_per_class, spec.test_per_class], spec.classes)
    labels = np.repeat(np.tile(np.arange(spec.classes), 2), counts)
    return Content(
        labels=labels,
        splits={"train": spec.classes * spec.train_per_class, "test": spec.classes * spec.test_per_class},
        classes=classes,
        image_size=spec.image_size,
        open=partial(_open, spec, labels),
        source={"drawn": "issl.data.datasets.synthetic"},
    )


def _open(spec: Synthetic, labels: np.ndarray) -> Rows:
    n_train = spec.classes * spec.train_per_class

    def rows(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, spec.image_size, spec.image_size, 3), np.uint8)
        for split, first, last, per_class in (
            (0, start, min(stop, n_train), spec.train_per_class),
            (1, max(start, n_train), stop, spec.test_per_class),
        ):
            for label in np.unique(labels[first:last]):
                chosen = first + np.flatnonzero(labels[first:last] == label)
                numbers = (chosen - split * n_train) % per_class
                seeds = [(spec.seed, split, int(label), int(number)) for number in numbers]
                images[chosen - start] = _draw(int(label), spec.classes, spec.image_size, seeds)
        return images

    return rows


def _draw(label: int, classes: int, size: int, seeds: list[tuple[int, ...]]) -> np.ndarray:
    """Images of one class, one for each seed: (len(seeds), size, size, 3) uint8."""
    side = math.ceil(math.sqrt(classes))  # a square table of shapes and textures: neither alone determines the class
    shape, texture = SHAPES[label % side], TEXTURES[(label // side + label) % side]

    random = [np.random.default_rng(seed) for seed in seeds]
    numbers = iter(np.stack([r.random(48, np.float32) for r in random], axis=1))
    noise = np.stack([r.standard_normal((size, size, 3), np.float32) for r in random])

    def uniform(low: float, high: float) -> Field:
        return (low + (high - low) * next(numbers))[PER_IMAGE]

    def sign() -> Field:
        return np.where(next(numbers) < 0.5, -1, 1).astype(np.float32)[PER_IMAGE]

    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    column, row = axis[None, None, :], axis[None, :, None]

    # The object: its place, size, proportions and turn, and the wave of its texture, with a phase of its own.
    radius = uniform(0.45, 0.68)
    x, y = column - uniform(-0.3, 0.3), row - uniform(-0.3, 0.3)
    x, y = _rotated(x, y, uniform(-0.3, 0.3))
    x, y = x / (radius * uniform(0.9, 1.1)) * sign(), y / radius
    inside = shape(x, y) > 0
    wave = 2 * math.pi * radius / uniform(0.34, 0.5)
    u, v = x * wave + uniform(-1.5, 1.5), y * wave + uniform(-1.5, 1.5)
    pattern = texture(u, v, uniform(-1, 1), sign())

    # The background: waves of any direction, two of them, with the object's range of wavelengths.
    clutter = np.zeros_like(x)
    for _ in range(2):
        direction, length = uniform(0, 2 * math.pi), uniform(0.3, 0.9)
        along = np.cos(direction) * column + np.sin(direction) * row
        clutter = clutter + np.sin(along * (2 * math.pi / length) + uniform(0, 2 * math.pi))

    def colour() -> np.ndarray:
        return np.stack([next(numbers) for _ in range(3)], axis=-1)[:, None, None, :] - 0.5

    # Two colours for each of object and background, around one brightness, so that no mean gives them away.
    contrast = (sign() * uniform(0.14, 0.28))[..., None]
    ground = (sign() * uniform(0.04, 0.14))[..., None]
    object_colour = contrast * np.tanh(3 * pattern)[..., None] + 0.35 * colour()
    background = ground * np.tanh(2 * clutter)[..., None] + 0.35 * colour()
    light = 0.5 + uniform(-0.12, 0.12)[..., None]
    images = light + np.where(inside[..., None], object_colour, background) + 0.07 * noise
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
