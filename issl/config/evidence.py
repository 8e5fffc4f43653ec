"""Published numbers, claims, and the rules for comparing results with them."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from issl.config.display import Text, Word
from issl.spec.value import Value


def _number_or_columns(value: Any) -> Any:
    try:
        return value if isinstance(value, Mapping) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a number, or a mapping of columns to numbers") from None


Values = dict[Word, Annotated[dict[Word, float] | float, BeforeValidator(_number_or_columns)]]
Source = Annotated[Text, Field(description="where the numbers are published")]
Points = dict[tuple[str, str], float]  # per cent by line and column; the column is empty if a line has only one value


class Also(Value):
    """Numbers of another source for lines and columns that already have published ones; shown beside these."""

    label: Text = Field(description="heads their column: published, <label>")
    source: Source
    precision: PositiveFloat = Field(description="points: half the last digit, or the reading error")
    values: Values = Field(min_length=1, description="per line, or per line and column")

    @property
    def points(self) -> Points:
        return _points(self.values)


class Published(Value):
    """The paper's numbers for an experiment, in per cent, and their precision."""

    source: Source
    precision: PositiveFloat | None = Field(None, description="points: half the last digit, or the reading error")
    values: Values = Field({}, description="per line, or per line and column")
    also: tuple[Also, ...] = Field((), description="other sources; results are judged by `values` alone")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if bool(self.values) != (self.precision is not None):
            raise ValueError("values need a precision, and a precision needs values")
        labels = [other.label for other in self.also]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"also: two sources are labelled '{twice[0]}'")
        for other in self.also:
            if alone := [", ".join(filter(None, point)) for point in other.points if point not in self.points]:
                raise ValueError(f"also '{other.label}': '{alone[0]}' has no number in values, to which it would add")
        return self

    @property
    def points(self) -> Points:
        return _points(self.values)

    def also_at(self, line: str, column: str) -> dict[str, float]:
        """The numbers of other sources at a point, by label."""
        return {other.label: other.points[line, column] for other in self.also if (line, column) in other.points}


def _points(values: Values) -> Points:
    columns = {line: value if isinstance(value, dict) else {"": value} for line, value in values.items()}
    return {(line, column): value for line, found in columns.items() for column, value in found.items()}


class Claim(Value):
    """A claim of the paper about the lines of an experiment: exactly one of the first five keys, and its partners."""

    better: Word | None = Field(None, description="this line is more accurate than `than` in every column")
    rises: Word | None = Field(None, description="this line rises from the first to the last column, and no step falls")
    saturates: Word | None = Field(None, description="this line's last step gains less than its first")
    narrows: Word | None = Field(
        None, description="this line's lead over `than` is smaller in the last column than in the first"
    )
    falls: Word | None = Field(None, description="for a scatter: this line's accuracy falls as x grows, over its runs")
    than: Word | None = None
    instead_of: Word | None = Field(
        None, description="with `better`: report how much of the lead over this line remains"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        verbs = [verb for verb in VERBS if getattr(self, verb) is not None]
        if len(verbs) != 1:
            raise ValueError(f"needs exactly one of {', '.join(VERBS)}")
        if (self.than is None) == (verbs[0] in ("better", "narrows")):
            raise ValueError("better and narrows need 'than', and no other claim takes it")
        if self.instead_of is not None and verbs[0] != "better":
            raise ValueError("only better takes 'instead_of'")
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

    repeat: PositiveFloat = Field(0.3, description="points between two published runs of one configuration")
    repeat_images: PositiveInt = Field(10_000, description="number of test images of those two runs")
    repeat_freedom: PositiveFloat = Field(3.0, description="degrees of freedom for which that difference counts")
    prior_freedom: PositiveFloat = Field(
        4.0, description="most degrees of freedom for which noise measured on other points counts"
    )
    standard_errors: PositiveFloat = Field(2.0, description="a number agrees within this many standard errors")
    significance: Annotated[float, Field(gt=0, lt=0.5)] = Field(0.05, description="level of the test of a claim")
