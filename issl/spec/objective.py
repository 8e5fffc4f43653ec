"""Objectives: one class of settings for each method."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from issl.spec.value import Probability, Value


class Method(Value):
    """The settings of a method."""

    # Whether it logs `log_loss`, the cross-entropy of predicting an equivalence class. One that does not is named in
    # figure 7b without a point, and a claim about its log loss is refused.
    has_log_loss: ClassVar[bool] = True


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


class Supervised(Method):
    """Training with labels: a reference for methods that do without."""

    has_log_loss: ClassVar[bool] = False

    name: Literal["supervised"]
    classes: Annotated[int, Field(ge=2)] = Field(description="number of classes of the data set")


class Untrained(Method):
    """No training: the encoder at its random initial weights, a reference. Its runs have 0 epochs."""

    has_log_loss: ClassVar[bool] = False

    name: Literal["untrained"]


ObjectiveSpec = Annotated[
    SimCLR | CISSL | DISSL | DISSLMultiCrop | DINO | Supervised | Untrained, Field(discriminator="name")
]
