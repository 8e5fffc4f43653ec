"""How an encoder turns the images of a labelled data set into features."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from issl.spec.data import DataSpec
from issl.spec.value import Value, short_hash


class Encoding(Value):
    """The data set, and how its images are resized, cropped and encoded; the path of a result names the encoder.

    The defaults are those of the code behind the released ImageNet models (a fork of VISSL, 2022).
    """

    data: DataSpec
    resize: PositiveInt = Field(256, description="shorter side in pixels; bilinear")
    crop: PositiveInt = Field(224, description="side of the center crop in pixels")
    layer: Literal["output", "trunk"] = Field(
        "output", description="trunk: average of the last stage, before the expanding head"
    )
    batch_norm: Literal["eval", "train"] = Field(
        "eval", description="train: batch statistics, as if eval() had not been called"
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(
        128, description="matters for batch_norm: train; otherwise only for rounding"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} exceeds the shorter side, resize {self.resize}")
        return self


def encoding_id(encoding: Encoding) -> str:
    """Data set plus hash, e.g. ``cifar10-1a2b3c4d``."""
    return f"{encoding.data.name}-{short_hash(encoding.canonical())}"
