"""Frozen values whose canonical JSON names every result.

The id of a value is readable words plus a hash of its JSON *without the fields that have their default value*.
Adding a field with a default therefore keeps every id. Never edit a default in this folder (`tests/spec/test_spec.py`
freezes them): add a field for new behaviour.

Every default is the value of the *released code* of Dubois et al., *Improving Self-Supervised Learning by
Characterizing Idealized Representations* (NeurIPS 2022); docs/fidelity.md lists what follows it and what does not.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Value(BaseModel):
    """A frozen value: unknown keys are errors, and equal content gives equal ids."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def canonical(self) -> str:
        """JSON with sorted keys and without defaults: the identity of the value."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


def flat(spec: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """The settings of a nested mapping as texts, by dotted names."""
    found: dict[str, str] = {}
    for key, value in spec.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": str(value)}
    return found


def short_hash(text: str) -> str:
    """Eight hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
