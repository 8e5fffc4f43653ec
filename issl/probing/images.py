"""The images of a prepared data set as an evaluation sees them: resized, and the central square cut out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from issl.data.arrays import Arrays
from issl.errors import UserError
from issl.spec.protocol import Encoding
from issl.views import decode


def batches(arrays: Arrays, encoding: Encoding, rows: range, workers: int) -> Iterator[Tensor]:
    """The images of these rows, in order: (B, S, S, 3) uint8 with B the encoding's batch size, a shorter last one.

    Memory stays at a few batches; `workers` processes decode files. Raises UserError where one cannot be decoded.
    """
    parts = [rows[start : start + encoding.batch_size] for start in range(0, len(rows), encoding.batch_size)]
    if arrays.images.dtype.kind != "S":  # in memory, not in files
        yield from (central_squares(arrays.images[part.start : part.stop], encoding) for part in parts)
        return
    yield from decode.squares(of_files(arrays, encoding), parts, workers)


def of_files(arrays: Arrays, encoding: Encoding) -> decode.Photos:
    """The files of a data set that is only listed. Raises UserError where they are not there."""
    root = Path(encoding.data.path)
    if not (root / arrays.images[0].decode()).exists():
        raise UserError(f"{root}: the images are not there: set `path` of this data set to where they lie")
    return decode.Photos(root, np.array(arrays.images), encoding.crop, encoding.resize)


def central_squares(images: Sequence[np.ndarray], encoding: Encoding) -> Tensor:
    """Images of any size in memory, (n, H, W, 3) uint8 -> (n, S, S, 3) uint8."""
    squares = [decode.central_square(np.array(image), encoding.resize, encoding.crop) for image in images]
    return torch.from_numpy(np.stack(squares))
