"""The shape of config.yaml: typed sections, presets as overlays, errors that name key, value and what is allowed."""

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from issl.errors import UserError, nearest
from issl.evaluation.spec import Metric
from issl.spec import Augment, DataSpec, Encoder, Name, Optim, Value

# A section of a run may be given in part; the whole is validated once the layers are merged.
Part = dict[str, Any]

M = TypeVar("M", bound=BaseModel)

UNIONS = (typing.Union, types.UnionType)


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


class Resources(Value):
    """What a job of a rule asks for, on a cluster and from the local scheduler."""

    gpus: Annotated[int, Field(ge=0, le=1)] = Field(0, description="a job computes on one GPU at most")
    threads: PositiveInt = 1
    mem_gb: PositiveFloat = 4
    minutes: PositiveInt = 10
    minutes_per_epoch: NonNegativeFloat = Field(0, description="pretrain only: added for each epoch")


class PretrainResources(Resources):
    """What a pretraining asks for: it may share its batches among the GPUs of one machine or several."""

    gpus: NonNegativeInt = Field(0, description="on each machine; a process for each, and equal parts of every batch")
    threads: PositiveInt = Field(1, description="of each process where srun starts them (`nodes`), else of the job")
    nodes: PositiveInt | None = Field(
        None, description="machines; srun then starts the processes. Without it, Lightning does, on one machine"
    )


class Hardware(Value):
    """Resources of each rule that does more than read a small table."""

    prepare: Resources = Resources()
    pretrain: PretrainResources = PretrainResources()
    featurize: Resources = Resources()
    probe: Resources = Resources()
    featurize_weights: Resources = Resources()
    probe_weights: Resources = Resources()
    probe_images: Resources = Resources()


class Wandb(Value):
    """Weights & Biases tracking of pretraining; the key comes from the user's own login, never from here."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "issl"
    entity: str | None = None


class Comparison(Value):
    """When a reproduced number agrees with a published one, and when a claim holds."""

    repeat: PositiveFloat = Field(
        0.3, description="points between two runs of one configuration, taken as the standard deviation of a difference"
    )
    repeat_images: PositiveInt = Field(10_000, description="test images on which that was seen")
    standard_errors: PositiveFloat = Field(2.0, description="a number agrees within that many of them")
    significance: Annotated[float, Field(gt=0, lt=0.5)] = Field(0.05, description="level of the test of a claim")


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


PAPER = "paper"


def presets(raw: Mapping[str, Any]) -> dict[str, Config]:
    """Validates config.yaml and gives each preset: *paper* is the file itself, the others lie over it.

    Raises UserError with one line naming the key, the value and what is allowed.
    """
    base = {key: value for key, value in raw.items() if key != "presets"}
    overlays = raw.get("presets") or {}
    if not isinstance(overlays, Mapping) or not all(isinstance(o, Mapping) for o in overlays.values()):
        raise UserError("config: presets: each preset must be a mapping of what it changes")
    for name in overlays:
        if name == PAPER or not str(name).isidentifier():
            raise UserError(f"config: presets.{name}: a preset needs a plain name other than '{PAPER}'")
    _refuse_ends_of_scripts(raw)
    layers = {PAPER: base} | {name: merge(_below(base, overlay), overlay) for name, overlay in overlays.items()}
    return {
        name: validate(Config, layer, "config" if name == PAPER else f"config (preset {name})")
        for name, layer in layers.items()
    }


def _refuse_ends_of_scripts(content: Any, place: str = "config") -> None:
    """Snakemake's report carries captions and names inside a script, which such a word would end in the middle."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            _refuse_ends_of_scripts(str(key), f"{place}: a key")
            _refuse_ends_of_scripts(value, f"{place}: {key}" if place == "config" else f"{place}.{key}")
    elif isinstance(content, list | tuple):
        for value in content:
            _refuse_ends_of_scripts(value, place)
    elif isinstance(content, str) and "</script" in content.lower():
        raise UserError(f"{place}: '</script' cannot stand in a report, not {content!r}")


def _below(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """What lies below a preset: of the evaluations only those that it names, since they know no smaller settings.

    Its numbers are not comparable with the paper's unless it says so.
    """
    every, named = base.get("evaluations") or {}, overlay.get("evaluations") or {}
    return {**base, "comparable": False, "evaluations": {name: every[name] for name in every if name in named}}


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lays a nested mapping over another: mappings merge, other values replace, null removes."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def validate(model: type[M], content: Any, where: str) -> M:
    """Builds a model, turning the first of pydantic's complaints into one readable line."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(explain(error, model, where)) from None


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One line: place, key, value, what is allowed. Unknown keys come first, with the nearest spelling."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    parents, path = _walk(model, first["loc"])
    place = f"{where}: {'.'.join(path)}" if path else where
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key, {nearest(path[-1], _keys(parents[-1]))}"
    if first["type"] == "missing":
        return f"{place}: missing"
    if first["type"] == "union_tag_invalid":
        key, tags = (
            first["ctx"]["discriminator"].strip("'"),
            [_tag(member) for member in _union(_child(parents[-1], path[-1]))],
        )
        return f"{place}: unknown {key} '{first['ctx']['tag']}', {nearest(first['ctx']['tag'], tags)}"
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    return f"{place}: {message}" + ("" if isinstance(given, Mapping | BaseModel) else f", not {given!r}")


def _keys(model: Any) -> list[str]:
    fields = getattr(model, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _walk(model: Any, location: tuple[int | str, ...]) -> tuple[list[Any], list[str]]:
    """The type around each step of an error's location, and the steps that stand in the user's file.

    pydantic inserts the tag of a discriminated union into the location; it is a step of the type only.
    """
    parents, path, current = [], [], model
    for step in location:
        members = _union(current)
        if members and step in (tags := {_tag(m): m for m in members}):
            current = tags[step]
            continue
        parents.append(current)
        path.append(str(step))
        current = _child(current, step)
    return parents, path


def _bare(annotation: Any) -> Any:
    """Without Annotated, and without the None of an optional."""
    if typing.get_origin(annotation) is Annotated:
        return _bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in UNIONS:
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _union(annotation: Any) -> list[Any]:
    annotation = _bare(annotation)
    if typing.get_origin(annotation) not in UNIONS:
        return []
    return [member for member in typing.get_args(annotation) if hasattr(member, "model_fields")]


def _tag(model: Any) -> str | None:
    for key in ("kind", "name"):
        values = typing.get_args(model.model_fields[key].annotation) if key in model.model_fields else ()
        if len(values) == 1:
            return values[0]
    return None


def _child(annotation: Any, step: int | str) -> Any:
    annotation = _bare(annotation)
    if options := _union(annotation):
        annotation = options[0]
    if hasattr(annotation, "model_fields"):
        by_alias = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
        return by_alias.get(step)
    arguments = typing.get_args(annotation)
    return arguments[-1] if typing.get_origin(annotation) is dict else arguments[0] if arguments else None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file safely. Raises UserError where it cannot be read or says one key twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        refuse_duplicates(yaml.compose(text, yaml.SafeLoader), path)
        return yaml.safe_load(text) or {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None  # names line and column


def refuse_mistakes(*paths: str | Path) -> None:
    """Reads the files that exist, for the mistakes that Snakemake passes over: a key that stands twice, bad YAML."""
    for path in dict.fromkeys(map(str, paths)):
        if Path(path).exists():
            read_yaml(path)


def refuse_duplicates(node: yaml.Node | None, path: str | Path) -> None:
    """YAML lets the last of two equal keys win in silence: a row would vanish. Raises UserError instead."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise UserError(f"{path}: line {line}: '{key.value}' stands twice (first in line {seen[key.value]})")
            seen[key.value] = line
        for _, value in node.value:
            refuse_duplicates(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_duplicates(item, path)


def json_schema() -> dict[str, Any]:
    """JSON schema of config.yaml for editors, generated from the models above."""
    schema = Config.model_json_schema()
    schema["properties"]["presets"] = {
        "type": "object",
        "description": "overlays: mappings merge, other values replace, null removes",
        "additionalProperties": {"type": "object"},
    }
    return schema
