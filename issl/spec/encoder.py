"""Encoders."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from issl.spec.value import Value


class Encoder(Value):
    """ResNet with the small-image stem below 100 px, and the expanding head."""

    arch: Literal["resnet10", "resnet18", "resnet50"] = "resnet18"
    width: PositiveInt = Field(64, description="channels of the stem; 64 in the papers")
    head: Literal["none", "expand"] = "none"
    dim: PositiveInt = Field(512, description="dimension of the representation z")
    bottleneck: PositiveInt = Field(512, description="channels inside the expanding head")
    init: Literal["released", "torch"] = Field(
        "released",
        description="of the convolutions before the head: torchvision's rule, or torch's own as on ImageNet",
    )

    @property
    def channels(self) -> int:
        """Channels of the last stage: 8 x width, times 4 for bottleneck blocks."""
        return self.width * (32 if self.arch == "resnet50" else 8)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.head == "none" and self.dim != self.channels:
            raise ValueError(f"dim {self.dim} needs 'head: expand': {self.arch} alone gives {self.channels}")
        if self.head == "expand" and self.dim > self.channels and self.dim % self.channels:
            raise ValueError(f"dim {self.dim} must be a multiple of {self.channels}, or smaller than it")
        return self
