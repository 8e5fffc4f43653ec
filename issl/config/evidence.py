"""What results are held against: published numbers, claims, and the rules of comparison."""

from typing import Annotated, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from issl.config.display import Word
from issl.spec.value import Value


class Published(Value):
    """What the paper reports of an experiment, in per cent, and how exactly that is known."""

    source: str = Field(description="where the numbers stand")
    precision: PositiveFloat | None = Field(None, description="points: half the last digit, or the error of reading")
    values: dict[Word, dict[Word, float] | float] = Field(
        {}, description="of each line, or of each column of each line"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if bool(self.values) != (self.precision is not None):
            raise ValueError("values need a precision, and a precision needs values")
        return self

    @property
    def points(self) -> dict[tuple[str, str], float]:
        """Per cent by line and column; the column of a line that has one value only is the empty word."""
        columns = {line: said if isinstance(said, dict) else {"": said} for line, said in self.values.items()}
        return {(line, column): value for line, said in columns.items() for column, value in said.items()}


class Claim(Value):
    """What the paper says of an experiment, in terms of its lines: one of the first five keys, and its partners."""

    better: Word | None = Field(None, description="this line is more accurate than `than`, in every column")
    rises: Word | None = Field(None, description="grows from the first column to the last, and no step falls")
    saturates: Word | None = Field(None, description="the last step gains less than the first")
    narrows: Word | None = Field(
        None, description="its lead over `than` is smaller in the last column than in the first"
    )
    falls: Word | None = Field(None, description="of a scatter: accuracy falls as x grows, over its runs")
    than: Word | None = None
    instead_of: Word | None = Field(None, description="with `better`: what is left of the lead over this line")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        said = [verb for verb in VERBS if getattr(self, verb) is not None]
        if len(said) != 1:
            raise ValueError(f"needs exactly one of {', '.join(VERBS)}")
        if (self.than is None) == (said[0] in ("better", "narrows")):
            raise ValueError("'than' goes with better and narrows, and with nothing else")
        if self.instead_of is not None and said[0] != "better":
            raise ValueError("'instead_of' goes with better alone")
        return self

    @property
    def verb(self) -> str:
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def line(self) -> str:
        """The line that the claim is about."""
        return getattr(self, self.verb)

    @property
    def lines(self) -> list[str]:
        """Every line that the claim names."""
        return [line for line in (self.line, self.than, self.instead_of) if line is not None]


VERBS = ("better", "rises", "saturates", "narrows", "falls")


class Comparison(Value):
    """When a reproduced number agrees with a published one, and when a claim holds."""

    repeat: PositiveFloat = Field(
        0.3, description="points between two runs of one configuration, taken as the standard deviation of a difference"
    )
    repeat_images: PositiveInt = Field(10_000, description="test images on which that was seen")
    standard_errors: PositiveFloat = Field(2.0, description="a number agrees within that many of them")
    significance: Annotated[float, Field(gt=0, lt=0.5)] = Field(0.05, description="level of the test of a claim")
