"""Reports mistakes in a config as one line: the key, the value, what is allowed, the nearest spelling."""

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    Tag,
    ValidationError,
)

from issl.config.layers import Place
from issl.config.renamed import successor
from issl.errors import UserError, nearest, quoted

M = TypeVar("M", bound=BaseModel)
Where = str | Place | Callable[[Sequence[str]], Place]


UNIONS = (typing.Union, types.UnionType)


# What pydantic says of a value, and what a person would.
WORDS = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a mapping of keys to values"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    "int_parsing_size": "must be a smaller number",
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "invalid_key"), "must be a word: put it in quotes"),
    "string_unicode": "must be text that UTF-8 can hold",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be lower-case letters, digits and underscores, and not begin with an underscore",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} or fewer entries",
}


def validate(model: type[M], content: Any, where: Where) -> M:
    """Builds a model. Raises UserError with the first of pydantic's errors as one readable line.

    `where` names the place of the content, or gives it for the keys that lead to the mistake.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(explain(error, model, where)) from None


def explain(error: ValidationError, model: type[BaseModel], where: Where) -> str:
    """One line: place, key, value, what is allowed. Unknown keys come first, with the nearest spelling."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    kind, given, context = first["type"], first["input"], first.get("ctx", {})
    parents, path = _walk(model, first["loc"])
    where = where(path) if callable(where) else where
    place = where.at(*path) if isinstance(where, Place) else ": ".join([where, *filter(None, [".".join(path)])])
    if kind == "extra_forbidden":
        if new := successor(getattr(parents[-1], "__name__", ""), path[-1]):
            return f"{place}: this key is now '{new}'; rename it"
        return f"{place}: unknown key, {nearest(path[-1], _keys(parents[-1]))}"
    if kind == "missing":
        return f"{place}: missing"
    if kind.startswith("union_tag"):
        key, union = context["discriminator"].strip("'"), _union(_child(parents[-1], path[-1]))
        if key == "arch()":  # of an encoder: a class has several, and may know only how they begin
            return f"{place}.arch: unknown {quoted(given.get('arch'))}, {nearest(given.get('arch'), _archs(union))}"
        tags = [_tag(member) for member in union]
        if kind == "union_tag_not_found":
            return f"{place}: needs a {key}, allowed: {', '.join(sorted(tags))}"
        return f"{place}: unknown {key} {quoted(context['tag'])}, {nearest(context['tag'], tags)}"
    message = WORDS[kind].format(**context) if kind in WORDS else first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    shown = "" if isinstance(given, Mapping | BaseModel) or given == "" else f", not {quoted(given)}"
    return f"{place}: {message}{shown}"


def _keys(model: Any) -> list[str]:
    fields = getattr(model, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _walk(model: Any, location: tuple[int | str, ...]) -> tuple[list[Any], list[str]]:
    """The type at each step of an error's location, and the steps that are in the user's file.

    pydantic inserts the member of a union into the location, which is not a step in the file.
    """
    parents, path, current = [], [], model
    for step in location:
        members = _union(current)
        if members and step in (tags := {_tag(m): m for m in members}):
            current = tags[step]
            continue
        if step == "[key]":  # the mistake is in the key before
            break
        if options := _options(current):
            current = options.get(str(step).partition("[")[0])
            continue
        parents.append(current)
        path.append(str(step))
        current = _child(current, step)
    return parents, path


def _bare(annotation: Any) -> Any:
    """The type without Annotated, and without the None of an optional."""
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


def _options(annotation: Any) -> dict[str, Any]:
    """The members of a union of plain types, such as a mapping or a number, by the name of their type."""
    annotation = _bare(annotation)
    members = typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else ()
    types = {member: typing.get_origin(_bare(member)) or _bare(member) for member in members}
    return {kind.__name__: member for member, kind in types.items() if not hasattr(kind, "model_fields")}


def _archs(union: list[Any]) -> list[str]:
    """The architectures of the classes of encoders; where any name goes, ``timm/<name>``."""
    named = ((member, typing.get_args(member.model_fields["arch"].annotation)) for member in union)
    return [arch for member, archs in named for arch in archs or (f"{_tag(member)}/<name>",)]


def _tag(model: Any) -> str | None:
    """What selects a member of a union."""
    if tags := [mark.tag for mark in getattr(model, "__metadata__", ()) if isinstance(mark, Tag)]:
        return tags[0]
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
