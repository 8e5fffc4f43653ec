"""Augmentation: the random views of images."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from issl.spec.value import Probability, Value


class Crops(Value):
    """Views of one resolution: random crops of a photograph, each resized to a square."""

    number: PositiveInt = Field(description="views of each image")
    size: PositiveInt = Field(description="pixels")
    min_area: Annotated[float, Field(gt=0, le=1)] = Field(description="smallest crop, as a fraction of the photograph")
    max_area: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="largest crop, likewise")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_area > self.max_area:
            raise ValueError(f"min_area {self.min_area} exceeds max_area {self.max_area}")
        return self


class Augment(Value):
    """The SimCLR pipeline; `strength` scales the same settings as in the released code, and no others."""

    strength: PositiveFloat = 1.0
    blur: bool = Field(False, description="Gaussian blur, the released code's `blured_simclr`")
    min_area: Probability = Field(0.2, description="smallest crop; divided by the strength")
    jitter: NonNegativeFloat = Field(0.4, description="brightness, contrast, saturation; multiplied by the strength")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.1, description="multiplied by the strength")
    gray: Probability = Field(0.1, description="probability of grayscale; multiplied by the strength")
    flip_p: Probability = 0.5
    jitter_p: Probability = 0.8
    blur_p: Probability = 0.5
    blur_kernel: Literal["tenth", "pillow"] = Field(
        "tenth", description="tenth: torchvision's Gaussian over a tenth of the side; pillow: Pillow's GaussianBlur"
    )
    number: Annotated[int, Field(ge=2)] = Field(
        2, description="views of each image; more than 2 for methods that take more, and not for photographs"
    )
    views: tuple[Crops, ...] = Field(
        (),
        description="of photographs (kind imagenet): two large views, then the small ones; their areas replace "
        "min_area and are not scaled",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.views and self.views[0].number != 2:
            raise ValueError(f"the first entry of views must have number 2, not {self.views[0].number}")
        if self.views and self.number != 2:
            raise ValueError(f"number {self.number}: the numbers of views of photographs are those in `views`")
        if self.min_area > self.strength:
            raise ValueError(f"strength {self.strength} is too weak: the smallest crop would exceed the image")
        if self.hue * self.strength > 0.5:
            raise ValueError(f"strength {self.strength} is too strong: the hue shift would exceed half a turn")
        if self.gray * self.strength > 1:
            raise ValueError(f"strength {self.strength} is too strong: the grayscale probability would exceed 1")
        return self
