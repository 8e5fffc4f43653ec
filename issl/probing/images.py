"""The images of a prepared data set for evaluation: resized and center-cropped."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from issl.data.arrays import Arrays
from issl.errors import UserError
from issl.spec.encoding import Encoding
from issl.views import decode


def batches(arrays: Arrays, encoding: Encoding, rows: range, workers: int) -> Iterator[Tensor]:
    """The images of these rows, in order: (B, S, S, 3) uint8 with B the encoding's batch size, the last one shorter.

    Memory holds a few batches; `workers` processes decode files. Raises UserError if one cannot be decoded.
    """
    parts = [rows[start : start + encoding.batch_size] for start in range(0, len(rows), encoding.batch_size)]
    if arrays.images.dtype.kind == "S":  # names of files
        yield from decode.squares(of_files(arrays, encoding), parts, workers)
        return
    as_they_are = arrays.images.shape[1:3] == (encoding.crop, encoding.crop) == (encoding.resize, encoding.resize)
    for part in parts:
        images = arrays.images[part.start : part.stop]
        yield torch.from_numpy(images.copy()) if as_they_are else central_squares(images, encoding)


def of_files(arrays: Arrays, encoding: Encoding) -> decode.Photos:
    """The files of a data set that is only listed. Raises UserError if they are missing."""
    root = Path(encoding.data.path)
    if not (root / os.fsdecode(arrays.images[0])).exists():
        raise UserError(f"{root}: the images are not there: set `path` of this data set to their folder")
    return decode.Photos(root, np.array(arrays.images), encoding.crop, encoding.resize)


def central_squares(images: Sequence[np.ndarray], encoding: Encoding) -> Tensor:
    """Center crops of images in memory, (n, H, W, 3) uint8 -> (n, S, S, 3) uint8."""
    squares = [decode.central_square(np.array(image), encoding.resize, encoding.crop) for image in images]
    return torch.from_numpy(np.stack(squares))
