"""Data sets.

The location of a data set (`archive`, `url`, `path`) is not part of its identity.
"""

import ast
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from issl.errors import nearest
from issl.spec import plugins
from issl.spec.value import Name, Value, short_hash

# Data sets of torchvision with the splits that the paper's authors evaluate on (issl/data/datasets/downstream.py).
DOWNSTREAM = ("cifar100", "food101", "cars", "aircraft", "dtd", "pets", "caltech101", "flowers102")


class _Frozen(dict):
    """A mapping that nobody changes, so that a value which holds it can be hashed."""

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))


Arguments = Annotated[Mapping[str, str | int | bool], AfterValidator(_Frozen)]


def _lower_case(name: Any) -> Any:
    return name.lower() if isinstance(name, str) else name


def _known_to_torchvision(name: str) -> str:
    known = {*DOWNSTREAM, *_classes_of_torchvision()}
    if name not in known and len(known) > len(DOWNSTREAM):
        raise ValueError(f"torchvision has no data set '{name}', {nearest(name, known)}")
    return name


@cache
def _classes_of_torchvision() -> frozenset[str]:
    """In lower case; none if torchvision is not installed. Read from its source: to import it takes seconds."""
    package = find_spec("torchvision")
    if package is None:
        return frozenset()
    source = Path(package.submodule_search_locations[0], "datasets/__init__.py").read_text(encoding="utf-8")
    named = [each.value for each in ast.parse(source).body if isinstance(each, ast.Assign)]
    return frozenset(name.lower() for names in named for name in ast.literal_eval(names))


class DataSet(Value):
    """What all data sets tell.

    The numbers of images and classes are None where only the prepared data tell.
    """

    @property
    def has_unlabelled(self) -> bool:
        """Whether it has images without a label, which encoders are pretrained on besides those of the train split."""
        return False

    @property
    def n_train(self) -> int | None:
        return None

    @property
    def n_test(self) -> int | None:
        return None

    @property
    def n_classes(self) -> int | None:
        return None


class TinyImageNet(DataSet):
    """The official tiny-imagenet-200.zip: 200 classes, 500 train and 50 validation images each, 64 x 64 pixels."""

    kind: Literal["tinyimagenet"]
    classes: Annotated[int, Field(ge=2, le=200)] = Field(200, description="keep the first ones, by wnid")
    train_per_class: Annotated[int, Field(ge=1, le=500)] = Field(500, description="keep the first images of each class")
    test_per_class: Annotated[int, Field(ge=1, le=50)] = Field(50, description="likewise, from the official val split")
    image_size: Literal[64, 32, 16] = Field(
        64, description="pixels; a smaller image has the means of squares of pixels"
    )
    partial: bool = Field(False, description="accept an archive that lacks images: use those it has")
    archive: str = Field("data/tiny-imagenet-200.zip", exclude=True, description="path of the zip")
    url: str | None = Field(None, exclude=True, description="where to download the zip if it is missing")
    md5: str | None = Field(None, exclude=True, description="checksum of the zip")

    @property
    def name(self) -> str:
        return "tinyimagenet"

    @property
    def n_train(self) -> int | None:
        return None if self.partial else self.classes * self.train_per_class

    @property
    def n_test(self) -> int | None:
        return None if self.partial else self.classes * self.test_per_class

    @property
    def n_classes(self) -> int:
        """Of a partial archive at most, as it may lack classes too."""
        return self.classes


class Cifar10(DataSet):
    """CIFAR-10 through torchvision: 50 000 train and 10 000 test images, 32 x 32."""

    kind: Literal["cifar10"]
    path: str = Field("data/cifar10", exclude=True, description="folder of the data set's python version")
    download: bool = Field(False, exclude=True, description="let torchvision download it if it is missing")

    @property
    def name(self) -> str:
        return "cifar10"

    @property
    def image_size(self) -> int:
        return 32

    @property
    def n_train(self) -> int:
        return 50_000

    @property
    def n_test(self) -> int:
        return 10_000

    @property
    def n_classes(self) -> int:
        return 10


class ImageFolder(DataSet):
    """A folder with train/<class>/* and test/<class>/* (or val/<class>/*), resized to squares."""

    kind: Literal["folder"]
    name: Name = Field(description="identifies the content: different content needs a different name")
    image_size: PositiveInt
    path: str = Field("data/images", exclude=True)


class ImageNet(DataSet):
    """A large folder of photographs, train/<class>/* and val/<class>/*: each is decoded when it is needed."""

    kind: Literal["imagenet"]
    name: Name = Field("imagenet", description="identifies the content: different content needs a different name")
    image_size: PositiveInt = Field(224, description="side of an image that is not augmented, in pixels")
    classes: Annotated[int, Field(ge=2)] | None = Field(None, description="keep the first ones, by folder name")
    train_per_class: PositiveInt | None = Field(None, description="keep the first images of each class, by name")
    test_per_class: PositiveInt | None = Field(None, description="likewise, of the val split")
    corrupt: Literal["stop", "skip"] = Field(
        "stop",
        description="stop: a job that meets an undecodable file fails; skip: prepare checks all files first, leaves "
        "those out and lists them",
    )
    path: str = Field("data/imagenet", exclude=True)

    @property
    def resize(self) -> int:
        """The shorter side, in pixels, before the center crop: 256 for 224."""
        return round(self.image_size * 256 / 224)

    @property
    def n_classes(self) -> int | None:
        return self.classes


class TorchvisionSplits(Value):
    """Arguments of the class in torchvision for each split, where they are not `train: true` or `split: train`."""

    train: Arguments = Field({}, validate_default=True)
    test: Arguments = Field({}, validate_default=True)
    unlabelled: Arguments | None = Field(None, description="of images without labels, to pretrain on besides train")


class Torchvision(DataSet):
    """A data set of torchvision with images and labels, by the name of its class in lower case or capitals.

    With `image_size`, images are decoded into arrays; without it, which only the names in `DOWNSTREAM` allow,
    photographs are listed, to evaluate encoders on.
    """

    kind: Literal["torchvision"]
    name: Annotated[Name, BeforeValidator(_lower_case), AfterValidator(_known_to_torchvision)] = Field(
        description="a class of torchvision.datasets, or cars, aircraft, pets"
    )
    image_size: PositiveInt | None = Field(None, description="pixels; each image is resized and cropped to a square")
    split: TorchvisionSplits = TorchvisionSplits()
    path: str = Field("data/torchvision", exclude=True, description="torchvision's `root`")
    download: bool = Field(False, exclude=True, description="let torchvision download it if it is missing")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.image_size is None and self.name not in DOWNSTREAM:
            raise ValueError(f"{self.name} needs an `image_size`; only {', '.join(DOWNSTREAM)} do without")
        if self.name in DOWNSTREAM and self.split != TorchvisionSplits():
            raise ValueError(f"{self.name} has the splits of the paper's transfer experiments: leave `split` out")
        return self

    @property
    def has_unlabelled(self) -> bool:
        return self.split.unlabelled is not None


class HuggingFaceSplits(Value):
    """Names of the splits, where they are not the usual ones."""

    train: str = "train"
    test: str = "test"
    unlabelled: str | None = Field(None, description="images without labels, to pretrain on besides train")


class HuggingFace(DataSet):
    """A data set of the Hugging Face hub at a revision, or a folder that `save_to_disk` of `datasets` wrote."""

    kind: Literal["huggingface"]
    name: Name = Field(description="of a folder, identifies the content: different content needs a different name")
    image_size: PositiveInt = Field(description="pixels; each image is resized and cropped to a square")
    repo: str | None = Field(None, description="its name on the hub, e.g. uoft-cs/cifar100; null: `path` is the folder")
    revision: str | None = Field(None, description="commit or tag on the hub, so that the content cannot change")
    subset: str | None = Field(
        None, description="of a data set on the hub that has several, which `datasets` calls name"
    )
    image: str = Field("image", description="column of the images")
    label: str = Field("label", description="column of the labels: class labels, whole numbers from 0 on, or words")
    split: HuggingFaceSplits = HuggingFaceSplits()
    path: str = Field(
        "data/huggingface", exclude=True, description="the folder; with `repo`, where to keep what is downloaded"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.repo is None) != (self.revision is None):
            raise ValueError("`repo` and `revision`, its commit or tag, go together, so that the content cannot change")
        if self.subset is not None and self.repo is None:
            raise ValueError("`subset` is only for a data set of the hub, which `repo` names")
        return self

    @property
    def has_unlabelled(self) -> bool:
        return self.split.unlabelled is not None


class Synthetic(DataSet):
    """Generated grey images; a class is a pair of gratings, which all methods learn in seconds."""

    kind: Literal["synthetic"]
    classes: Annotated[int, Field(ge=2, le=100)] = 10
    train_per_class: PositiveInt = 50
    test_per_class: PositiveInt = 20
    image_size: Annotated[int, Field(ge=8)] = 32
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def name(self) -> str:
        return "synthetic"

    @property
    def n_train(self) -> int:
        return self.classes * self.train_per_class

    @property
    def n_test(self) -> int:
        return self.classes * self.test_per_class

    @property
    def n_classes(self) -> int:
        return self.classes


Own = TinyImageNet | Cifar10 | ImageFolder | ImageNet | Torchvision | HuggingFace | Synthetic
DataSpec = Annotated[
    Union[plugins.members("issl.data", "kind", DataSet, get_args(Own))],  # noqa: UP007
    Field(discriminator="kind"),
]


def data_id(data: DataSpec) -> str:
    """Readable name plus hash, e.g. ``tinyimagenet-0a1b2c3d``."""
    return f"{data.name}-{short_hash(data.canonical())}"
