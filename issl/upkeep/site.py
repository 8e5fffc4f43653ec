"""Settings of the Snakemake profile under which jobs are submitted here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from issl.config.yaml import read_yaml
from issl.errors import UserError

SITE = Path("profiles/default/config.yaml")  # its keys override those of every other profile


def profile(name: str) -> dict[str, Any]:
    """The settings of `snakemake --profile name` here: that profile, overridden by the site's file.

    Raises UserError if there is no such profile.
    """
    places = [Path(name), Path("profiles", name)]
    files = [file for place in places for file in (place, place / "config.yaml") if file.is_file()]
    if not files:
        raise UserError(f"no profile '{name}': looked for {' and '.join(f'{place}/config.yaml' for place in places)}")
    return read_yaml(files[0]) | (read_yaml(SITE) if SITE.is_file() else {})


def resources(settings: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """A profile's resources for the jobs of a rule: those set for the rule override the default ones."""
    table = _table(settings.get("default-resources"))
    own = _table(settings.get("set-resources"))
    nested = own.get(rule)
    flat = {key.partition(":")[2]: value for key, value in own.items() if key.startswith(f"{rule}:")}
    return table | (_table(nested) if nested is not None else {}) | flat


def _table(value: Any) -> dict[str, Any]:
    """A profile's mapping, which may also be a list of key=value."""
    if isinstance(value, Mapping):
        return dict(value)
    entries = [value] if isinstance(value, str) else value or []
    return {key.strip(): value.strip() for key, _, value in (str(entry).partition("=") for entry in entries)}
