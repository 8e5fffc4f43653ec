"""The images of a prepared data set for evaluation: resized and center-cropped, or one by one as they are."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from issl.data.arrays import Arrays
from issl.errors import UserError
from issl.spec.encoding import Encoding
from issl.views import augment, decode


@dataclass(frozen=True)
class Stored:
    """The images of a data set in memory, in the place of the files of one that is only listed."""

    images: np.ndarray  # (N, H, W, 3) uint8
    size: int  # of the center crop, in pixels
    resize: int  # shorter side before the center crop, in pixels

    def pixels(self, row: int) -> np.ndarray:
        """An image, (H, W, 3) uint8."""
        return np.array(self.images[row])


def batches(arrays: Arrays, encoding: Encoding, rows: range, workers: int) -> Iterator[Tensor]:
    """The images of these rows, in order: (B, S, S, 3) uint8 with B the encoding's batch size, the last one shorter.

    Memory holds a few batches; `workers` processes decode files. Raises UserError if one cannot be decoded.
    """
    parts = [rows[start : start + encoding.batch_size] for start in range(0, len(rows), encoding.batch_size)]
    if are_files(arrays):
        yield from decode.squares(of_files(arrays, encoding), parts, workers)
        return
    as_they_are = arrays.images.shape[1:3] == (encoding.crop, encoding.crop) == (encoding.resize, encoding.resize)
    for part in parts:
        images = arrays.images[part.start : part.stop]
        yield torch.from_numpy(images.copy()) if as_they_are else central_squares(images, encoding)


def are_files(arrays: Arrays) -> bool:
    """Whether a data set is only listed: its images are names of files."""
    return arrays.images.dtype.kind == "S"


def of_files(arrays: Arrays, encoding: Encoding) -> decode.Photos:
    """The files of a data set that is only listed. Raises UserError if they are missing."""
    root = Path(encoding.data.path)
    if not (root / os.fsdecode(arrays.images[0])).exists():
        raise UserError(f"{root}: the images are not there: set `path` of this data set to their folder")
    return decode.Photos(root, np.array(arrays.images), encoding.crop, encoding.resize)


def one_by_one(arrays: Arrays, encoding: Encoding, workers: int) -> tuple[decode.Pixels, int]:
    """The images of a data set, to be read one by one, and how many processes should read them.

    Files take `workers`. Those in memory take none: a process would get a copy of them all where it cannot be forked.
    """
    if are_files(arrays):
        return of_files(arrays, encoding), workers
    return Stored(arrays.images, encoding.crop, encoding.resize), 0


def central_squares(images: Sequence[np.ndarray], encoding: Encoding) -> Tensor:
    """Center crops of images in memory, (n, H, W, 3) uint8 -> (n, S, S, 3) uint8."""
    squares = [decode.central_square(np.array(image), encoding.resize, encoding.crop) for image in images]
    return torch.from_numpy(np.stack(squares))


def inputs(squares: Tensor, device: torch.device) -> Tensor:
    """What encoders take: (n, S, S, 3) uint8 -> (n, 3, S, S) float32 on the device, normalised."""
    return augment.clean(squares.to(device, non_blocking=True).permute(0, 3, 1, 2))
