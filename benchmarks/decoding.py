"""Photographs of ImageNet's size that a core decodes, crops and resizes in a second, beside Pillow with torchvision."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import CenterCrop, Compose, RandomResizedCrop, Resize

from benchmarks.measure import Row, compared, take_turns
from issl.spec.augment import Augment, Crops
from issl.views import decode

IMAGES, HEIGHT, WIDTH, QUALITY, TO_REACH = 64, 375, 500, 97, 1.0  # files of about 100 KB, as ImageNet has them
SMALL = {"size": 96, "min_area": 0.05, "max_area": 0.14}
VIEWS = {
    "m2": [Crops(number=2, size=224, min_area=0.08)],
    "m6": [Crops(number=2, size=160, min_area=0.14), Crops(number=4, **SMALL)],
    "m8": [Crops(number=2, size=224, min_area=0.14), Crops(number=6, **SMALL)],
}
ROWS = {
    name: Row(
        f"decode_{name}", "images/s of a core", f"ratio >= {TO_REACH}", "Pillow with torchvision's crops; no colours"
    )
    for name in ("central", *VIEWS)
}
NAMES = tuple(row.name for row in ROWS.values())


def images(rounds: int) -> list[Row]:
    """In this process alone, by its processor time: other work on the machine does not count."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files, kilobytes = _drawn(Path(folder))
        listed = decode.Photos(Path(folder), np.array([file.name.encode() for file in files]), 224, 256)
        contenders = {"central": (partial(_squares, listed), Compose([Resize(256), CenterCrop(224)]))}
        for name, views in VIEWS.items():
            crops = [RandomResizedCrop(v.size, (v.min_area, v.max_area)) for v in views for _ in range(v.number)]
            contenders[name] = (partial(_crops, listed, Augment(views=views)), *crops)
        return [_compared(ROWS[name], files, kilobytes, rounds, *both) for name, both in contenders.items()]


def _compared(row: Row, files: list[Path], kilobytes: float, rounds: int, ours: Callable[[], None], *peer) -> Row:
    mine, theirs = take_turns(partial(_rate, ours), partial(_rate, partial(_pillow, files, peer)), rounds=rounds)
    return compared(row, mine, theirs, TO_REACH, images=len(files), kilobytes=kilobytes)


def _rate(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return IMAGES / (time.process_time() - started)


def _squares(listed: decode.Photos) -> None:
    for _ in decode.central_squares(listed, range(IMAGES), workers=0):
        pass


def _crops(listed: decode.Photos, spec: Augment) -> None:
    for _ in decode.crops(listed, spec, [decode.CropRequest(range(IMAGES), "augment", 0, 0)], workers=0):
        pass


def _pillow(files: list[Path], transforms: tuple[Callable[[Image.Image], Image.Image], ...]) -> None:
    for file in files:
        picture = pil_loader(file)
        for transform in transforms:
            np.asarray(transform(picture))


def _drawn(folder: Path) -> tuple[list[Path], float]:
    """Pictures with structure at every scale, as photographs have it, and the mean size of their files."""
    random = np.random.default_rng(0)
    files = [folder / f"{number:03d}.JPEG" for number in range(IMAGES)]
    for file in files:
        picture = np.zeros((HEIGHT, WIDTH, 3))
        for grain in (1, 2, 8, 32, 128):
            low = random.normal(128, 30, (HEIGHT // grain + 1, WIDTH // grain + 1, 3)).clip(0, 255).astype(np.uint8)
            whole = Image.fromarray(low).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            picture += (np.asarray(whole) - 128.0) * grain**0.5
        picture = 128 + 50 * picture / picture.std()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, quality=QUALITY)
    return files, mean(file.stat().st_size for file in files) / 1000
