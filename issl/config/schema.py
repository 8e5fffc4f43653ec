"""The shape of config.yaml: its sections as typed models."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    WithJsonSchema,
)

from issl.config.display import EvaluationTable, Figure, Lines, Scatter, Table
from issl.config.evidence import Claim, Comparison, Published
from issl.config.hardware import Hardware
from issl.jobs.execution import Execution
from issl.spec.augment import Augment
from issl.spec.data import DataSpec
from issl.spec.encoder import Encoder
from issl.spec.optim import Optim
from issl.spec.protocol import Metric
from issl.spec.value import Name, Value

# A section of a run may be given in part; the whole is validated once the layers are merged.
Part = dict[str, Any]


def _part_of(model: type[Value]) -> Any:
    schema = model.model_json_schema()
    return Annotated[Part, WithJsonSchema(_inlined(schema, schema.pop("$defs", {})))]


def _inlined(schema: Any, definitions: Part) -> Any:
    """A schema with what it refers to in place: its definitions would get lost inside another schema."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(part, definitions) for key, part in schema.items()}


class Patch(Value):
    """Some settings of a run: what `defaults`, a method, a named patch or a row may say."""

    data: Name | None = Field(None, description="name of an entry of `data`")
    augment: _part_of(Augment) = {}
    encoder: _part_of(Encoder) = {}
    objective: Part = {}
    optim: _part_of(Optim) = {}


class Method(Patch):
    """A named objective, how figures and tables call it, and the probe family that it is made for."""

    label: str
    probe: Literal["linear", "mlp"] = "linear"


class Row(Patch):
    """A run of an experiment: a method, the patches on top of it, and keys of its own."""

    method: Name | None = None
    patches: tuple[Name, ...] = Field((), alias="with")


class Experiment(Value):
    """A base plus rows, a grid or a zip; its probes; how its results are shown, and what the paper says of them.

    Without probes, figure and table it only pretrains.
    """

    base: Row = Row()
    rows: dict[str, Row] | None = None
    grid: dict[str, list[Any]] | None = Field(None, description="every combination of the listed values")
    zip: dict[str, list[Any]] | None = Field(None, description="the first of each list, the second of each, ...")
    of: Literal["all"] | None = Field(None, description="instead of rows: every run of the other experiments")
    not_run: str | None = Field(None, description="instead of rows: why only the published numbers are here")
    probes: list[Part] = Field([], description="settings of probes; a list of values stands for each of them")
    figure: Figure | None = None
    table: Table | None = None
    published: Published | None = None
    claims: dict[str, Claim] = Field({}, description="what the paper says, each in its own words")

    @property
    def shown(self) -> Lines | Scatter | Table | None:
        """The figure or the table; None for an experiment that is not run."""
        return self.figure or self.table


class EvaluationRow(Value):
    """Frozen weights on a data set, and by what they are judged: what is not said has its default in the code."""

    weights: str | None = Field(
        None, description="name of a released model, or <experiment>/<row> of what this preset pretrains"
    )
    data: Name | None = Field(None, description="name of an entry of `data`")
    resize: PositiveInt | None = Field(None, description="shorter side in pixels")
    crop: PositiveInt | None = Field(None, description="side of the central square that is cut out of it")
    layer: Literal["output", "trunk"] | None = None
    batch_norm: Literal["eval", "train"] | None = None
    batch_size: PositiveInt | None = None
    metrics: tuple[Metric, ...] | None = Field(None, description="settings are chosen by the first", min_length=1)


class Evaluation(Value):
    """Rows of frozen weights, protocols that score each of them, and the table that shows them."""

    caption: str = ""
    base: EvaluationRow = EvaluationRow()
    rows: dict[str, EvaluationRow] = {}
    protocols: dict[str, Part] = Field({}, description="column of the table -> protocol")
    seeds: tuple[NonNegativeInt, ...] = Field(
        (0,), min_length=1, description="of the probes of released weights; of our own runs, those of the preset"
    )
    published: Published | None = None
    claims: dict[str, Claim] = {}

    @property
    def shown(self) -> EvaluationTable:
        """How it is shown."""
        return EvaluationTable(kind="evaluation", caption=self.caption)


class Config(Value):
    """One preset of config.yaml, after its overlay."""

    seeds: tuple[NonNegativeInt, ...] = Field((1,), min_length=1)
    comparable: bool = Field(
        True, description="whether published numbers may stand beside these; false for a preset that does not say it"
    )
    data: dict[Name, DataSpec]
    defaults: Patch
    methods: dict[Name, Method]
    patches: dict[Name, Patch] = {}
    experiments: dict[Name, Experiment]
    evaluations: dict[Name, Evaluation] = Field({}, description="of published weights; made when asked for by name")
    comparison: Comparison = Comparison()
    hardware: Hardware = Hardware()
    execution: Execution = Execution()
    existing_only: bool = Field(False, description="show and compare only what is on disk, and train nothing for it")


def json_schema() -> dict[str, Any]:
    """JSON schema of config.yaml for editors, generated from the models above."""
    schema = Config.model_json_schema()
    schema["properties"]["presets"] = {
        "type": "object",
        "description": "overlays: mappings merge, other values replace, null removes",
        "additionalProperties": {"type": "object"},
    }
    return schema
