"""The pixels of an image file in RGB, for any format, mode and depth."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF tags, and a value of the second
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # modes of more than 8 bits, which Pillow's conversion clips


def decoded(source: Path | BinaryIO) -> Image.Image:
    """An image file in mode RGB, as Pillow converts it: its first frame, without transparency or EXIF rotation.

    16-bit grey is scaled to 8 bits. Raises ValueError, with the reason, for a file that cannot be decoded, and for
    pixels without a defined range (floats, 32-bit integers).
    """
    try:
        with Image.open(source) as image:
            return _scaled(image) if image.mode in DEEP else image.convert("RGB")
    except Exception as error:  # on damaged files Pillow raises almost any exception
        raise ValueError(reason(error)) from error


def square(image: Image.Image, size: int) -> Image.Image:
    """Resizes an image (bicubic) so that it just covers a square of `size` pixels, and crops it around its centre."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def reason(error: Exception) -> str:
    """Why a file cannot be decoded, without its name."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown format"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _scaled(image: Image.Image) -> Image.Image:
    white = _white(image)
    if white is None:
        kind = "floats" if image.mode == "F" else "integers"
        raise ValueError(f"{image.format} with {kind} without a defined range; allowed: 8 bits, or 16-bit grey")
    grey = np.rint(np.asarray(image) * (255 / white)).astype(np.uint8)
    if image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")


def _white(image: Image.Image) -> int | None:
    """The value of white in a grey image of more than 8 bits; None if its format does not define it."""
    match image.format, image.mode:
        case ("PNG", "I" | "I;16") | ("PPM", "I") | ("JPEG2000", "I;16"):  # Pillow scales the last two to 16 bits
            return 65535
        case ("TIFF", "I;16" | "I;16B" | "I;16L" | "I;16N"):
            return 2 ** image.tag_v2[BITS_PER_SAMPLE][0] - 1
    return None
