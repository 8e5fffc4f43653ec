"""Photographs decoded when they are needed, on processes of their own: crops to train on, central squares to evaluate.

Nothing here holds more than a few chunks of images. What a view shows is a function of the seed, the epoch and the row
of its image alone: neither of the number of processes, nor of the batch that the image is in.
"""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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

CHUNK = 32  # images that a worker process gives at a time


@dataclass(frozen=True)
class Photos:
    """The files of a data set that is only listed."""

    root: Path
    files: np.ndarray  # (N,) names below the root, in bytes
    size: int  # of the central square, in pixels
    resize: int  # the shorter side before that square is cut out

    def pixels(self, row: int) -> np.ndarray:
        """An image in full resolution, (H, W, 3) uint8. Raises UserError where it cannot be decoded."""
        return decode(self.root / self.files[row].decode())


def of(arrays: Arrays, data: ImageNet) -> Photos:
    """The photographs behind a prepared list. Raises UserError where they do not lie in `data.path`."""
    root = Path(data.path)
    if not (root / arrays.images[0].decode()).exists():
        raise UserError(f"{root}: the images are not there: set `path` of this data set to where they lie")
    return Photos(root, np.array(arrays.images), data.image_size, data.resize)


# --- one image -------------------------------------------------------------------------------------------------------


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resampling with antialiasing, (H, W, 3) -> (height, width, 3) uint8.

    Pillow's, but for a level or two of 255 in a few values.
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
    """Views of one resolution of b images: the crops, and what is still to be done to them, mirroring included."""

    images: Tensor  # (V, b, 3, S, S) uint8
    draws: Draws  # of the V b views, view by view


class CropRequest(NamedTuple):
    """Rows of images, and the position that their views are drawn for."""

    rows: Sequence[int]
    purpose: str
    seed: int
    epoch: int


def central_squares(photos: Photos, rows: Sequence[int], workers: int, pin: bool = False) -> Iterator[Tensor]:
    """The images of these rows as evaluation sees them, in order: (b, S, S, 3) uint8, b at most `CHUNK`.

    `workers` processes decode, or this one for 0. Raises UserError for a file that cannot be decoded.
    """
    return squares(photos, (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)), workers, pin)


def squares(photos: Photos, chunks: Iterable[Sequence[int]], workers: int, pin: bool = False) -> Iterator[Tensor]:
    """`central_squares` of chunks of rows: one tensor for each."""
    return _made(partial(_squares, photos), chunks, workers, pin)


def crops(
    photos: Photos, spec: Augment, wanted: Iterable[CropRequest], workers: int, pin: bool = False
) -> Iterator[list[Views]]:
    """Random views, a list entry for each of `spec.views`: one list for each of `wanted`, in order.

    As `central_squares` otherwise. `wanted` may be endless; it is read a few entries ahead.
    """
    for groups in _made(partial(_crops, photos, spec), wanted, workers, pin):
        yield [Views(images, _received(draws)) for images, draws in groups]


def mirrored_crops(
    photos: Photos, min_area: float, wanted: Iterable[CropRequest], workers: int, pin: bool = False
) -> Iterator[Tensor]:
    """One random crop of each image, mirrored or not, to the size of the central square: (n, S, S, 3) uint8 for each
    of `wanted`, in order. As `crops` otherwise; torchvision's RandomResizedCrop and RandomHorizontalFlip.
    """
    return _made(partial(_mirrored_crops, photos, min_area), wanted, workers, pin)


def joined(chunks: Sequence[Views], device: torch.device) -> tuple[Tensor, Draws]:
    """Chunks of a batch put together, view by view: (V B, 3, S, S) uint8 on the device, and V B draws."""
    images = torch.cat([chunk.images.to(device, non_blocking=True) for chunk in chunks], 1).flatten(0, 1)
    number = len(chunks[0].images)
    draws = {
        field.name: torch.cat([getattr(chunk.draws, field.name).unflatten(0, (number, -1)) for chunk in chunks], 1)
        for field in fields(Draws)
    }
    return images, Draws(**{name: values.flatten(0, 1) for name, values in draws.items()})


def _squares(photos: Photos, rows: Sequence[int]) -> Tensor:
    images = torch.empty(len(rows), photos.size, photos.size, 3, dtype=torch.uint8)
    for image, row in zip(images.numpy(), rows):
        image[:] = central_square(photos.pixels(row), photos.resize, photos.size)
    return images


def _crops(photos: Photos, spec: Augment, wanted: CropRequest) -> list[tuple[Tensor, dict[str, np.ndarray]]]:
    n = len(wanted.rows)
    images = [torch.empty(g.number, n, 3, g.size, g.size, dtype=torch.uint8) for g in spec.views]
    draws: list[list[Draws]] = [[] for _ in spec.views]
    for place, row in enumerate(wanted.rows):
        photo = photos.pixels(row)
        random = generator(wanted.purpose, wanted.seed, wanted.epoch, row)
        for group, target, drawn in zip(spec.views, images, draws):
            drawn.append(_cut(photo, spec, group, random, target[:, place].numpy()))
    return [(views, _sent(drawn)) for views, drawn in zip(images, draws)]


def _mirrored_crops(photos: Photos, min_area: float, wanted: CropRequest) -> Tensor:
    images = torch.empty(len(wanted.rows), photos.size, photos.size, 3, dtype=torch.uint8)
    for image, row in zip(images.numpy(), wanted.rows):
        photo = photos.pixels(row)
        random = generator(wanted.purpose, wanted.seed, wanted.epoch, row)
        draws = augment.draw(Augment(), 1, *photo.shape[:2], random, (min_area, 1.0))
        view = crop(photo, draws.crop[0].tolist(), photos.size)
        image[:] = view[:, ::-1] if draws.flip[0] else view
    return images


def _cut(photo: np.ndarray, spec: Augment, group: Crops, random: torch.Generator, views: np.ndarray) -> Draws:
    """Writes the views of one photograph, (V, 3, S, S), and gives what was drawn for them."""
    draws = augment.draw(spec, group.number, *photo.shape[:2], random, (group.min_area, group.max_area))
    for view, box in zip(views, draws.crop.tolist()):
        view[:] = crop(photo, box, group.size).transpose(2, 0, 1)  # as it lies in memory, a plain copy
    return draws


# Small tensors cost a file descriptor each between processes, arrays do not.


def _sent(draws: list[Draws]) -> dict[str, np.ndarray]:
    """The draws of b images, V views each, as arrays of V b rows, view by view."""
    names = [field.name for field in fields(Draws)]
    return {name: torch.stack([getattr(d, name) for d in draws], 1).flatten(0, 1).numpy() for name in names}


def _received(draws: dict[str, np.ndarray]) -> Draws:
    return Draws(**{name: torch.from_numpy(values) for name, values in draws.items()})


# --- worker processes ------------------------------------------------------------------------------------------------


class _Making(Dataset):
    """Answers requests; a mistake of the user comes back as its words, which DataLoader would bury in a traceback."""

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
        generator=torch.Generator(),  # it draws a seed for each worker, which must not move the global generator
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
    # Schedulers and terminals signal all processes: the training saves itself first, and its workers end with it.
    for wish in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(wish, signal.SIG_IGN)


def _end_workers() -> None:
    """At the end of this process: multiprocessing would send SIGTERM, to which they are deaf, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # DataLoader's handler takes a worker that ends for an accident
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
