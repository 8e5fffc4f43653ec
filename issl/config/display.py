"""Figures and tables of config.yaml."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
)

from issl.spec.value import Value


def word(value: Any) -> Any:
    """Names a point the same way for YAML, JSON, a CSV and a spec: 1, 1.0 and "1.0" are all "1".

    Other words stay as they are written, also 007, 1e3 and True.
    """
    if isinstance(value, str | bool):
        return re.sub(r"^(-?\d+)\.0+$", r"\1", str(value))
    if value is None:
        return None
    if isinstance(value, int):
        return str(value)
    number = float(value)
    return str(int(number)) if number.is_integer() else str(number)


def printed(name: str) -> str:
    """A name as it prints: two names that print alike cannot be told apart."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def _word(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return word(value)
    raise ValueError("must be a word or a number")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
Word = Annotated[Text, BeforeValidator(_word), WithJsonSchema({"type": ["string", "number"]})]


Selection = Literal[
    "test_selected", "val_selected"
]  # by the test split, as the paper's code does, or by held-out labels


# Of representations without labels, in the record of their features: issl/probing/spread.py.
Measure = Literal["rank_me", "alignment", "uniformity"]


class Lines(Value):
    """A figure of accuracy (%) against one column of the tidy results, with a line for each value of another column.

    A `reference` with a single point, e.g. supervised training, is a horizontal line.
    """

    kind: Literal["lines"]
    caption: str = ""
    x: Literal["dim", "n_labels", "epochs", "strength"]
    hue: Literal["method", "strength", "dim", "probe", "data"]
    xscale: Literal["linear", "log2", "log10"] = "linear"
    xlabel: str
    ylabel: str = "Accuracy (%)"
    accuracy: Selection = Field("test_selected", description="on what the setting of the probe is selected")
    weight_decay: NonNegativeFloat | None = Field(None, description="show only this one instead of selecting one")
    palette: Literal["categorical", "sequential"] = "categorical"
    reference: tuple[Word, ...] = Field((), description="values of hue to draw as thin grey lines behind the others")
    legend: Literal["inside", "outside"] = Field(
        "inside", description="inside: in a corner without data, or outside if there is none"
    )
    legend_title: str | None = None
    size: tuple[PositiveFloat, PositiveFloat] = Field((5.0, 5.0), description="inches")
    line_width: PositiveFloat = 4.0

    @property
    def axes(self) -> tuple[str, tuple[str, ...]]:
        """Columns of the tidy results that name a point's line and its column."""
        return self.hue, (self.x,)


class Scatter(Value):
    """A figure of accuracy (%) against a quantity of the encoder: a point per encoder and seed, a colour per `hue`.

    Shows the probes of each method's own family on all labels. Released weights, whose quantity is not known, are
    horizontal lines.
    """

    kind: Literal["scatter"]
    caption: str = ""
    x: Literal["log_loss"] | Measure
    hue: Literal["method", "dim", "strength"]
    xlabel: str
    ylabel: str = "Accuracy (%)"
    accuracy: Selection = Field("test_selected", description="on what the setting of the probe is selected")
    weight_decay: NonNegativeFloat | None = Field(None, description="show only this one instead of selecting one")
    above: NonNegativeFloat = Field(0, description="draw only accuracies (%) above this; claims are about all")
    falling: bool = Field(False, description="whether x falls from left to right")
    highlight: tuple[Word, ...] = Field((), description="rows to draw in blue, with all others in grey")
    size: tuple[PositiveFloat, PositiveFloat] = Field((6.0, 5.0), description="inches")

    @property
    def axes(self) -> tuple[str, tuple[str, ...]]:
        """Columns of the tidy results that name a point's line and its column."""
        return self.hue, ("encoder",)


Figure = Annotated[Lines | Scatter, Field(discriminator="kind")]


def figure_of(text: str) -> Lines | Scatter:
    """A figure from its canonical JSON."""
    return TypeAdapter(Figure).validate_json(text)


class Table(Value):
    """A table of accuracies: a line per row, and a column for each value of `columns`, or just one."""

    caption: str
    columns: tuple[Literal["probe", "fraction", "metric"], ...] = ()
    measures: tuple[Measure, ...] = Field((), description="of the representations, without labels: a column for each")

    @field_validator("measures")
    @classmethod
    def _distinct(cls, measures: tuple[Measure, ...]) -> tuple[Measure, ...]:
        if twice := [name for name in measures if measures.count(name) > 1]:
            raise ValueError(f"'{twice[0]}' is listed twice")
        return measures

    @property
    def axes(self) -> tuple[str, tuple[str, ...]]:
        """Columns of the tidy results that name a point's line and its column."""
        return "row", self.columns


def point_name(facts: Mapping[str, Any], axes: tuple[str, ...]) -> str:
    """The name of a line or column of a figure or table, from the tidy results."""
    return ", ".join(str(word(facts[axis])) for axis in axes)
