"""Decodes photographs on demand in worker processes: random crops for training, central squares for evaluation.

Memory holds only a few chunks of images. A view depends only on the seed, the epoch and the row of its image, not on
the number of processes or the batch of the image.
"""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from issl.data.arrays import Arrays
from issl.data.jpeg import decode
from issl.errors import UserError
from issl.spec.augment import Augment, Crops
from issl.spec.data import ImageNet
from issl.views import augment
from issl.views.augment import Draws
from issl.views.random import generator

CHUNK = 32  # images that a worker process decodes at a time


class Pixels(Protocol):
    """Images that are read one by one."""

    size: int  # of the center crop, in pixels
    resize: int  # shorter side before the center crop, in pixels

    def pixels(self, row: int) -> np.ndarray:
        """An image in full resolution, (H, W, 3) uint8."""


@dataclass(frozen=True)
class Photos:
    """The files of a data set that is only listed."""

    root: Path
    files: np.ndarray  # (N,) names relative to the root, in bytes
    size: int  # of the center crop, in pixels
    resize: int  # shorter side before the center crop, in pixels

    def pixels(self, row: int) -> np.ndarray:
        """An image in full resolution, (H, W, 3) uint8. Raises UserError if it cannot be decoded."""
        return decode(self.root / os.fsdecode(self.files[row]))


def of(arrays: Arrays, data: ImageNet) -> Photos:
    """The photographs of a prepared list. Raises UserError if they are not in `data.path`."""
    root = Path(data.path)
    if not (root / os.fsdecode(arrays.images[0])).exists():
        raise UserError(f"{root}: the images are not there: set `path` of this data set to their folder")
    return Photos(root, np.array(arrays.images), data.image_size, data.resize)


# --- one image -------------------------------------------------------------------------------------------------------


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resampling with antialiasing, (H, W, 3) -> (height, width, 3) uint8.

    Equals Pillow's up to one or two of 255 levels in a few values.
    """
    channels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(channels, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def central_square(image: np.ndarray, resize: int, size: int) -> np.ndarray:
    """torchvision's Resize(resize) and CenterCrop(size), (H, W, 3) -> (size, size, 3) uint8."""
    short = min(image.shape[:2])
    image = resized(image, *(int(resize * side / short) for side in image.shape[:2]))
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def crop(image: np.ndarray, box: Sequence[int], size: int) -> np.ndarray:
    """The box (top, left, height, width) of an image, resized to (size, size, 3) uint8."""
    top, left, height, width = box
    return resized(image[top : top + height, left : left + width], size, size)


# --- many images -----------------------------------------------------------------------------------------------------


class Views(NamedTuple):
    """Views of one resolution of b images: the crops, and the draws for mirroring and recolouring them."""

    images: Tensor  # (V, b, 3, S, S) uint8
    draws: Draws  # of the V b views, view by view


class CropRequest(NamedTuple):
    """Rows of images, and the purpose, seed and epoch of their random views."""

    rows: Sequence[int]
    purpose: str
    seed: int
    epoch: int


def central_squares(photos: Pixels, rows: Sequence[int], workers: int, pin: bool = False) -> Iterator[Tensor]:
    """Center crops of these rows for evaluation, in order: (b, S, S, 3) uint8, b at most `CHUNK`.

    `workers` processes decode, or this one for 0. Raises UserError for a file that cannot be decoded.
    """
    return squares(photos, (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)), workers, pin)


def squares(photos: Pixels, chunks: Iterable[Sequence[int]], workers: int, pin: bool = False) -> Iterator[Tensor]:
    """`central_squares` of given chunks of rows: one tensor per chunk."""
    return _made(partial(_squares, photos), chunks, workers, pin)


def crops(
    photos: Pixels, spec: Augment, wanted: Iterable[CropRequest], workers: int, pin: bool = False
) -> Iterator[list[Views]]:
    """Random views: for each of `wanted`, in order, a list with an entry for each of `spec.views`.

    Otherwise like `central_squares`. `wanted` may be infinite; it is read a few entries ahead.
    """
    for groups in _made(partial(_crops, photos, spec), wanted, workers, pin):
        yield [Views(images, _received(draws)) for images, draws in groups]


def mirrored_crops(
    photos: Pixels, min_area: float, wanted: Iterable[CropRequest], workers: int, pin: bool = False
) -> Iterator[Tensor]:
    """One random crop of each image, resized to the center crop's size and randomly mirrored: (n, S, S, 3) uint8 for
    each of `wanted`, in order. Otherwise like `crops`; torchvision's RandomResizedCrop and RandomHorizontalFlip.
    """
    return _made(partial(_mirrored_crops, photos, min_area), wanted, workers, pin)


def joined(chunks: Sequence[Views], device: torch.device) -> tuple[Tensor, Draws]:
    """Joins the chunks of a batch, view by view: (V B, 3, S, S) uint8 on the device, and V B draws."""
    images = torch.cat([chunk.images.to(device, non_blocking=True) for chunk in chunks], 1).flatten(0, 1)
    number = len(chunks[0].images)
    draws = {
        field.name: torch.cat([getattr(chunk.draws, field.name).unflatten(0, (number, -1)) for chunk in chunks], 1)
        for field in fields(Draws)
    }
    return images, Draws(**{name: values.flatten(0, 1) for name, values in draws.items()})


def _squares(photos: Pixels, rows: Sequence[int]) -> Tensor:
    images = torch.empty(len(rows), photos.size, photos.size, 3, dtype=torch.uint8)
    for image, row in zip(images.numpy(), rows):
        image[:] = central_square(photos.pixels(row), photos.resize, photos.size)
    return images


def _crops(photos: Pixels, spec: Augment, wanted: CropRequest) -> list[tuple[Tensor, dict[str, np.ndarray]]]:
    n = len(wanted.rows)
    images = [torch.empty(g.number, n, 3, g.size, g.size, dtype=torch.uint8) for g in spec.views]
    draws: list[list[Draws]] = [[] for _ in spec.views]
    for place, row in enumerate(wanted.rows):
        photo = photos.pixels(row)
        random = generator(wanted.purpose, wanted.seed, wanted.epoch, row)
        for group, target, drawn in zip(spec.views, images, draws):
            drawn.append(_cut(photo, spec, group, random, target[:, place].numpy()))
    return [(views, _sent(drawn)) for views, drawn in zip(images, draws)]


def _mirrored_crops(photos: Pixels, min_area: float, wanted: CropRequest) -> Tensor:
    images = torch.empty(len(wanted.rows), photos.size, photos.size, 3, dtype=torch.uint8)
    for image, row in zip(images.numpy(), wanted.rows):
        photo = photos.pixels(row)
        random = generator(wanted.purpose, wanted.seed, wanted.epoch, row)
        draws = augment.draw(Augment(), 1, *photo.shape[:2], random, (min_area, 1.0))
        view = crop(photo, draws.crop[0].tolist(), photos.size)
        image[:] = view[:, ::-1] if draws.flip[0] else view
    return images


def _cut(photo: np.ndarray, spec: Augment, group: Crops, random: torch.Generator, views: np.ndarray) -> Draws:
    """Writes the views of one photograph, (V, 3, S, S), and returns their draws."""
    draws = augment.draw(spec, group.number, *photo.shape[:2], random, (group.min_area, group.max_area))
    for view, box in zip(views, draws.crop.tolist()):
        view[:] = crop(photo, box, group.size).transpose(2, 0, 1)  # a plain copy in memory order
    return draws


# Between processes each small tensor costs a file descriptor; arrays do not.


def _sent(draws: list[Draws]) -> dict[str, np.ndarray]:
    """The draws of b images, V views each, as arrays of V b rows, view by view."""
    names = [field.name for field in fields(Draws)]
    return {name: torch.stack([getattr(d, name) for d in draws], 1).flatten(0, 1).numpy() for name in names}


def _received(draws: dict[str, np.ndarray]) -> Draws:
    return Draws(**{name: torch.from_numpy(values) for name, values in draws.items()})


# --- worker processes ------------------------------------------------------------------------------------------------


class _Making(Dataset):
    """Answers requests; a UserError comes back as its message, which DataLoader would bury in a traceback."""

    def __init__(self, make: Callable[[Any], Any]):
        self.make = make

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.make(request)
        except UserError as error:
            return str(error)


def _made(make: Callable[[Any], Any], requests: Iterable[Any], workers: int, pin: bool) -> Iterator[Any]:
    loader = DataLoader(
        _Making(make),
        sampler=requests,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # DataLoader draws worker seeds from it, and must not advance the global one
    )
    if workers:
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)
    for answer in loader:
        if isinstance(answer, str):
            raise UserError(answer)
        yield answer


def _as_it_is(answer: Any) -> Any:
    return answer


def _begin_worker(number: int) -> None:
    # Schedulers and terminals signal all processes: training must save a checkpoint before its workers end.
    for wish in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(wish, signal.SIG_IGN)


def _end_workers() -> None:
    """Kills workers at exit: multiprocessing would send SIGTERM, which they ignore, and wait forever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # DataLoader's handler would report a failed worker
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
