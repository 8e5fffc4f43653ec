"""Encoders: one class of settings for each family of architectures."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, Union

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from issl.spec import plugins
from issl.spec.shape import channels
from issl.spec.value import Value


class ResNet(Value):
    """ResNet, with a stem for small images below 100 px, and an optional expanding head."""

    arch: Literal["resnet10", "resnet18", "resnet34", "resnet50"] = "resnet18"
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


class Timm(Value):
    """An architecture of timm at random initial weights, with the same optional head; needs `pip install timm`."""

    implementation: ClassVar[str] = "issl.models.trunks:build"

    arch: str = Field(description="timm/<name>, a name in timm.list_models(), e.g. timm/vit_small_patch16_224")
    head: Literal["none", "expand"] = "none"
    dim: PositiveInt = Field(description="dimension of the representation z; without a head, what the architecture has")
    bottleneck: PositiveInt = Field(512, description="channels inside the expanding head")
    patch: PositiveInt | None = Field(
        None, description="side in pixels of the patches of a ViT, or of ConvNeXt's stem; by default as in timm"
    )
    pool: Literal["token", "mean"] | None = Field(
        None, description="of a ViT: its class token, or the mean of its patches; by default as in timm"
    )

    @field_validator("arch")
    @classmethod
    def _named(cls, arch: str) -> str:
        """Only timm knows the names; `issl.planning.possible` asks it before anything runs."""
        name, dot, tag = arch.removeprefix("timm/").partition(".")
        if dot:
            raise ValueError(f"encoders start from random weights, so it must be 'timm/{name}' without '.{tag}'")
        if not name:
            raise ValueError("must be timm/<name>, with a name in timm.list_models()")
        return arch


def arch(encoder: Any) -> str:
    """The tag of an encoder's class: "resnet" for every ResNet, otherwise what stands before the first slash."""
    settings = encoder if isinstance(encoder, Mapping) else vars(encoder) if isinstance(encoder, Value) else {}
    family = str(settings.get("arch", "resnet")).partition("/")[0]
    return "resnet" if family.startswith("resnet") else family


OWN: dict[str, type[Value]] = {"resnet": ResNet, "timm": Timm}  # by what `arch` begins with
ENCODERS = OWN | plugins.named("issl.encoders", "arch", Value, OWN)
Encoder = Annotated[
    Union[tuple(Annotated[member, Tag(tag)] for tag, member in ENCODERS.items())],  # noqa: UP007
    Discriminator(arch),
]
