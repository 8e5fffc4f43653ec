"""One photograph: from a file to pixels."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from issl.errors import UserError

# Colours of a JPEG file that simplejpeg turns into the same RGB as Pillow. CMYK it turns into another.
SAME_COLOURS = ("YCbCr", "Gray", "RGB")


def decode(file: Path) -> np.ndarray:
    """The image in RGB as Pillow decodes it, (H, W, 3) uint8, whatever its format and colours.

    Raises UserError naming the file where it cannot be read, or holds no whole image.
    """
    try:
        content = file.read_bytes()
        pixels = _decode_sound(content)
        if pixels is None:
            with Image.open(io.BytesIO(content)) as image:
                pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{file}: not an image that can be decoded ({_reason(error)}): replace or remove it, or say "
            "`corrupt: skip` for this data set"
        ) from error
    return pixels


def _decode_sound(content: bytes) -> np.ndarray | None:
    """A sound JPEG image in half of Pillow's time; None for all else: Pillow says whether it will do."""
    import simplejpeg  # needed where photographs are decoded, not where they are listed

    try:
        if simplejpeg.decode_jpeg_header(content)[2] in SAME_COLOURS:
            return simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        pass
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "of no known format" if "BytesIO" in str(error) else str(error)
