"""Encoders."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from issl.spec.shape import channels
from issl.spec.value import Value


class Encoder(Value):
    """ResNet, with a stem for small images below 100 px, and an optional expanding head."""

    arch: Literal["resnet10", "resnet18", "resnet50"] = "resnet18"
    width: PositiveInt = Field(64, description="channels of the stem; 64 in the paper")
    head: Literal["none", "expand"] = "none"
    dim: PositiveInt = Field(512, description="dimension of the representation z")
    bottleneck: PositiveInt = Field(512, description="channels inside the expanding head")
    init: Literal["released", "torch"] = Field(
        "released",
        description="of the convolutions before the head; released: torchvision's ResNet rule; torch: torch's default, "
        "as on ImageNet",
    )

    @property
    def channels(self) -> int:
        return channels(self.arch, self.width)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.head == "none" and self.dim != self.channels:
            raise ValueError(f"dim {self.dim} needs 'head: expand': {self.arch} alone gives {self.channels}")
        if self.head == "expand" and self.dim > self.channels and self.dim % self.channels:
            raise ValueError(f"dim {self.dim} must be a multiple of {self.channels}, or smaller than it")
        return self
