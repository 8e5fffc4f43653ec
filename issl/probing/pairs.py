"""Two views of each of some images, drawn as in the pretraining of their encoder, and how alike it represents them."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from issl.data.arrays import Arrays
from issl.probing import images
from issl.probing.spread import alignment, some
from issl.spec.augment import Augment
from issl.spec.encoding import Encoding
from issl.views import augment, decode
from issl.views.random import generator

IMAGES = 1024  # of the test split: then the standard error is a 32nd of the standard deviation over images


def of(
    settings: Augment | None,
    encoding: Encoding,
    arrays: Arrays,
    device: torch.device,
    encode: Callable[[Tensor], Tensor],
    workers: int,
) -> dict[str, float]:
    """`alignment` of test images, for a record; nothing without settings of views, or if a representation overflows.

    `settings` are those of the encoder's pretraining; `encode` maps views, (n, 3, S, S) float32 on the device, to
    representations. The views are the same for every encoder with these settings, whatever its seed. For photographs
    they are the two large ones.
    """
    if settings is None:
        return {}
    drawn = _of_photographs if settings.views else _of_squares
    z = [
        encode(views).float().cpu().unflatten(0, (2, -1))
        for views in drawn(settings, encoding, arrays, device, workers)
    ]
    first, second = torch.cat(z, 1)  # (n, dim) each
    if not (first.isfinite().all() and second.isfinite().all()):
        return {}
    return {"alignment": alignment(first, second)}


def _of_squares(
    settings: Augment, encoding: Encoding, arrays: Arrays, device: torch.device, workers: int
) -> Iterator[Tensor]:
    """Views of center crops, in their size: (2 b, 3, S, S) for each chunk of b images, first all first views."""
    source, workers = images.one_by_one(arrays, encoding, workers)
    squares = decode.central_squares(source, some(arrays, "test", IMAGES).tolist(), workers)
    for number, chunk in enumerate(squares):
        draws = generator("alignment", number)
        yield augment.two_views(chunk.to(device).permute(0, 3, 1, 2), settings, draws)


def _of_photographs(
    settings: Augment, encoding: Encoding, arrays: Arrays, device: torch.device, workers: int
) -> Iterator[Tensor]:
    """Large views of whole images, likewise."""
    source, workers = images.one_by_one(arrays, encoding, workers)
    large = settings.model_copy(update={"views": settings.views[:1]})
    chunks = some(arrays, "test", IMAGES).split(decode.CHUNK)
    wanted = (decode.CropRequest(chunk.tolist(), "alignment", 0, 0) for chunk in chunks)
    for groups in decode.crops(source, large, wanted, workers):
        crops, draws = decode.joined(groups, device)
        yield augment.normalize(augment.color_and_blur(crops, draws, settings.blur_kernel))
