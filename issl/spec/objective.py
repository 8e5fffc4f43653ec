"""Objectives: one class of settings for each method."""

from typing import Annotated, ClassVar, Literal, Self, Union, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from issl.spec import plugins
from issl.spec.value import Probability, Value


class Method(Value):
    """The settings of a method."""

    # Whether it logs `log_loss`, the cross-entropy of predicting an equivalence class. One that does not is named in
    # figure 7b without a point, and a claim about its log loss is refused.
    has_log_loss: ClassVar[bool] = True
    # Whether it takes more than two views of an image.
    many_views: ClassVar[bool] = False


class SimCLR(Method):
    """SimCLR (Chen et al., 2020) as in the released code."""

    name: Literal["simclr"]
    temperature: PositiveFloat = 0.07
    hidden: PositiveInt = 1024
    out: PositiveInt = 128
    widths: tuple[PositiveInt, ...] = Field((), description="of the projector's hidden layers, instead of `hidden`")


class CISSL(Method):
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


class DISSL(Method):
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
    heads: Literal["released", "cosine"] = Field(
        "released",
        description="cosine: as before the release, with unit prototypes as the teacher's last layer, on normalised "
        "features, and a wider initialisation of the student's bottleneck",
    )


class DISSLMultiCrop(Method):
    """DISSL as released for ImageNet: the teacher sees two large views, the student also any number of small ones."""

    many_views: ClassVar[bool] = True

    name: Literal["dissl_multicrop"]
    classes: Annotated[int, Field(ge=2)] = Field(16384, description="number of equivalence classes C")
    student_temperature: PositiveFloat = 1.0
    teacher_temperature: PositiveFloat = 0.5
    entropy_weight: NonNegativeFloat = Field(2.3, description="lambda: weight of the marginal's entropy")
    invariance_weight: NonNegativeFloat = Field(0.6, description="beta: weight of determinism and invariance")
    invariance_warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps in which beta moves linearly from lambda to its value"
    )
    teacher: Literal["residual", "reduced"] = Field(
        "residual",
        description="input of its residual block; residual: z; reduced: the bottleneck, as for 8192 dimensions",
    )
    hidden: PositiveInt = Field(2048, description="width of the teacher's residual block")
    bottleneck: PositiveInt = 512


class DINO(Method):
    """DINO (Caron et al., 2021) as in the released baseline, whose quirks are named options."""

    name: Literal["dino"]
    classes: Annotated[int, Field(ge=2)] = 1000
    student_temperature: PositiveFloat = 0.1
    teacher_temperature: PositiveFloat = Field(0.07, description="after its warm-up")
    teacher_temperature_start: PositiveFloat = 0.04
    temperature_warmup_epochs: Annotated[int, Field(ge=0)] = 50
    center_momentum: Probability = 0.9
    ema: Probability = Field(0.996, description="momentum of the teacher at the start")
    ema_schedule: Literal["full_period", "half_period"] = Field(
        "full_period",
        description="full_period: rises to 1 halfway and falls back, as released; half_period: reaches 1 at the end",
    )
    teacher_projector: Literal["independent", "copy"] = Field(
        "independent", description="its initialisation; independent: its own draw, as released; copy: the student's"
    )
    normalize: Literal["before_bottleneck", "after_bottleneck"] = Field(
        "before_bottleneck", description="l2-normalisation before the bottleneck, as released, or after it (DINO paper)"
    )
    evaluate: Literal["student", "teacher"] = Field(
        "student", description="whose encoder is the result: the student's, as released, or the teacher's (DINO paper)"
    )
    freeze_last_layer_epochs: Annotated[int, Field(ge=0)] = 1
    hidden: PositiveInt = 1024
    bottleneck: PositiveInt = 256


class DCL(Method):
    """DCL (Yeh et al., 2022), with the projector of SimCLR here; `weighted` makes it DCLW."""

    name: Literal["dcl"]
    temperature: PositiveFloat = Field(0.1, description="as SimCLR's for ImageNet; 0.07 is that of SimCLR here")
    weighted: bool = Field(False, description="whether similar views attract less, and dissimilar ones more")
    sigma: PositiveFloat = Field(0.5, description="for weighted: concentration of the weights")
    hidden: PositiveInt = 1024
    out: PositiveInt = 128


class BarlowTwins(Method):
    """Barlow Twins (Zbontar et al., 2021); defaults as for a ResNet-50 on ImageNet in the authors' code."""

    has_log_loss: ClassVar[bool] = False

    name: Literal["barlow_twins"]
    redundancy: NonNegativeFloat = Field(
        0.0051, description="lambda: weight of the entries off the diagonal (section 2.2: 0.005)"
    )
    scale: PositiveFloat = Field(1.0, description="of the loss; 0.024 in VISSL, 0.1 in solo-learn on CIFAR")
    hidden: PositiveInt = Field(8192, description="width of the projector's two hidden layers (section 2.2)")
    out: PositiveInt = 8192


class VICReg(Method):
    """VICReg (Bardes et al., 2022); defaults as for a ResNet-50 on ImageNet (section 4.2)."""

    has_log_loss: ClassVar[bool] = False

    name: Literal["vicreg"]
    invariance: NonNegativeFloat = Field(25.0, description="lambda")
    variance: NonNegativeFloat = Field(25.0, description="mu")
    covariance: NonNegativeFloat = Field(1.0, description="nu")
    hidden: PositiveInt = Field(8192, description="width of the expander's two hidden layers")
    out: PositiveInt = 8192


class WMSE(Method):
    """W-MSE (Ermolov et al., 2021) for two views or more; defaults as in the authors' code, which are for CIFAR-10."""

    has_log_loss: ClassVar[bool] = False
    many_views: ClassVar[bool] = True

    name: Literal["wmse"]
    size: PositiveInt = Field(128, description="images that are whitened together; 256 on TinyImageNet")
    iterations: PositiveInt = Field(
        1, description="random divisions of a batch into parts of this size; 4 on TinyImageNet with two views"
    )
    epsilon: Annotated[float, Field(ge=0, lt=1)] = Field(
        1e-6, description="part of the identity in the covariance; the authors' 0 needs more images than dimensions"
    )
    hidden: PositiveInt = Field(1024, description="width of the projector's hidden layer")
    out: PositiveInt = Field(64, description="dimensions to whiten; 128 on TinyImageNet")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.size <= self.out:
            raise ValueError(f"size {self.size} must exceed out {self.out}: fewer images have no full covariance")
        return self


class LeJEPA(Method):
    """LeJEPA (Balestriero & LeCun, 2025) for two views or more; defaults as in the authors' code."""

    has_log_loss: ClassVar[bool] = False
    many_views: ClassVar[bool] = True

    name: Literal["lejepa"]
    sigreg_weight: Probability = Field(0.05, description="lambda; 0.02 in the authors' minimal example")
    slices: PositiveInt = Field(1024, description="random directions of a step; 256 in the minimal example")
    t_max: PositiveFloat = Field(3.0, description="end of the integral; in the paper's algorithm 1: 5, with 9 points")
    points: Annotated[int, Field(ge=2)] = Field(17, description="of the trapezoidal rule from 0 to t_max")
    hidden: PositiveInt = Field(2048, description="width of the projector's two hidden layers")
    out: PositiveInt = Field(128, description="16 in the minimal example")


class BYOL(Method):
    """BYOL (Grill et al., 2020); defaults as for 1000 epochs of ImageNet (section 3, implementation details)."""

    has_log_loss: ClassVar[bool] = False

    name: Literal["byol"]
    ema: Probability = Field(
        0.996, description="momentum of the target network at the start, from where it rises to 1 as a cosine"
    )
    hidden: PositiveInt = Field(4096, description="width of the hidden layers of projector and predictor")
    out: PositiveInt = 256


class SimSiam(Method):
    """SimSiam (Chen & He, 2021); defaults as on ImageNet (section 3)."""

    has_log_loss: ClassVar[bool] = False

    name: Literal["simsiam"]
    layers: Annotated[int, Field(ge=2)] = Field(3, description="of the projector; 2 on CIFAR-10 (appendix D)")
    hidden: PositiveInt = Field(2048, description="width of the projector's hidden layers")
    out: PositiveInt = 2048
    bottleneck: PositiveInt = Field(512, description="width of the predictor's hidden layer")


class MoCoV3(Method):
    """MoCo v3 (Chen, Xie & He, 2021); defaults as for a ResNet-50 in up to 300 epochs (the authors' CONFIG.md)."""

    name: Literal["moco_v3"]
    temperature: PositiveFloat = Field(1.0, description="0.2 for ViTs (section 5)")
    ema: Probability = Field(
        0.99, description="momentum of the momentum encoder at the start, from where it rises to 1 as a cosine"
    )
    heads: Literal["resnet", "vit"] = Field(
        "resnet",
        description="resnet: a projector of two layers; vit: of three, and batch norm after the predictor (section 5)",
    )
    hidden: PositiveInt = Field(4096, description="width of the hidden layers of projector and predictor")
    out: PositiveInt = 256


class SwAV(Method):
    """SwAV (Caron et al., 2020) for two views or many; defaults as on ImageNet (appendix A)."""

    many_views: ClassVar[bool] = True

    name: Literal["swav"]
    prototypes: Annotated[int, Field(ge=2)] = Field(3000, description="number of prototypes K")
    temperature: PositiveFloat = 0.1
    epsilon: PositiveFloat = Field(0.05, description="smoothness of the assignment (equation 3)")
    sinkhorn_iterations: PositiveInt = 3
    freeze_prototypes_epochs: Annotated[int, Field(ge=0)] = 1
    queue: Annotated[int, Field(ge=0)] = Field(
        0, description="earlier images that are assigned with a batch; 3840 for batches of 256, and at most an epoch"
    )
    queue_start_epoch: PositiveInt = Field(15, description="first epoch that uses the queue, counted from 0")
    hidden: PositiveInt = Field(2048, description="width of the projector's hidden layer")
    out: PositiveInt = 128


class Supervised(Method):
    """Training with labels: a reference for methods that do without."""

    has_log_loss: ClassVar[bool] = False

    name: Literal["supervised"]
    classes: Annotated[int, Field(ge=2)] = Field(description="number of classes of the data set")


class Untrained(Method):
    """No training: the encoder at its random initial weights, a reference. Its runs have 0 epochs."""

    has_log_loss: ClassVar[bool] = False
    many_views: ClassVar[bool] = True

    name: Literal["untrained"]


Own = (
    SimCLR
    | CISSL
    | DISSL
    | DISSLMultiCrop
    | DINO
    | DCL
    | BarlowTwins
    | VICReg
    | WMSE
    | LeJEPA
    | BYOL
    | SimSiam
    | MoCoV3
    | SwAV
    | Supervised
    | Untrained
)
ObjectiveSpec = Annotated[
    Union[plugins.members("issl.objectives", "name", Method, get_args(Own))],  # noqa: UP007
    Field(discriminator="name"),
]
