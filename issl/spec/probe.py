"""Probes: supervised heads on frozen features."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from issl.spec.value import Probability, Value, short_hash


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
