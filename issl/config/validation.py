"""Reports mistakes in a config as one line: the key, the value, what is allowed, the nearest spelling."""

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
)

from issl.errors import UserError, nearest

M = TypeVar("M", bound=BaseModel)


UNIONS = (typing.Union, types.UnionType)


# What pydantic calls a value of another type, and what a person would.
TYPES = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a mapping of keys to values"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be a word: put it in quotes",
    "string_too_short": "must not be empty",
}


def validate(model: type[M], content: Any, where: str | Callable[[Sequence[str]], str]) -> M:
    """Builds a model. Raises UserError with the first of pydantic's errors as one readable line.

    `where` names the place of the content, or gives it for the keys that lead to the mistake.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(explain(error, model, where)) from None


def explain(error: ValidationError, model: type[BaseModel], where: str | Callable[[Sequence[str]], str]) -> str:
    """One line: place, key, value, what is allowed. Unknown keys come first, with the nearest spelling."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    parents, path = _walk(model, first["loc"])
    where = where if isinstance(where, str) else where(path)
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
    message = TYPES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    given = first["input"]
    return f"{place}: {message}" + ("" if isinstance(given, Mapping | BaseModel) else f", not {given!r}")


def _keys(model: Any) -> list[str]:
    fields = getattr(model, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _walk(model: Any, location: tuple[int | str, ...]) -> tuple[list[Any], list[str]]:
    """The type at each step of an error's location, and the steps that are in the user's file.

    pydantic inserts the tag of a discriminated union into the location, which is not a step in the file.
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
