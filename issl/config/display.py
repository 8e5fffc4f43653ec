"""How results are shown: figures and tables of config.yaml."""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    TypeAdapter,
    WithJsonSchema,
)

from issl.spec.value import Value


def word(value: Any) -> Any:
    """Names a point the same way whether YAML, a CSV or a spec says it: 1, 1.0 and "1.0" are all "1"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return str(int(number)) if number.is_integer() else str(number)


Word = Annotated[str, BeforeValidator(word), WithJsonSchema({"type": ["string", "number"]})]


class Lines(Value):
    """A figure of accuracy against one column of the tidy results, a line for each value of another column."""

    kind: Literal["lines"]
    caption: str = ""
    x: Literal["dim", "n_labels", "epochs", "strength"]
    hue: Literal["method", "strength", "dim", "probe"]
    xscale: Literal["linear", "log2", "log10"] = "linear"
    xlabel: str
    ylabel: str = "Accuracy"
    accuracy: Literal["published", "honest"] = Field("published", description="how the weight decay was chosen")
    weight_decay: NonNegativeFloat | None = Field(None, description="keep only this one instead of choosing")
    palette: Literal["categorical", "sequential"] = "categorical"
    legend: Literal["inside", "outside"] = "inside"
    legend_title: str | None = None
    size: tuple[PositiveFloat, PositiveFloat] = Field((5.0, 5.0), description="inches")
    line_width: PositiveFloat = 4.0

    @property
    def axes(self) -> tuple[str, str]:
        """Columns of the tidy results that name a point's line and its column."""
        return self.hue, self.x


class Scatter(Value):
    """A figure of accuracy against a number of the run itself: a point a run, a look for each value of `hue`.

    Shows the probes of each method's own family on all labels.
    """

    kind: Literal["scatter"]
    caption: str = ""
    x: Literal["log_loss"]
    hue: Literal["method", "dim", "strength"]
    xlabel: str
    ylabel: str = "Accuracy"
    accuracy: Literal["published", "honest"] = Field("published", description="how the weight decay was chosen")
    size: tuple[PositiveFloat, PositiveFloat] = Field((6.0, 5.0), description="inches")

    @property
    def axes(self) -> tuple[str, str]:
        """Columns of the tidy results that name a point's line and its column."""
        return self.hue, "run"


Figure = Annotated[Lines | Scatter, Field(discriminator="kind")]


def figure_of(text: str) -> Lines | Scatter:
    """A figure from its canonical JSON."""
    return TypeAdapter(Figure).validate_json(text)


class Table(Value):
    """A table of accuracies: a line a row, and a column for each fraction of the labels, if there are several."""

    caption: str
    columns: Literal["fraction"] | None = None

    @property
    def axes(self) -> tuple[str, str | None]:
        """Columns of the tidy results that name a point's line and its column."""
        return "row", self.columns


class EvaluationTable(Value):
    """A table of accuracies of frozen weights: a line a row, and a column for each protocol and metric."""

    kind: Literal["evaluation"]
    caption: str

    @property
    def axes(self) -> tuple[str, str]:
        """Columns of the tidy results that name a point's line and its column."""
        return "row", "protocol"


def table_of(text: str) -> Table | EvaluationTable:
    """A table from its canonical JSON."""
    return TypeAdapter(EvaluationTable | Table).validate_json(text)
