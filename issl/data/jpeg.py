"""Decodes one photograph."""

import io
from pathlib import Path

import numpy as np

from issl.data import pixels
from issl.errors import UserError

# Colour spaces of JPEG files for which simplejpeg gives the same RGB as Pillow; for CMYK it does not.
SAME_COLOURS = ("YCbCr", "Gray", "RGB")


def decode(file: Path) -> np.ndarray:
    """The image in RGB as Pillow decodes it, (H, W, 3) uint8, from any format, colour space and depth.

    Raises UserError that names the file if it cannot be read, or is not a complete image.
    """
    try:
        content = file.read_bytes()
        photo = _decode_sound(content)
        return np.array(pixels.decoded(io.BytesIO(content))) if photo is None else photo
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: cannot be decoded as an image ({pixels.reason(error)}): replace or remove it, or set "
            "`corrupt: skip` for this data set"
        ) from error


def _decode_sound(content: bytes) -> np.ndarray | None:
    """Decodes a valid JPEG image in half of Pillow's time; None for anything else, which is left to Pillow."""
    import simplejpeg  # needed to decode photographs, not to list them

    try:
        if simplejpeg.decode_jpeg_header(content)[2] in SAME_COLOURS:
            return simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        pass
    return None
