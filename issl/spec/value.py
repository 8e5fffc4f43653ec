"""Frozen values whose canonical JSON names every result.

The id of a value is readable words plus a hash of its JSON *without the fields that have their default value*.
Adding a field with a default therefore keeps every id. Never edit a default in this folder (`tests/spec/test_spec.py`
freezes them): add a field for new behaviour.

Every default is the value of the *released code* of Dubois et al., *Improving Self-Supervised Learning by
Characterizing Idealized Representations* (NeurIPS 2022); docs/fidelity.md lists what follows it and what does not.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Value(BaseModel):
    """A frozen value: unknown keys are errors, and equal content gives equal ids."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, content: Any) -> Any:
        """Python, and so pydantic, takes true for 1; it does not take a word."""
        if not isinstance(content, Mapping):
            return content
        return {key: _as_word(value) if key in _numeric(cls) else value for key, value in content.items()}

    def canonical(self) -> str:
        """JSON with sorted keys and without defaults: the identity of the value."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


@cache
def _numeric(model: type[Value]) -> frozenset[str]:
    """The fields that hold numbers and no truth values."""
    types = {name: {*_inside(field.annotation)} for name, field in model.model_fields.items()}
    return frozenset(name for name, inside in types.items() if inside & {int, float} and bool not in inside)


def _as_word(value: Any) -> Any:
    """A truth value, or those in a list or mapping, as words."""
    if isinstance(value, Mapping):
        return {key: _as_word(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_as_word, value)]
    return str(value).lower() if isinstance(value, bool) else value


def _inside(annotation: Any) -> Iterator[Any]:
    """A type and those that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _inside(part)


def flat(spec: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """The settings of a nested mapping as texts, by dotted names."""
    found: dict[str, str] = {}
    for key, value in spec.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": str(value)}
    return found


def short_hash(text: str) -> str:
    """Eight hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
