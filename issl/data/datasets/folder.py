"""Any folder of images: train/<class>/* and test/<class>/* (or val/<class>/*)."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from issl.data import pixels, tree
from issl.data.arrays import Content, Rows
from issl.errors import UserError
from issl.spec.data import ImageFolder


def read(spec: ImageFolder, progress: bool = False) -> Content:
    """Finds the images; classes and files are in alphabetical order, hidden files are ignored.

    Each image is resized (bicubic) so that it just covers the square, and cropped around its centre. Raises UserError
    for a folder in another layout; decoding raises it for a file that is not an image.
    """
    root = Path(spec.path)
    test = next((name for name in ("test", "val") if (root / name).is_dir()), "test")
    found = tree.read(root, {"train": "train", "test": test})
    groups = [files for classes in found.values() for files in classes.values()]
    return Content(
        labels=np.repeat(np.tile(np.arange(len(found["train"])), 2), [len(files) for files in groups]),
        splits={split: sum(map(len, classes.values())) for split, classes in found.items()},
        classes=list(found["train"]),
        image_size=spec.image_size,
        open=partial(rows, root, [file for files in groups for file in files], spec.image_size),
        source={"folder": root.name},
    )


def rows(root: Path, files: list[str], size: int) -> Rows:
    """Decodes files below `root` to squares of `size` pixels. Raises UserError for a file that is not an image."""

    def decoded(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, size, size, 3), np.uint8)
        for row, file in enumerate(files[start:stop]):
            images[row] = _decode(root / file, size)
        return images

    return decoded


def _decode(file: Path, size: int) -> Image.Image:
    try:
        image = pixels.decoded(file)
    except ValueError as error:
        raise UserError(f"{file}: cannot be decoded as an image ({error}): replace or remove it") from error
    return pixels.square(image, size)
