"""Optimisation of a pretraining."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from issl.spec.value import Value


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
