"""Encoders of timm: any of its architectures as a trunk, at random initial weights (Wightman, PyTorch Image Models).

Without a head an encoder gives what timm's model does with `num_classes=0`.
"""

from typing import Any

from torch import Tensor, nn

from issl.errors import UserError, nearest
from issl.models.encoders import ExpandingHead
from issl.spec.encoder import Timm

POOLS = {"token": "token", "mean": "avg"}  # in timm's words
# Modules of timm whose models resample their positional embedding, for views of several sizes.
ANY_SIZE = ("deit", "eva", "vision_transformer")
REFUSALS = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)  # of timm's constructors


def build(encoder: Timm, image_size: int) -> nn.Module:
    """The encoder for square images of `image_size` pixels: (n, 3, H, W) -> (n, encoder.dim).

    Raises UserError if timm is not installed or lacks the name, or for a patch, a pooling, an image size or a dimension
    that the architecture cannot have.
    """
    trunk = _trunk(encoder, image_size)
    own = trunk.head_hidden_size  # of what timm's own classifier would read
    if encoder.head == "none":
        if encoder.dim != own:
            raise UserError(f"dim {encoder.dim}: {encoder.arch} alone gives {own}; set 'dim: {own}', or 'head: expand'")
        return Trunk(trunk, encoder.dim)
    if encoder.dim > own and encoder.dim % own:
        raise UserError(f"dim {encoder.dim} must be a multiple of {own}, the width of {encoder.arch}, or smaller")
    by_token = getattr(trunk, "global_pool", None) == "token"
    try:
        trunk.reset_classifier(0, "")  # keeps the positions
    except REFUSALS as error:
        raise UserError(f"arch {encoder.arch} cannot have a head: {_reason(error)}; set 'dim: {own}'") from error
    return Trunk(trunk, encoder.dim, ExpandingHead(own, encoder.bottleneck, encoder.dim), by_token)


class Trunk(nn.Module):
    """A model of timm, which pools as it does there, or else a head: (n, 3, H, W) -> (n, dim).

    The head reads every position, and their average is the representation, as in a ResNet; or it reads the class token.
    """

    def __init__(self, trunk: nn.Module, dim: int, head: nn.Module | None = None, by_token: bool = False):
        super().__init__()
        self.trunk, self.resizer, self.by_token = trunk, head, by_token
        self.dim, self.channels = dim, trunk.num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.with_maps(images)[0]

    def maps(self, images: Tensor) -> Tensor:
        """What the trunk gives at each position: (n, channels, h, w)."""
        return grid(self.trunk, self.trunk.forward_features(images))

    def with_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representation (n, dim) and maps in one pass."""
        features = self.trunk.forward_features(images)
        maps, out = grid(self.trunk, features), self.trunk.forward_head(features)
        if self.resizer is None:
            return out, maps
        # `out` is not pooled here, but is behind the last norm of the trunks that have it behind the pooling.
        read = out[:, 0, :, None, None] if self.by_token else grid(self.trunk, out)
        return self.resizer(read).mean(dim=(2, 3)), maps


def grid(trunk: nn.Module, features: Tensor) -> Tensor:
    """What timm's trunks give, as maps (n, C, h, w): they give maps, (n, h, w, C), or tokens (n, 1 + h w, C)."""
    if features.dim() == 4:
        return features.permute(0, 3, 1, 2) if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else features
    patches = features[:, getattr(trunk, "num_prefix_tokens", 0) :]  # without class tokens and registers
    side = round(patches.shape[1] ** 0.5)
    return patches.transpose(1, 2).unflatten(2, (side, side))


def _trunk(encoder: Timm, image_size: int) -> nn.Module:
    """timm's model. Raises UserError as `build` does."""
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise UserError(f"arch {encoder.arch} needs timm, which is not installed: python -m pip install timm") from None
    name = encoder.arch.removeprefix("timm/")
    names = timm.list_models()  # without names that timm keeps for what it has renamed
    if name not in names:
        raise UserError(f"arch: unknown '{encoder.arch}', {nearest(encoder.arch, map('timm/{}'.format, names))}")
    settings: dict[str, Any] = {}
    if timm.get_pretrained_cfg(name).fixed_input_size:
        settings["img_size"] = image_size
    if timm.models.is_model_in_modules(name, ANY_SIZE):
        settings["dynamic_img_size"] = True
    chosen = {"patch": encoder.patch, "pool": encoder.pool}
    settings |= {"patch_size": encoder.patch} if encoder.patch else {}
    settings |= {"global_pool": POOLS[encoder.pool]} if encoder.pool else {}
    try:
        trunk = timm.create_model(name, num_classes=0, **settings)
    except REFUSALS as error:
        given = "".join(f", {key} {value}" for key, value in chosen.items() if value)
        where = f"for images of {image_size} px{given}"
        raise UserError(f"arch {encoder.arch} cannot be built {where}: {_reason(error)}") from error
    patch = getattr(getattr(trunk, "patch_embed", None), "patch_size", 1)
    patch = patch[0] if isinstance(patch, tuple) else patch
    if "img_size" in settings and image_size % patch:
        raise UserError(
            f"arch {encoder.arch}: {image_size} px is no multiple of its patches of {patch} px; set 'patch' to a "
            f"divisor of {image_size}"
        )
    return trunk


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
