"""What an evaluation of published weights is: which images are encoded and how, and by which protocol they are scored.

As everywhere in issl/spec, an id is readable words plus a hash of the value without its defaults, and so a default is
never edited. The defaults are those of the code behind the released ImageNet models (a fork of VISSL, 2022).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from issl.spec.data import DataSpec
from issl.spec.value import Probability, Value, short_hash

Metric = Literal["top-1", "top-5", "mean per class"]
METRICS: dict[Metric, str] = {"top-1": "top1", "top-5": "top5", "mean per class": "per_class"}  # names in score files


def column(protocol: str, metric: str, several: bool) -> str:
    """Name of a column: with its metric, if a row has several."""
    return f"{protocol}, {metric}" if several else protocol


Holdout = Annotated[float, Field(gt=0, lt=1)]


class Encoding(Value):
    """The images of a labelled data set, as published weights represent them."""

    weights: str = Field(pattern=r"^[\w-]+$", description="name of a model of the hub, or of one of our runs")
    data: DataSpec
    resize: PositiveInt = Field(256, description="shorter side in pixels; bilinear")
    crop: PositiveInt = Field(224, description="side of the central square that is cut out of it")
    layer: Literal["output", "trunk"] = Field(
        "output", description="trunk: the average of the last stage, before the expanding head"
    )
    batch_norm: Literal["eval", "train"] = Field(
        "eval", description="train: statistics of the batch, as if nobody had called eval()"
    )
    batch_size: PositiveInt = Field(128, description="matters to train-mode statistics; else to nothing but rounding")
    run: str | None = Field(None, exclude=True, description="folder with the weights, of one of our runs")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} exceeds the shorter side, resize {self.resize}")
        return self


def encoding_id(encoding: Encoding) -> str:
    """Data set plus hash, e.g. ``cifar10-1a2b3c4d``; the name of the weights stands before it in every path."""
    return f"{encoding.data.name}-{short_hash(encoding.canonical())}"


# --- protocols -------------------------------------------------------------------------------------------------------


class CachedProbe(Value):
    """One linear classifier on cached features."""

    optimizer: Literal["sgd", "lars"] = "sgd"
    lr: PositiveFloat = Field(0.1, description="for 256 images; scaled linearly with the batch size")
    weight_decay: NonNegativeFloat = 1e-6
    batch_norm: bool = Field(False, description="normalise the features first, without scale and shift")
    batch_size: Annotated[int, Field(ge=2)] = 2048
    epochs: PositiveInt = 100
    momentum: Probability = 0.9

    @property
    def setting(self) -> str:
        """Names this probe among the others of its grid."""
        norm = ", batch norm" if self.batch_norm else ""
        return (
            f"{self.optimizer}, lr {self.lr:g}, weight decay {self.weight_decay:g}{norm}, "
            f"batch {self.batch_size}, {self.epochs} epochs"
        )


class Cached(Value):
    """Linear evaluation on cached features of clean images: a grid of probes, all of whom are scored."""

    kind: Literal["cached"]
    probes: tuple[CachedProbe, ...] = Field((CachedProbe(),), min_length=1)
    holdout: Holdout = Field(0.02, description="part of the training images on which the honest choice is made")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [probe.setting for probe in self.probes]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the same probe is asked for twice: {twice[0]}")
        return self


class Augmented(Value):
    """Linear evaluation on augmented images: heads on a frozen trunk, as VISSL's benchmark trains them."""

    kind: Literal["augmented"]
    epochs: PositiveInt = 28
    batch_size: Annotated[int, Field(ge=2)] = 1024
    lr: PositiveFloat = Field(0.01, description="for 256 images; scaled linearly with the batch size")
    milestones: tuple[PositiveInt, ...] = Field((8, 16, 24), description="epochs after which the rate falls to a tenth")
    momentum: Probability = Field(0.9, description="Nesterov's")
    weight_decay: NonNegativeFloat = Field(5e-4, description="of weights and biases, not of batch norms")
    min_area: Probability = Field(0.08, description="smallest crop")
    holdout: Holdout = Field(0.02, description="part of the training images on which the honest choice is made")


class _Searched(Value):
    """A classifier of scikit-learn on features scaled to [0, 1]; C by random search, then refitted on everything."""

    draws: PositiveInt = Field(10, description="values of C, log-uniform")
    lowest: PositiveFloat = 1e-4
    highest: PositiveFloat = 100.0
    holdout: Holdout = Field(0.1, description="part of the training images on which C is chosen, stratified")
    max_iter: PositiveInt = 1000
    tol: PositiveFloat = 1e-3

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} must be below highest {self.highest}")
        return self


class Logistic(_Searched):
    """Logistic regression, lbfgs."""

    kind: Literal["logistic"]


class SVM(_Searched):
    """Linear support vector machine, squared hinge, solved in the primal."""

    kind: Literal["svm"]


Protocol = Annotated[Cached | Augmented | Logistic | SVM, Field(discriminator="kind")]


def protocol_id(protocol: Protocol) -> str:
    """Kind plus hash, e.g. ``cached-1a2b3c4d``."""
    return f"{protocol.kind}-{short_hash(protocol.canonical())}"
