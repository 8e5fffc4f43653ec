"""Generated grey images with something to learn: a class is a pair of gratings, at any phase.

The class is what two augmented views of an image have most in common, so each method finds it in seconds. DISSL needs
that: near its uniform start it amplifies the features that are most alike in two views. Where those are nuisances, such
as an image's colour or brightness, it sorts the images by them. The range of brightness here is therefore narrow.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from issl.data.arrays import Content, Rows
from issl.spec.data import Synthetic

WAVELENGTHS = 0.3, 0.9  # in half-sides of the image
TURN = 0.1  # radians; an image's gratings differ by up to this from those of its class
STRETCH = 0.1  # logarithm, likewise
CONTRAST, CONTRAST_RANGE = 0.4, 0.05  # the range is of its logarithm
BRIGHTNESS_RANGE = 0.15
NOISE = 0.03  # standard deviation for each pixel and channel


def read(spec: Synthetic, progress: bool = False) -> Content:
    """Images of ``spec.classes`` classes, drawn separately for train and test.

    The gratings of a class depend only on its number. Image k of a class depends only on the seed, the split, the class
    and k: not on the counts or the number of processes.
    """
    counts = np.repeat([spec.train_per_class, spec.test_per_class], spec.classes)
    labels = np.repeat(np.tile(np.arange(spec.classes), 2), counts)
    return Content(
        labels=labels,
        splits={"train": spec.classes * spec.train_per_class, "test": spec.classes * spec.test_per_class},
        classes=[f"class{number:02d}" for number in range(spec.classes)],
        image_size=spec.image_size,
        open=partial(_open, spec, labels),
        source={"drawn": "issl.data.datasets.synthetic"},
    )


def _open(spec: Synthetic, labels: np.ndarray) -> Rows:
    n_train = spec.classes * spec.train_per_class

    def rows(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, spec.image_size, spec.image_size, 3), np.uint8)
        for row in range(start, stop):
            split = int(row >= n_train)
            number = (row - split * n_train) % (spec.test_per_class if split else spec.train_per_class)
            label = int(labels[row])
            images[row - start] = draw(label, spec.image_size, seed=(spec.seed, split, label, number))
        return images

    return rows


def gratings(label: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles in radians and wavelengths in half-sides of a class's two gratings: (2,), (2,)."""
    random = np.random.default_rng(label)
    low, high = np.log(WAVELENGTHS)
    return random.uniform(0, math.pi, 2), np.exp(random.uniform(low, high, 2))


def draw(label: int, size: int, seed: Sequence[int]) -> np.ndarray:
    """One image of a class: (size, size, 3) uint8, each channel the same pattern with noise of its own.

    Half of the images are mirrored, so that the flips of an augmentation change no class.
    """
    random = np.random.default_rng(seed)
    angles, wavelengths = gratings(label)
    mirror = random.choice([-1, 1])
    angles = mirror * (angles + random.uniform(-TURN, TURN))
    wavelengths = wavelengths * np.exp(random.uniform(-STRETCH, STRETCH))
    phases = random.uniform(0, 2 * math.pi, 2)
    axis = (np.arange(size) + 0.5) / size * 2 - 1  # pixel centres, from -1 to 1
    y, x = axis[:, None, None], axis[None, :, None]  # (size, size, 2 gratings) with the numbers above
    waves = np.sin(2 * math.pi * (x * np.cos(angles) + y * np.sin(angles)) / wavelengths + phases)
    pattern = waves.sum(-1, keepdims=True) / 1.4  # (size, size, 1)
    contrast = CONTRAST * np.exp(random.uniform(-CONTRAST_RANGE, CONTRAST_RANGE))
    brightness = 0.5 + random.uniform(-BRIGHTNESS_RANGE, BRIGHTNESS_RANGE)
    image = brightness + contrast * pattern + NOISE * random.standard_normal((size, size, 3))
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
