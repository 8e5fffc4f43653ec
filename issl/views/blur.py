"""Blurs of whole batches, as products with banded matrices, without synchronising with the device."""

import torch
from torch import Tensor

SIGMAS = (0.1, 2.0)  # pixels: range of the views' blurs
BLUR_SIZE = 0.1  # size of torchvision's kernel, as a fraction of the image's side
BOX_REACH = 2  # pixels: reach of a box filter of Pillow's blur for the largest of SIGMAS


def separable(images: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Maps each channel x of image i to ``rows[i] @ x @ cols[i].T``.

    Clips after both products, like PIL's resampling, which works in 8 bits, horizontally first and then vertically.

    Args:
        images: (n, c, H, W) float in [0, 1].
        rows: (n, H', H), weights of the old rows in the new ones.
        cols: (n, W', W), likewise for columns.

    Returns:
        (n, c, H', W') in [0, 1].
    """
    across = (images.flatten(1, 2) @ cols.mT).clamp_(0, 1).unflatten(1, images.shape[1:3])  # (n, c, H, W')
    return torch.stack([rows @ channel for channel in across.unbind(1)], 1).clamp_(0, 1)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """torchvision's gaussian_blur, images (n, 3, H, W), sigma (n, 1, 1, 1) in pixels."""
    rows, cols = (_blur_matrices(sigma.flatten(), size) for size in images.shape[2:])
    return separable(images, rows, cols)


def _blur_matrices(sigma: Tensor, size: int) -> Tensor:
    """(n, size, size) weights of a Gaussian over about a tenth of the side, reflected at the edges."""
    reach = int(BLUR_SIZE * size) // 2  # an even kernel size is made odd by adding one
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)  # (n, taps)
    weights = weights / weights.sum(1, keepdim=True)

    pixels = torch.arange(size, device=sigma.device)
    sources = (offsets[:, None] + pixels).abs()  # (taps, size)
    sources = size - 1 - (size - 1 - sources).abs()
    return _banded(weights, sources)


def pillow_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Pillow's GaussianBlur of radius sigma, images (n, 3, H, W), sigma (n, 1, 1, 1) in pixels, at most SIGMAS[1]."""
    rows, cols = (_pillow_matrices(sigma.flatten(), size) for size in images.shape[2:])
    return separable(images, rows, cols)


def _pillow_matrices(sigma: Tensor, size: int) -> Tensor:
    """(n, size, size) weights of three box filters of fractional width; edge pixels are repeated outwards.

    The width gives the variance of the Gaussian (Gwosdek et al. 2011, equations 7 to 14).
    """
    variance = sigma[:, None].square() / 3  # (n, 1), of one filter
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    inner = 1 / (2 * (whole + part) + 1)  # (n, 1), weight of a pixel inside the box
    outer = (1 - (2 * whole + 1) * inner) / 2  # of the two pixels partly inside

    offsets = torch.arange(-BOX_REACH, BOX_REACH + 1, device=sigma.device)
    weights = torch.where(offsets.abs() <= whole, inner, outer * (offsets.abs() == whole + 1))  # (n, taps)
    pixels = torch.arange(size, device=sigma.device)
    box = _banded(weights, (offsets[:, None] + pixels).clamp(0, size - 1))
    return box @ box @ box


def _banded(weights: Tensor, sources: Tensor) -> Tensor:
    """(n, size, size) matrices: row r has the weights (n, taps) in the columns sources[:, r], (taps, size)."""
    size = sources.shape[1]
    hits = (sources[..., None] == torch.arange(size, device=sources.device)).float()  # (taps, size, size)
    return (weights @ hits.flatten(1)).unflatten(1, (size, size))


BLURS = {"tenth": blur, "pillow": pillow_blur}
