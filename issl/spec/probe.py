"""Probes: classifiers on representations. One class of settings for each kind."""

import math
from typing import Annotated, Any, Literal, Self, Union, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from issl.spec import plugins
from issl.spec.value import Probability, Value, short_hash

Metric = Literal["top-1", "top-5", "mean per class"]
Holdout = Annotated[float, Field(gt=0, lt=1)]


class _Head(Value):
    """Settings shared by both heads of the paper's TinyImageNet experiments (released code)."""

    weight_decay: NonNegativeFloat = 1e-6
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="of the training labels, stratified")
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 512
    lr: PositiveFloat = Field(0.3, description="for 256 images; scaled linearly with the batch size")
    momentum: Probability = 0.9
    clip_value: PositiveFloat = 2.0
    holdout: Holdout = Field(0.1, description="fraction of the training labels on which the weight decay is selected")


class Linear(_Head):
    """A linear layer on features."""

    kind: Literal["linear"]


class MLP(_Head):
    """Two hidden layers with batch norm and ReLU on features."""

    kind: Literal["mlp"]
    hidden: PositiveInt = Field(2048, description="width of both hidden layers")


class Cached(Value):
    """A linear classifier on cached features, as for the released ImageNet models in August 2022."""

    kind: Literal["cached"]
    optimizer: Literal["sgd", "lars"] = "sgd"
    lr: PositiveFloat = Field(0.1, description="for 256 images; scaled linearly with the batch size")
    weight_decay: NonNegativeFloat = 1e-6
    batch_norm: bool = Field(False, description="normalise the features first, without scale and shift")
    batch_size: Annotated[int, Field(ge=2)] = 2048
    epochs: PositiveInt = 100
    momentum: Probability = 0.9
    holdout: Holdout = Field(0.02, description="fraction of the training images on which the setting is selected")


class Augmented(Value):
    """Linear evaluation on augmented images: heads on a frozen trunk, as in VISSL's benchmark."""

    kind: Literal["augmented"]
    epochs: PositiveInt = 28
    batch_size: Annotated[int, Field(ge=2)] = 1024
    lr: PositiveFloat = Field(0.01, description="for 256 images; scaled linearly with the batch size")
    milestones: tuple[PositiveInt, ...] = Field((8, 16, 24), description="epochs after which lr falls to a tenth")
    momentum: Probability = Field(0.9, description="Nesterov's")
    weight_decay: NonNegativeFloat = Field(5e-4, description="of weights and biases, not of batch norms")
    min_area: Probability = Field(0.08, description="smallest crop, as a fraction of the image")
    holdout: Holdout = Field(0.02, description="fraction of the training images on which the head is selected")


class FineTuned(Value):
    """The encoder and a linear layer on it, trained on few labels as by SimCLR (Chen et al. 2020, appendix B.5)."""

    kind: Literal["fine_tuned"]
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(0.01, description="of the training labels, stratified")
    epochs: PositiveInt = Field(60, description="SimCLR's for 1 % of the labels; for 10 % it has 30")
    batch_size: Annotated[int, Field(ge=2)] = Field(256, description="SimCLR has 4096 of 12 811 or more labels")
    lr: PositiveFloat = Field(0.05, description="SimCLR's, for 256 images; scaled linearly with the batch size")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Nesterov's; SimCLR's")
    min_area: Probability = Field(0.08, description="smallest crop, as a fraction of the image; SimCLR's code")
    holdout: Holdout = Field(0.1, description="fraction of these labels on which a setting is selected")


class _Searched(Value):
    """A linear classifier on features scaled to [0, 1]; C by random search, then refitted on all images."""

    draws: PositiveInt = Field(10, description="values of C to try, log-uniform")
    lowest: PositiveFloat = 1e-4
    highest: PositiveFloat = 100.0
    holdout: Holdout = Field(0.1, description="fraction of the training images on which C is selected")
    max_iter: PositiveInt = Field(1000, description="iterations after which a fit is an error")
    tol: PositiveFloat = Field(1e-3, description="relative error of the weights, at most; its square of the objective")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} must be below highest {self.highest}")
        return self


class Logistic(_Searched):
    """Logistic regression, as scikit-learn defines it."""

    kind: Literal["logistic"]


class SVM(_Searched):
    """Linear support vector machine, squared hinge, one class against the rest, as scikit-learn defines it."""

    kind: Literal["svm"]


class KNN(Value):
    """The nearest training images vote, as in Wu et al. (2018): 200 of them, by the cosine, with weights."""

    kind: Literal["knn"]
    k: PositiveInt = 200
    temperature: PositiveFloat | None = Field(
        0.07, description="a neighbour weighs exp(cosine / temperature); null: 1, as for 5-NN on TinyImageNet"
    )
    distance: Literal["cosine", "euclidean"] = Field(
        "cosine",
        description="euclidean: of unscaled features, as for 5-NN on TinyImageNet (Ermolov et al. 2021)",
    )
    holdout: Holdout = Field(0.1, description="fraction of the training images on which the setting is selected")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.distance == "euclidean" and self.temperature is not None:
            raise ValueError("a temperature is of the cosine: with 'distance: euclidean' set 'temperature: null'")
        return self


Own = Linear | MLP | Cached | Augmented | FineTuned | Logistic | SVM | KNN
Probe = Annotated[
    Union[plugins.members("issl.probes", "kind", Value, get_args(Own))],  # noqa: UP007
    Field(discriminator="kind"),
]

KINDS: dict[str, type[Value]] = {
    get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(get_args(Probe)[0])
}

READS_IMAGES = frozenset({"augmented", "fine_tuned"})  # kinds that need no features
ON_CPU = frozenset({"logistic", "svm"})  # kinds whose jobs request no GPU: minutes on a CPU


class ProbeGrid(Value):
    """Probes of one kind, trained by one job. Those on the same labels compete: one of them is selected."""

    probes: tuple[Probe, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len({probe.kind for probe in self.probes}) > 1:
            raise ValueError("all probes of a grid must be of one kind")
        if len(set(self.probes)) < len(self.probes):
            raise ValueError("the same probe is listed twice")
        return self

    @property
    def kind(self) -> str:
        return self.probes[0].kind


def grid_id(grid: ProbeGrid) -> str:
    """Kind plus hash, e.g. ``linear-1a2b3c4d``."""
    return f"{grid.kind}-{short_hash(grid.canonical())}"


def label_fraction(probe: Value) -> float:
    """The fraction of the training labels that a probe is trained on: all, for kinds without this setting."""
    return getattr(probe, "fraction", 1.0)


def label_count(fraction: float, images: int) -> int:
    """The number of labels in a fraction of the training images, rounded up as scikit-learn does."""
    return math.ceil(fraction * images)


def setting(probe: Value) -> str:
    """Names a probe among its competitors: its weight decay, and every other setting that is not the default."""

    def differs(name: str, value: Any) -> bool:
        return name == "weight_decay" or value != type(probe).model_fields[name].default

    named = {name: value for name, value in probe if name not in ("kind", "fraction") and differs(name, value)}
    return ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in named.items())


def _short(value: Any) -> str:
    """Six digits of a number, or all of them where six would make two settings look alike."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
