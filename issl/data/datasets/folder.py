"""Any folder of images: train/<class>/* and test/<class>/* (or val/<class>/*)."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from issl.data.arrays import Content, Rows
from issl.errors import UserError
from issl.spec.data import ImageFolder


def read(spec: ImageFolder, progress: bool = False) -> Content:
    """Finds the images; classes and files are in alphabetical order, hidden files are left out.

    Each image is resized (bicubic) so that it just covers the square, and cropped around its centre. Raises UserError
    where a split is missing or empty, the splits' classes differ, or a file is no image.
    """
    root = Path(spec.path)
    train = _classes(root / "train")
    test = _classes(next((root / name for name in ("test", "val") if (root / name).is_dir()), root / "test"))
    if different := sorted(train.keys() ^ test.keys()):
        raise UserError(f"{root}: class '{different[0]}' is in one of the two splits only: both need the same classes")
    groups = [*train.values(), *test.values()]
    return Content(
        labels=np.repeat(np.tile(np.arange(len(train)), 2), [len(files) for files in groups]),
        splits={"train": sum(map(len, train.values())), "test": sum(map(len, test.values()))},
        classes=list(train),
        image_size=spec.image_size,
        open=partial(_open, [file for files in groups for file in files], spec.image_size),
        source={"folder": root.name},
    )


def _classes(split: Path) -> dict[str, list[Path]]:
    """Class name -> its files."""
    classes = {folder.name: _visible(folder) for folder in _visible(split) if folder.is_dir()}
    if not classes:
        raise UserError(f"{split}: holds no class folders: expected {split}/<class>/<images>")
    for name, files in classes.items():
        if not files:
            raise UserError(f"{split / name}: holds no images: every class needs at least one")
    return classes


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}: expected a folder of images") from error


def _open(files: list[Path], size: int) -> Rows:
    def rows(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, size, size, 3), np.uint8)
        for row, file in enumerate(files[start:stop]):
            images[row] = _decode(file, size)
        return images

    return rows


def _decode(file: Path, size: int) -> Image.Image:
    try:
        with Image.open(file) as image:
            return ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: not an image that can be decoded ({error}): replace or remove it") from error
