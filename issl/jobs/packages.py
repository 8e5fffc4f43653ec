"""Packages that only some data sets need, which `pip install issl` leaves out."""

from importlib.util import find_spec


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it. A folder of this name is none."""
    found = find_spec(module)
    return found is not None and found.origin is not None


def install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml."""
    return f"python -m pip install --constraint constraints.txt --editable '.[{extra}]'"
