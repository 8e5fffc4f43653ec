"""From an image to an encoder's input, by torchvision's transforms, for users of the hub.

Jobs do this for whole batches in issl/views, and so need not import torchvision.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from issl.errors import UserError
from issl.spec.released import IMAGE_SIZE
from issl.spec.shape import MEAN, STD

RESIZE = 256  # px, of the released models


def of_released() -> v2.Compose:
    """As the authors' hub: the shorter side resized, and the central square."""
    return preprocessing(v2.Resize(RESIZE), v2.CenterCrop(IMAGE_SIZE))


def of_run(size: int) -> v2.Compose:
    """As data of kind `folder` are prepared: the largest central square, resized to `size` pixels."""
    return preprocessing(v2.Lambda(_central_square), v2.Resize(size, InterpolationMode.BICUBIC))


def preprocessing(*geometry: v2.Transform) -> v2.Compose:
    """RGB, then `geometry`, then ImageNet's normalisation.

    Maps a PIL image to float32 (3, S, S), and uint8 (..., 3, H, W) to float32 (..., 3, S, S). Raises UserError for
    a PIL image of 32-bit integers or floats, whose range of values nobody knows.
    """
    last = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor())
    return v2.Compose([v2.Lambda(eight_bits), v2.RGB(), *geometry, *last])


def _central_square(image: Image.Image | Tensor) -> Image.Image | Tensor:
    return v2.functional.center_crop(image, [min(v2.functional.get_size(image))])


def eight_bits(image: Image.Image | Tensor) -> Image.Image | Tensor:
    """A PIL image with 16-bit grey values scaled to 8 bits: Pillow would clip them, and show white."""
    if not isinstance(image, Image.Image) or image.mode not in ("I;16", "I;16B", "I;16L", "I", "F"):
        return image
    if image.mode in ("I", "F"):
        raise UserError(f"a PIL image of mode {image.mode}: scale its values to 8 bits first (mode L or RGB)")
    return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
