"""How jobs run: nothing here may change a result beyond rounding."""

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveInt,
)

from issl.spec.value import Value


class Wandb(Value):
    """Weights & Biases tracking of pretraining; the key comes from the user's own login, never from here."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "issl"
    entity: str | None = None


class Execution(Value):
    """How jobs run. Nothing here may change a result beyond rounding, so nothing here reruns a job."""

    device: Literal["gpu", "cpu", "auto"] = Field("gpu", description="gpu: stop where there is none")
    precision: Literal["auto", "bf16", "fp16", "32"] = Field(
        "auto",
        description="of matrix products; auto: bf16 where the hardware has it, else fp16 on a GPU and 32 on the CPU",
    )
    progress: bool = Field(True, description="progress bar on a terminal")
    validate_every: PositiveInt = Field(10, description="epochs between two looks at the test split, for monitoring")
    resident_gb: NonNegativeFloat = Field(
        8, description="a data set up to this size lies in the device's memory; a larger one is streamed"
    )
    checkpoint_minutes: NonNegativeFloat = Field(5, description="least time between two checkpoints")
    stop_minutes: NonNegativeFloat = Field(
        2, description="pretraining leaves its slot so long before the end, or a fifth of the slot before"
    )
    wandb: Wandb = Wandb()
