"""The sections of config.yaml as typed models."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, TypeAdapter, WithJsonSchema, field_validator

from issl.config.display import Figure, Lines, Scatter, Table, Text, Word, printed, word
from issl.config.evidence import Claim, Comparison, Published
from issl.config.hardware import Hardware, MoreHardware
from issl.jobs.execution import Execution
from issl.spec.augment import Augment
from issl.spec.data import DataSpec
from issl.spec.encoder import Encoder
from issl.spec.encoding import Encoding
from issl.spec.objective import ObjectiveSpec
from issl.spec.optim import Optim
from issl.spec.probe import Metric, Probe
from issl.spec.value import Name, Value

# Sections of a run may be partial; they are validated once all layers are merged.
Part = dict[str, Any]

# scikit-learn rejects seeds above 32 bits, but only after pretraining.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# One seed may be written without brackets.
Seeds = Annotated[
    tuple[Seed, ...], Field(min_length=1), BeforeValidator(lambda seeds: [seeds] if type(seeds) is int else seeds)
]

# So may one source.
Sources = Annotated[
    tuple[str, ...], BeforeValidator(lambda sources: [sources] if isinstance(sources, str) else sources)
]

PARTIAL = "x-part"  # in a schema: name of a union or model, any of whose settings may be given; see `json_schema`


def _part(name: str) -> Any:
    return Annotated[Part, WithJsonSchema({PARTIAL: name})]


class Patch(Value):
    """Some settings of a run, in `defaults`, a method, a named patch or a row."""

    data: Name | None = Field(None, description="name of an entry of `data`")
    augment: _part("Augment") = {}
    encoder: _part("Encoder") = {}
    objective: _part("Objective") = {}
    optim: _part("Optim") = {}


class Method(Patch):
    """A named objective, its label in figures and tables, and its probe family."""

    label: Text
    probe: Literal["linear", "mlp"] = "linear"


class Row(Patch):
    """An encoder on a data set: pretrained with a method, or existing weights."""

    method: Name | None = Field(None, description="pretrains it; `data` is then used for pretraining and probes")
    patches: tuple[Name, ...] = Field((), alias="with")
    weights: str | None = Field(
        None, description="instead of a method: a released model, or <experiment>/<row>; `data` is then only for probes"
    )
    features: _part("Encoding") = Field({}, description="how images are encoded")
    metrics: tuple[Metric, ...] | None = Field(None, description="the first one selects settings", min_length=1)


class Experiment(Value):
    """A base plus rows, a grid or a zip; probes; a figure or table of the results, and the paper's numbers and claims.

    Without probes, figure and table it only pretrains.
    """

    base: Row = Row()
    rows: dict[Word, Row] | None = None
    grid: dict[str, list[Any]] | None = Field(None, description="every combination of the listed values")
    zip: dict[str, list[Any]] | None = Field(None, description="the first of each list, the second of each, ...")
    of: Literal["all"] | None = Field(
        None, description="instead of rows: every row of the other experiments that is scored on the default data"
    )
    not_run: str | None = Field(None, description="instead of rows: why there are only published numbers")
    on_request: bool = Field(False, description="made only if its files are requested by name, not by `all`")
    seeds: Seeds | None = Field(None, description="instead of the preset's")
    probes: list[_part("Probe")] = Field([], description="settings of probes; a list of values gives a probe for each")
    figure: Figure | None = None
    table: Table | None = None
    published: Published | None = None
    claims: dict[Text, Claim] = Field({}, description="claims of the paper, each keyed by its text")
    hardware: MoreHardware = MoreHardware()
    weight: NonNegativeFloat = Field(
        1.0, description="for `issl plan --budget`: worth of each of its published numbers and claims"
    )

    @field_validator("rows", mode="before")
    @classmethod
    def _distinct(cls, rows: Any) -> Any:
        names = [printed(str(word(name))) for name in rows if name] if isinstance(rows, Mapping) else []
        if alike := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two rows are both called '{alike[0]}'")
        return rows

    @property
    def display(self) -> Lines | Scatter | Table | None:
        """The figure or the table; None for an experiment that is not run, or only pretrains."""
        return self.figure or self.table


class Config(Value):
    """One preset of config.yaml, after its overlay."""

    seeds: Seeds = (1,)
    comparable: bool = Field(
        True, description="whether results are comparable with the paper's; false for a preset that does not set it"
    )
    inherit: Literal["all", "named"] = Field(
        "all", description="for a preset: whether it inherits all experiments of config.yaml, or only those it names"
    )
    data: dict[Name, DataSpec]
    defaults: Patch
    methods: dict[Name, Method]
    patches: dict[Name, Patch] = {}
    experiments: dict[Name, Experiment]
    comparison: Comparison = Comparison()
    hardware: Hardware = Hardware()
    execution: Execution = Execution()
    shared: Sources = Field(
        (), description="sources of published runs, asked in this order: what one has is pulled instead of trained"
    )
    existing_only: bool = Field(False, description="show and compare only results on disk, without training")


# --- for editors -----------------------------------------------------------------------------------------------------

PARTS: dict[str, Any] = {
    "Augment": Augment,
    "Encoder": Encoder,
    "Objective": ObjectiveSpec,
    "Optim": Optim,
    "Encoding": Encoding,
    "Probe": Probe,
}


def json_schema() -> dict[str, Any]:
    """JSON schema of config.yaml for editors, generated from the models above."""
    schema = Config.model_json_schema()
    schema["properties"]["presets"] = {
        "type": "object",
        "description": "overlays: mappings merge, other values replace, null removes",
        "additionalProperties": {"type": "object"},
    }
    for name, model in PARTS.items():
        found = TypeAdapter(model).json_schema()
        schema["$defs"] |= found.pop("$defs", {})
        members = [member["$ref"].rpartition("/")[2] for member in found.get("oneOf", ())]
        parts = [_optional(schema["$defs"].pop(member), name) for member in members] or [_optional(found, name)]
        schema["$defs"][f"Some{name}"] = {"anyOf": parts} if len(parts) > 1 else parts[0]
    return _referring(schema)


def _optional(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a model with no setting required; for probes, each value may be a list of values."""
    properties = {key: value for key, value in schema["properties"].items() if (name, key) != ("Encoding", "data")}
    if name == "Probe":
        properties = {key: _or_list(value) for key, value in properties.items()} | {"label": {"type": "string"}}
    return {key: value for key, value in schema.items() if key != "required"} | {"properties": properties}


def _or_list(schema: dict[str, Any]) -> dict[str, Any]:
    about = {key: schema[key] for key in ("description", "default") if key in schema}
    value = {key: part for key, part in schema.items() if key not in (*about, "title")}
    return about | {"anyOf": [value, {"type": "array", "items": value}]}


def _referring(schema: Any) -> Any:
    """Replaces each mark of `_part` with a reference."""
    if isinstance(schema, list):
        return [_referring(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = {"$ref": f"#/$defs/Some{schema[PARTIAL]}"} if PARTIAL in schema else {}
    return {key: _referring(value) for key, value in schema.items() if key != PARTIAL} | reference
