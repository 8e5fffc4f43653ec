"""Hook: tables made from the code. A page says where with a comment, such as <!-- made: settings -->.

Text right below the comment is for readers on a code host, and not on the site.

With <!-- copy of: models --> a page has a copy of a table, for readers on a code host. It must be as it would be made.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, get_args

import click
import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page
from pydantic import BaseModel, TypeAdapter

from issl.cli import issl
from issl.config import plan as catalog
from issl.config import schema as sections
from issl.config.display import Lines, Scatter, Table
from issl.config.evidence import Also, Claim, Comparison, Published
from issl.config.hardware import Hardware, MoreHardware, PretrainResources, Resources
from issl.jobs.execution import Execution, Wandb
from issl.spec.augment import Augment, Crops
from issl.spec.data import DataSpec
from issl.spec.encoder import OWN as ENCODERS
from issl.spec.encoding import Encoding
from issl.spec.objective import Own as Objectives
from issl.spec.optim import Optim
from issl.spec.probe import Own as Probes
from issl.spec.released import MODELS

PROJECT = Path(__file__).parents[2]
MARK = re.compile(r"^<!-- made: (\w+)(?: ([\w.]+))? -->$(?:\n.+)*", re.MULTILINE)
COPY = re.compile(r"^<!-- copy of: (\w+) -->\n+", re.MULTILINE)

# Of each section of the config: what it is called there, and its models.
SETTINGS: dict[str, tuple[str, Iterable[type[BaseModel]]]] = {
    "A preset": ("at the top", [sections.Config]),
    "Experiments": (
        "`experiments.NAME`; `base` and each of `rows` are a row",
        [sections.Experiment, sections.Row, sections.Method, sections.Patch],
    ),
    "Data": ("`data.NAME`", get_args(get_args(DataSpec)[0])),
    "Augmentation": ("`augment`", [Augment, Crops]),
    "Encoders": ("`encoder`", ENCODERS.values()),
    "Methods": ("`objective`", get_args(Objectives)),
    "Optimisation": ("`optim`", [Optim]),
    "Features": ("`features`", [Encoding]),
    "Probes": ("`probes`, a list", get_args(Probes)),
    "Figures and tables": ("`figure`, `table`", [Lines, Scatter, Table]),
    "Published numbers and claims": ("`published`, `claims`, `comparison`", [Published, Also, Claim, Comparison]),
    "Hardware": ("`hardware`", [Hardware, Resources, PretrainResources, MoreHardware]),
    "Execution": ("`execution`", [Execution, Wandb]),
}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Puts what is made in the place of each mark. Raises PluginError for a copy that differs."""
    for copy in COPY.finditer(markdown):
        if not markdown.startswith(made := MADE[copy[1]](), copy.end()):
            raise PluginError(f"{page.file.src_uri}: the copy of {copy[1]} should be\n{made}")
    return MARK.sub(lambda mark: MADE[mark[1]](*filter(None, [mark[2]])), markdown)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[*head], ["---" for _ in head], *([*row] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


# --- settings ---


def settings() -> str:
    """Every setting of config.yaml, from the models that check it."""
    return "\n\n".join(_section(title, *about) for title, about in SETTINGS.items())


def _section(title: str, place: str, models: Iterable[type[BaseModel]]) -> str:
    return "\n\n".join([f"## {title}", f"In the config: {place}.", *map(_model, models)])


def _model(model: type[BaseModel]) -> str:
    about = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    if not about:
        raise PluginError(f"settings: {model.__module__}.{model.__name__} has no docstring")
    tag = next((name for name in ("name", "kind", "arch") if _fixed(model, name)), None)
    title = f"`{tag}: {', '.join(map(str, _fixed(model, tag)))}`" if tag else model.__name__
    schema = TypeAdapter(model).json_schema()
    rows = [_row(name, schema["properties"][name], schema) for name in schema.get("properties", {}) if name != tag]
    found = [f"### {title}", about, f"Source: `{model.__module__.replace('.', '/')}.py`."]
    return "\n\n".join([*found, table(("Setting", "Allowed", "Default", "Meaning"), rows)] if rows else found)


def _fixed(model: type[BaseModel], name: str) -> tuple[Any, ...]:
    """The values of a field that tells a model from its siblings."""
    field = model.model_fields.get(name)
    values = get_args(field.annotation) if field else ()
    return values if values and all(isinstance(value, str) for value in values) and field.is_required() else ()


def _row(name: str, field: dict[str, Any], schema: dict[str, Any]) -> tuple[str, str, str, str]:
    required = name in schema.get("required", ())
    default = "required" if required else f"`{_value(field['default'])}`" if "default" in field else ""
    return f"`{name}`", _allowed(field, schema), default, escape(field.get("description", ""), quote=False)


def _value(value: Any) -> str:
    """A default as config.yaml has it."""
    if isinstance(value, dict):  # of a section: its own defaults
        return "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    words = {None: "null", True: "true", False: "false", "": "''"}
    return words[value] if value is None or isinstance(value, bool) or value == "" else str(value)


LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "minItems": "at least"}


def _allowed(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "$ref" in field:
        return _allowed(schema["$defs"][field["$ref"].rpartition("/")[2]] | {"title": _ref(field)}, schema)
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_allowed(option, schema) for option in options))
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "x-part" in field or sections.PARTIAL in field:
        return "some settings"
    kind = field.get("type", "any value")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        if "prefixItems" in field:
            return f"{len(field['prefixItems'])} values"
        return f"list of: {_allowed(field.get('items', {}), schema)}"
    if kind == "object":
        return f"`{field['title']}`" if "properties" in field else "mapping"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    bounds = [f"{sign} {field[key]}" for key, sign in LIMITS.items() if key in field]
    return " ".join([names.get(kind, kind), ", ".join(bounds)]).strip()


def _ref(field: dict[str, Any]) -> str:
    return field["$ref"].rpartition("/")[2]


# --- results, rules, models ---


def targets() -> str:
    """Every figure and table of every preset, from the plans."""
    plans = catalog.load(PROJECT / "config.yaml")
    head = ("Target", "Runs", "Epochs", "What it shows")
    return "\n\n".join(
        f"### Preset {plan.preset}: `{root}/`\n\n" + table(head, _results(plan)) for root, plan in plans.items()
    )


def _results(plan: catalog.Plan) -> Iterator[tuple[str, str, str, str]]:
    for name, rows in plan.rows.items():
        files = [path for path in plan.files(name) if path.endswith((".pdf", ".md"))]
        if not files:
            continue
        runs = {(row.run, seed): row.run.epochs for row in rows if row.run for seed in row.seeds}
        asked = " *On request.*" if plan.config.experiments[name].on_request else ""
        caption = escape(" ".join(plan.caption(name).split()), quote=False) + asked
        yield f"`{files[0]}`", str(len(runs) or "none"), f"{sum(runs.values()):,}".replace(",", " "), caption


def rules() -> str:
    """Each rule of the workflow with what it reads and writes, from rules/*.smk."""
    texts = {path: path.read_text() for path in sorted((PROJECT / "rules").glob("*.smk"))}
    found = [_rule(path, text) for path, text in texts.items() if "\nrule " in text]
    return table(("Rule", "Input", "Output", "Runs", "From → to"), found)


def _rule(path: Path, text: str) -> tuple[str, str, str, str, str]:
    name = re.search(r"^rule (\w+):", text, re.MULTILINE)[1]
    about = text.partition("\n")[0].removeprefix("# ").replace("->", "→")
    taken, made = (_block(text, key) for key in ("input", "output"))
    paths = re.findall(r'"(\{root\}[^"]*)"', taken), re.findall(r'"(\{root\}[^"]*)"', made)
    inputs = [f"`{path}`" for path in paths[0]] or re.findall(r"(?<=plan\(w\)\.)\w+", taken)
    outputs = [f"`{path}`" for path in dict.fromkeys(paths[1]) if path != "{root}"]
    where = "here, in seconds" if "localrule: True" in text else "as a job"
    return f"`{name}`", "<br>".join(dict.fromkeys(inputs)) or "the archive", "<br>".join(outputs), where, about


def _block(text: str, key: str) -> str:
    found = re.search(rf"^    {key}:\n((?:        .*\n|\n)+)", text, re.MULTILINE)
    return found[1] if found else ""


def models() -> str:
    """The released encoders, from issl/spec/released.py."""
    views = {"m2": "2x224", "m6": "2x160 + 4x96", "m8": "2x224 + 6x96"}
    rows = (
        f"| `{name}` | {model.encoder.dim} | {model.epochs} | "
        + ", ".join(filter(None, [views[model.views], model.variant]))
        + " |"
        for name, model in MODELS.items()
    )
    return "\n".join(("| name | dimension | epochs | views in pretraining |", "|---|---:|---:|---|", *rows))


def gallery() -> str:
    """Every figure that docs/ has, with the caption of its experiment."""
    plan = catalog.load(PROJECT / "config.yaml")["results/mini"]
    found = sorted((PROJECT / "docs/replication").glob("*.png"))
    captions = {path.stem: escape(" ".join(plan.caption(path.stem).split())) for path in found}
    return "\n\n".join(
        f"## {path.stem}\n\n![{captions[path.stem]}](replication/{path.name})\n\n"
        f"*{captions[path.stem]}* Numbers: [{path.stem}.csv](replication/{path.stem}.csv)"
        for path in found
    )


# --- Python and the command line ---


def api(name: str) -> str:
    """Reference of a module or a name, by its docstrings. Raises PluginError for a public name without one."""
    found = griffe.load(name, search_paths=[PROJECT], resolve_aliases=True)
    if bare := [*_undocumented(found)]:
        raise PluginError(f"no docstring: {', '.join(bare)}")
    return f"::: {name}"


def _undocumented(found: griffe.Object) -> Iterator[str]:
    """Public modules, classes and functions without a docstring, in and below an object."""
    if not found.docstring:
        yield found.path
    if found.is_function:
        return
    for name, member in found.members.items():
        of_object = not member.is_alias and (member.is_class or member.is_function)
        if of_object and not name.startswith("_"):
            yield from _undocumented(member)


def commands() -> str:
    """The help of each command."""
    shown = [(name, command) for name, command in issl.commands.items() if not command.hidden]
    return "\n\n".join(f"## {name}\n\n```text\n{_help(name, command)}\n```" for name, command in shown)


def _help(name: str, command: click.Command) -> str:
    with click.Context(command, info_name=f"issl {name}", max_content_width=100, terminal_width=100) as context:
        return command.get_help(context)


MADE: dict[str, Callable[..., str]] = {
    made.__name__: made for made in (settings, targets, rules, models, gallery, api, commands)
}
