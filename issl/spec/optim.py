"""Optimisation of pretraining."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from issl.spec.value import Value


class Optim(Value):
    """Adam with coupled weight decay, or SGD with LARS; warm-up and cosine schedule."""

    epochs: PositiveInt = 300
    batch_size: Annotated[int, Field(ge=2)] = Field(512, description="images, not views")
    lr: PositiveFloat = Field(2e-3, description="for 256 images; scaled linearly with the batch size")
    weight_decay: NonNegativeFloat = 1e-6
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    lr_interval: Literal["epoch", "step"] = Field(
        "epoch",
        description="epoch: constant within an epoch and 0 in the first one, as released; step: changes at every step",
    )
    clip_value: NonNegativeFloat = Field(2.0, description="limit of each gradient element; 0: no clipping")
    online_lr: PositiveFloat = Field(3e-4, description="of the online linear evaluation; not scaled")
    optimizer: Literal["adam", "lars"] = Field(
        "adam", description="lars: SGD with momentum and LARS on every parameter, the online evaluation without LARS"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="for lars")
    trust: PositiveFloat = Field(0.001, description="for lars: step length at rate 1, relative to the parameter's norm")
    cosine: Literal["after_warmup", "whole_run"] = Field(
        "after_warmup", description="where it begins; whole_run: at the first step, so the warm-up covers its start"
    )
    warmup_lr: NonNegativeFloat = Field(0.0, description="rate at the first step with whole_run; not scaled")
    drop_last: bool = Field(False, description="drop the last batch of an epoch if it is incomplete")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"epochs {self.epochs} must exceed warmup_epochs {self.warmup_epochs}")
        if self.cosine == "whole_run" and self.lr_interval == "epoch":
            raise ValueError("'cosine: whole_run' changes at every step: it needs 'lr_interval: step'")
        return self
