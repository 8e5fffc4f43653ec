"""What a run is: typed, frozen values whose canonical JSON names every result.

The id of a value is readable words plus a hash of its JSON *without the fields that have their default value*.
Adding a field with a default therefore keeps every id, and a default in this file is never edited afterwards
(`tests/test_spec.py` freezes them): new behaviour gets a new field.

Every default is the value of the *released code* of Dubois et al., *Improving Self-Supervised Learning by
Characterizing Idealized Representations* (NeurIPS 2022); docs/fidelity.md lists what follows it and what does not.
"""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Value(BaseModel):
    """A frozen value: unknown keys are errors, equal content means equal id."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def canonical(self) -> str:
        """JSON with sorted keys and without defaults: the identity of the value."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


def short_hash(text: str) -> str:
    """Eight hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# --- data sets -------------------------------------------------------------------------------------------------------
# Where a data set lies (`archive`, `url`, `path`) is not part of what it is, and so not of its identity.


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


# --- pretraining -----------------------------------------------------------------------------------------------------


class Crops(Value):
    """Views of one resolution: random parts of a photograph, each resized to a square."""

    number: PositiveInt = Field(description="of views of each image")
    size: PositiveInt = Field(description="pixels")
    min_area: Annotated[float, Field(gt=0, le=1)] = Field(description="smallest part of the photograph")
    max_area: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="largest part of the photograph")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_area > self.max_area:
            raise ValueError(f"min_area {self.min_area} exceeds max_area {self.max_area}")
        return self


class Augment(Value):
    """The SimCLR pipeline; `strength` scales what the released code scales, and nothing else."""

    strength: PositiveFloat = 1.0
    blur: bool = Field(False, description="Gaussian blur, the released code's `blured_simclr`")
    min_area: Probability = Field(0.2, description="smallest crop at strength 1; divided by the strength")
    jitter: NonNegativeFloat = Field(0.4, description="brightness, contrast, saturation; times the strength")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.1, description="times the strength")
    gray: Probability = Field(0.1, description="probability; times the strength")
    flip_p: Probability = 0.5
    jitter_p: Probability = 0.8
    blur_p: Probability = 0.5
    blur_kernel: Literal["tenth", "pillow"] = Field(
        "tenth", description="a Gaussian over a tenth of the side, as torchvision has it, or Pillow's GaussianBlur"
    )
    views: tuple[Crops, ...] = Field(
        (),
        description="of photographs (kind imagenet): two large views, then the small ones; their areas stand for "
        "min_area, and are not scaled",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.views and self.views[0].number != 2:
            raise ValueError(f"the first of the views must be 2 in number, not {self.views[0].number}")
        if self.min_area > self.strength:
            raise ValueError(f"strength {self.strength} is too weak: the smallest crop would exceed the image")
        if self.hue * self.strength > 0.5:
            raise ValueError(f"strength {self.strength} is too strong: the hue shift would exceed half a turn")
        if self.gray * self.strength > 1:
            raise ValueError(f"strength {self.strength} is too strong: the grayscale probability would exceed 1")
        return self


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


class SimCLR(Value):
    """SimCLR (Chen et al., 2020) as the released code has it."""

    name: Literal["simclr"]
    temperature: PositiveFloat = 0.07
    hidden: PositiveInt = 1024
    out: PositiveInt = 128
    widths: tuple[PositiveInt, ...] = Field((), description="of the projector's hidden layers, instead of `hidden`")


class CISSL(Value):
    """CISSL; `predictor: mlp` makes predictor and projector two-layer MLPs."""

    name: Literal["cissl"]
    predictor: Literal["linear", "mlp"] = "linear"
    temperature: PositiveFloat = 0.07
    hidden: PositiveInt = Field(1024, description="width of the projector beside a linear predictor")
    mlp_hidden: PositiveInt = Field(2048, description="width of both heads for an MLP predictor")
    out: PositiveInt = 128
    widths: tuple[PositiveInt, ...] = Field(
        (), description="of the projector's hidden layers beside a linear predictor, instead of `hidden`"
    )


class DISSL(Value):
    """DISSL; `predictor: mlp` makes predictor and projector two-layer MLPs."""

    name: Literal["dissl"]
    predictor: Literal["linear", "mlp"] = "linear"
    classes: Annotated[int, Field(ge=2)] = Field(16384, description="number of equivalence classes C")
    student_temperature: PositiveFloat = 1.0
    teacher_temperature: PositiveFloat = 0.5
    entropy_weight: NonNegativeFloat = Field(2.3, description="lambda: weight of the marginal's entropy")
    invariance_weight: NonNegativeFloat = Field(0.8, description="beta: weight of determinism and invariance")
    hidden: PositiveInt = Field(1024, description="width of the projector beside a linear predictor")
    mlp_hidden: PositiveInt = Field(2048, description="width of both heads for an MLP predictor")
    bottleneck: PositiveInt = 512


class DISSLMultiCrop(Value):
    """DISSL as released for ImageNet: two large views teach, these and any number of small ones learn."""

    name: Literal["dissl_multicrop"]
    classes: Annotated[int, Field(ge=2)] = Field(16384, description="number of equivalence classes C")
    student_temperature: PositiveFloat = 1.0
    teacher_temperature: PositiveFloat = 0.5
    entropy_weight: NonNegativeFloat = Field(2.3, description="lambda: weight of the marginal's entropy")
    invariance_weight: NonNegativeFloat = Field(0.6, description="beta: weight of determinism and invariance")
    invariance_warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="in which beta goes linearly from lambda to its value"
    )
    teacher: Literal["residual", "reduced"] = Field(
        "residual",
        description="residual: its block works on z itself; reduced: on the bottleneck, as for 8192 dimensions",
    )
    hidden: PositiveInt = Field(2048, description="width of the teacher's residual block")
    bottleneck: PositiveInt = 512


class DINO(Value):
    """DINO (Caron et al., 2021) as the released baseline has it; its quirks are named options."""

    name: Literal["dino"]
    classes: Annotated[int, Field(ge=2)] = 1000
    student_temperature: PositiveFloat = 0.1
    teacher_temperature: PositiveFloat = Field(0.07, description="reached after the temperature warm-up")
    teacher_temperature_start: PositiveFloat = 0.04
    temperature_warmup_epochs: Annotated[int, Field(ge=0)] = 50
    center_momentum: Probability = 0.9
    ema: Probability = Field(0.996, description="momentum of the teacher at the start")
    ema_schedule: Literal["full_period", "half_period"] = Field(
        "full_period",
        description="full_period: up to 1 at half time and back, as released; half_period: up to 1 at the end",
    )
    teacher_projector: Literal["independent", "copy"] = Field(
        "independent", description="its initialisation: drawn anew, as released, or a copy of the student's"
    )
    normalize: Literal["before_bottleneck", "after_bottleneck"] = Field(
        "before_bottleneck", description="where the l2-normalisation stands: as released, or as in the DINO paper"
    )
    evaluate: Literal["student", "teacher"] = Field(
        "student", description="whose encoder is the result: the student's, as released, or as in the DINO paper"
    )
    freeze_last_layer_epochs: Annotated[int, Field(ge=0)] = 1
    hidden: PositiveInt = 1024
    bottleneck: PositiveInt = 256


ObjectiveSpec = Annotated[SimCLR | CISSL | DISSL | DISSLMultiCrop | DINO, Field(discriminator="name")]


class Optim(Value):
    """Adam with coupled weight decay, or SGD with LARS; warm-up and cosine."""

    epochs: PositiveInt = 300
    batch_size: Annotated[int, Field(ge=2)] = Field(512, description="images; each gives two views")
    lr: PositiveFloat = Field(2e-3, description="for 256 images; scaled linearly with the batch size")
    weight_decay: NonNegativeFloat = 1e-6
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    lr_interval: Literal["epoch", "step"] = Field(
        "epoch",
        description="epoch: constant within an epoch and 0 in the first one, as released; step: changes smoothly",
    )
    clip_value: NonNegativeFloat = Field(2.0, description="of each gradient; 0 for no clipping")
    online_lr: PositiveFloat = Field(3e-4, description="of the online linear evaluation; not scaled")
    optimizer: Literal["adam", "lars"] = Field(
        "adam", description="lars: SGD with momentum and LARS on every parameter, the online evaluation without LARS"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of lars")
    trust: PositiveFloat = Field(0.001, description="of lars: length of a step at rate 1, in parts of the parameter's")
    cosine: Literal["after_warmup", "whole_run"] = Field(
        "after_warmup", description="where it begins: whole_run at the first step, so that the warm-up hides its top"
    )
    warmup_lr: NonNegativeFloat = Field(0.0, description="rate of the first step with whole_run; not scaled")
    drop_last: bool = Field(False, description="leave out the images of an epoch that do not fill a batch")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"epochs {self.epochs} must exceed warmup_epochs {self.warmup_epochs}")
        if self.cosine == "whole_run" and self.lr_interval == "epoch":
            raise ValueError("cosine: whole_run changes at every step: it needs 'lr_interval: step'")
        return self


class RunSpec(Value):
    """One pretraining. The seed is not part of it: it stands beside the run in every path."""

    data: DataSpec
    objective: ObjectiveSpec
    augment: Augment = Augment()
    encoder: Encoder = Encoder()
    optim: Optim = Optim()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        # oneDNN writes beyond its buffers there: fewer than 8 channels, channels_last, AVX2 (seen with torch 2.15).
        narrow = [name for name in ("width", "bottleneck", "dim") if getattr(self.encoder, name) < 8]
        if narrow:
            raise ValueError(
                f"encoder.{narrow[0]} {getattr(self.encoder, narrow[0])} is below 8: training on a CPU may crash there"
            )
        views = self.augment.views
        if isinstance(self.data, ImageNet) != bool(views):
            raise ValueError("'augment: {views: ...}' goes with data of kind imagenet, and such data with it")
        if len(views) > 1 and not isinstance(self.objective, DISSLMultiCrop):
            raise ValueError(f"{self.objective.name} takes two views; more go with dissl_multicrop")
        return self


def run_id(run: RunSpec) -> str:
    """Readable words plus hash, e.g. ``cissl-z2048-e1000-3fa91c2e``."""
    method = run.objective.name
    if getattr(run.objective, "predictor", "linear") == "mlp":
        method += "_mlp"
    return f"{method}-z{run.encoder.dim}-e{run.optim.epochs}-{short_hash(run.canonical())}"


# --- probes ----------------------------------------------------------------------------------------------------------


class ProbeSpec(Value):
    """One supervised head on frozen features."""

    kind: Literal["linear", "mlp"] = "linear"
    weight_decay: NonNegativeFloat = 1e-6
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="of the training labels, stratified")
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 512
    lr: PositiveFloat = Field(0.3, description="for 256 images; scaled linearly with the batch size")
    momentum: Probability = 0.9
    clip_value: PositiveFloat = 2.0
    hidden: PositiveInt = Field(2048, description="width of the MLP probe's two hidden layers")
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="part of the training labels on which the honest weight decay is chosen"
    )


class ProbeGrid(Value):
    """The probes that one experiment asks of one run, trained together."""

    probes: tuple[ProbeSpec, ...] = Field(min_length=1)


def grid_id(grid: ProbeGrid) -> str:
    """Kinds plus hash, e.g. ``linear-1a2b3c4d``."""
    kinds = sorted({probe.kind for probe in grid.probes})
    return f"{'-'.join(kinds)}-{short_hash(grid.canonical())}"
