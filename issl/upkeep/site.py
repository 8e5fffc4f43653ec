"""What the profile says under which jobs are submitted here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from issl.config.yaml import read_yaml
from issl.errors import UserError

SITE = Path("profiles/default/config.yaml")  # Snakemake lays it over every other profile, key by key


def profile(name: str) -> dict[str, Any]:
    """The settings under which `snakemake --profile name` submits here: that profile, and the site's file over it.

    Raises UserError where there is no such profile.
    """
    places = [Path(name), Path("profiles", name)]
    found = [file for place in places for file in (place, place / "config.yaml") if file.is_file()]
    if not found:
        raise UserError(f"no profile '{name}': looked for {' and '.join(f'{place}/config.yaml' for place in places)}")
    return read_yaml(found[0]) | (read_yaml(SITE) if SITE.is_file() else {})


def resources(settings: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """What a profile gives to the jobs of a rule: its default resources, and those set for the rule over them."""
    table = _table(settings.get("default-resources"))
    own = _table(settings.get("set-resources"))
    nested = own.get(rule)
    flat = {key.partition(":")[2]: value for key, value in own.items() if key.startswith(f"{rule}:")}
    return table | (_table(nested) if nested is not None else {}) | flat


def _table(said: Any) -> dict[str, Any]:
    """Profiles may write a mapping, or a list of key=value."""
    if isinstance(said, Mapping):
        return dict(said)
    entries = [said] if isinstance(said, str) else said or []
    return {key.strip(): value.strip() for key, _, value in (str(entry).partition("=") for entry in entries)}
