"""Data sets.

The path of a data set (`archive`, `url`, `path`) is not part of its identity.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from issl.spec.value import Name, Value, short_hash


class TinyImageNet(Value):
    """The official tiny-imagenet-200.zip: 200 classes, 500 train and 50 validation images each, 64 x 64."""

    kind: Literal["tinyimagenet"]
    classes: Annotated[int, Field(ge=2, le=200)] = Field(200, description="keep the first classes, by wnid")
    train_per_class: Annotated[int, Field(ge=1, le=500)] = Field(500, description="keep the first images of a class")
    test_per_class: Annotated[int, Field(ge=1, le=50)] = Field(50, description="taken from the official val split")
    partial: bool = Field(False, description="the archive is known to lack images: take what is there")
    archive: str = Field("data/tiny-imagenet-200.zip", exclude=True, description="path of the zip")
    url: str | None = Field(None, exclude=True, description="where to download the zip if it is not there")
    md5: str | None = Field(None, exclude=True, description="checksum of the zip")

    @property
    def name(self) -> str:
        return "tinyimagenet"

    @property
    def image_size(self) -> int:
        return 64


class Cifar10(Value):
    """CIFAR-10 through torchvision: 50 000 train and 10 000 test images, 32 x 32."""

    kind: Literal["cifar10"]
    path: str = Field("data/cifar10", exclude=True, description="folder of the python version of the data set")
    download: bool = Field(False, exclude=True, description="let torchvision download it if it is not there")

    @property
    def name(self) -> str:
        return "cifar10"

    @property
    def image_size(self) -> int:
        return 32


class ImageFolder(Value):
    """A folder with train/<class>/* and test/<class>/* (or val/<class>/*), resized to squares."""

    kind: Literal["folder"]
    name: Name = Field(description="identifies the content: another content needs another name")
    image_size: PositiveInt
    path: str = Field("data/images", exclude=True)


class ImageNet(Value):
    """A large folder of photographs, train/<class>/* and val/<class>/*: each is decoded whenever it is needed."""

    kind: Literal["imagenet"]
    name: Name = Field("imagenet", description="identifies the content: another content needs another name")
    image_size: PositiveInt = Field(224, description="pixels of an image that is not augmented")
    classes: Annotated[int, Field(ge=2)] | None = Field(None, description="keep the first classes, by wnid")
    train_per_class: PositiveInt | None = Field(None, description="keep the first images of a class, by name")
    test_per_class: PositiveInt | None = Field(None, description="likewise, of the val split")
    corrupt: Literal["stop", "skip"] = Field(
        "stop",
        description="a file that cannot be decoded stops the job that needs it; or all are looked at beforehand, and "
        "those are left out and counted",
    )
    path: str = Field("data/imagenet", exclude=True)

    @property
    def resize(self) -> int:
        """The shorter side, in pixels, before the central square is cut out: 256 for 224."""
        return round(self.image_size * 256 / 224)


class Downstream(Value):
    """A data set of torchvision's to transfer to: for the evaluation of published weights, not for pretraining."""

    kind: Literal["torchvision"]
    name: Literal["cifar100", "food101", "cars", "aircraft", "dtd", "pets", "caltech101", "flowers102"]
    path: str = Field("data/torchvision", exclude=True, description="what torchvision calls `root`")
    download: bool = Field(False, exclude=True, description="let torchvision download it if it is not there")

    @property
    def image_size(self) -> int:
        return 32 if self.name == "cifar100" else 224


class Synthetic(Value):
    """Drawn images whose class is a shape and texture that survive cropping and colour changes."""

    kind: Literal["synthetic"]
    classes: Annotated[int, Field(ge=2, le=64)] = 10
    train_per_class: PositiveInt = 50
    test_per_class: PositiveInt = 20
    image_size: Annotated[int, Field(ge=8)] = 32
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def name(self) -> str:
        return "synthetic"


def train_images(data: "DataSpec") -> int | None:
    """Number of training images, where the spec alone tells; an image folder or a partial archive does not."""
    if isinstance(data, Cifar10):
        return 50_000
    if isinstance(data, ImageFolder | ImageNet | Downstream) or (isinstance(data, TinyImageNet) and data.partial):
        return None
    return data.classes * data.train_per_class


DataSpec = Annotated[
    TinyImageNet | Cifar10 | ImageFolder | ImageNet | Downstream | Synthetic, Field(discriminator="kind")
]


def data_id(data: DataSpec) -> str:
    """Readable name plus hash, e.g. ``tinyimagenet-0a1b2c3d``."""
    return f"{data.name}-{short_hash(data.canonical())}"
