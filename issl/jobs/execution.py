"""Settings of how jobs run; none may change a result beyond rounding."""

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveInt,
)

from issl.spec.value import Value


class Wandb(Value):
    """Weights & Biases tracking of pretraining; the API key comes from the user's own login, never from here."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "issl"
    entity: str | None = None


class Execution(Value):
    """How jobs run. No setting may change a result beyond rounding, so changing one reruns no job."""

    device: Literal["gpu", "cpu", "auto"] = Field("gpu", description="gpu: fail if there is none")
    precision: Literal["auto", "bf16", "fp16", "32"] = Field(
        "auto",
        description="of matrix products; auto: bf16 if the hardware supports it, else fp16 on a GPU and 32 on the CPU",
    )
    progress: bool = Field(True, description="show progress bars on a terminal")
    graphs: bool = Field(
        True, description="on one GPU, pretraining records the encoder's kernels once and replays them (CUDA graphs)"
    )
    compile: bool = Field(
        False, description="such a recording is compiled first (torch.compile): half a minute more once"
    )
    validate_every: PositiveInt = Field(10, description="epochs between evaluations on the test split, for monitoring")
    resident_gb: NonNegativeFloat = Field(
        8, description="a data set up to this size is kept in the device's memory; a larger one is streamed"
    )
    checkpoint_minutes: NonNegativeFloat = Field(5, description="minimum time between checkpoints")
    stop_minutes: NonNegativeFloat = Field(
        2, description="pretraining stops this long before its Slurm time limit, or at 4/5 of the time that it gets"
    )
    warm: bool = Field(
        True, description="jobs on this machine are forked from a process that has imported their libraries once"
    )
    wandb: Wandb = Wandb()
    track: tuple[Literal["tensorboard", "csv"], ...] = Field(
        (), description="where else each epoch's row goes, in the run's folder; tensorboard needs issl[tensorboard]"
    )
