"""Resources that the jobs of each rule request."""

from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from issl.spec.value import Value


class Resources(Value):
    """Resources that a job of a rule requests, from a cluster or from the local scheduler."""

    gpus: Annotated[int, Field(ge=0, le=1)] = Field(0, description="a job uses at most one GPU")
    threads: PositiveInt = 1
    mem_gb: PositiveFloat = 4
    minutes: PositiveInt = 10


class PretrainResources(Resources):
    """Resources of pretraining, which may split its batches among the GPUs of one or more machines."""

    gpus: NonNegativeInt = Field(0, description="per machine; one process per GPU, each with an equal part of a batch")
    threads: PositiveInt = Field(1, description="of each process if srun starts them (`nodes`), else of the job")
    minutes_per_epoch: NonNegativeFloat = Field(0, description="added to `minutes` for each epoch")
    nodes: PositiveInt | None = Field(
        None, description="machines; srun then starts the processes. By default Lightning does, on one machine"
    )


class Hardware(Value):
    """Resources of each rule that does more than read a small table."""

    prepare: Resources = Resources()
    pretrain: PretrainResources = PretrainResources()
    featurize: Resources = Resources()
    probe: Resources = Resources()
    device: str | None = Field(
        None,
        description="device of the jobs, or a part of its name: if jobs were measured on it, they request the time "
        "that they take there instead of `minutes`",
    )
    margin: Annotated[float, Field(ge=1)] = Field(
        1.5, description="factor on the time that 9 of 10 such jobs would need, if `device` is set"
    )


class More(Value):
    """Larger requests for the jobs of one experiment; by default those of `hardware` apply."""

    threads: PositiveInt | None = None
    mem_gb: PositiveFloat | None = None
    minutes: PositiveInt | None = None


class MoreHardware(Value):
    """Larger requests of an experiment. A job that several experiments share gets the largest of each."""

    featurize: More = More()
    probe: More = More()
