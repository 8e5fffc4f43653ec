"""What the jobs of each rule request from a cluster."""

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
    """What a job of a rule asks for, on a cluster and from the local scheduler."""

    gpus: Annotated[int, Field(ge=0, le=1)] = Field(0, description="a job computes on one GPU at most")
    threads: PositiveInt = 1
    mem_gb: PositiveFloat = 4
    minutes: PositiveInt = 10
    minutes_per_epoch: NonNegativeFloat = Field(0, description="pretrain only: added for each epoch")


class PretrainResources(Resources):
    """What a pretraining asks for: it may share its batches among the GPUs of one machine or several."""

    gpus: NonNegativeInt = Field(0, description="on each machine; a process for each, and equal parts of every batch")
    threads: PositiveInt = Field(1, description="of each process where srun starts them (`nodes`), else of the job")
    nodes: PositiveInt | None = Field(
        None, description="machines; srun then starts the processes. Without it, Lightning does, on one machine"
    )


class Hardware(Value):
    """Resources of each rule that does more than read a small table."""

    prepare: Resources = Resources()
    pretrain: PretrainResources = PretrainResources()
    featurize: Resources = Resources()
    probe: Resources = Resources()
    featurize_weights: Resources = Resources()
    probe_weights: Resources = Resources()
    probe_images: Resources = Resources()
