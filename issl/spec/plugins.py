"""Settings classes that other installed packages offer, found by their entry points.

A package names its class in pyproject.toml, under the word that configs use:

    [project.entry-points."issl.objectives"]
    spectral = "issl_spectral.settings:Spectral"

The class says in `implementation` what carries it out, which is imported only by a job that needs it.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from functools import reduce
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:  # loading released weights takes no pydantic
    from issl.spec.value import Value

log = logging.getLogger(__name__)


def members(group: str, key: str, base: type["Value"], builtin: Iterable[type["Value"]]) -> tuple[type["Value"], ...]:
    """The built-in settings classes of a group, then those of plug-ins, by name.

    `key` is the field that holds the name, and `base` what a plug-in's class must inherit from. A plug-in that cannot
    be used is left out with a warning: one that fails to import, is no such class, or has a name that is taken. Of two
    with one name neither is used, because nobody can know which one is meant.
    """
    own = (*builtin,)
    return (*own, *named(group, key, base, {name for each in own for name in _names(each, key)}).values())


def named(group: str, key: str, base: type["Value"], taken: Collection[str]) -> dict[str, type["Value"]]:
    """The settings classes of a group's plug-ins by name, as in `members`; `taken` are the names of our own."""
    entries: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, _package(entry))):
        entries.setdefault(entry.name, []).append(entry)
    return {name: each for name, own in entries.items() for each in _loaded(name, own, key, base, taken)}


def implementation(settings: "Value | type[Value]") -> Any:
    """What carries out the settings of a plug-in, or a class of them: the object that it names as "module:object"."""
    module, _, path = settings.implementation.partition(":")
    return reduce(getattr, path.split("."), import_module(module))


def _loaded(
    name: str, entries: list[EntryPoint], key: str, base: type["Value"], taken: Collection[str]
) -> Iterator[type["Value"]]:
    packages = " and ".join(_package(entry) for entry in entries)
    if len(entries) > 1 or name in taken:
        others = "they are" if len(entries) > 1 else "issl's own stays, and that of the package is"
        log.warning("'%s' has two meanings, by %s: %s left out; uninstall one", name, packages, others)
        return
    [entry] = entries
    try:
        settings = entry.load()
    except Exception as error:  # somebody else's code may raise anything, and others must go on
        log.warning("'%s' of %s is left out: %s: %s", name, packages, type(error).__name__, error)
        return
    if not (isinstance(settings, type) and issubclass(settings, base) and _names(settings, key) == (name,)):
        wanted = f"a class that inherits from {base.__module__}.{base.__name__}, with '{key}: Literal[\"{name}\"]'"
        log.warning("'%s' of %s is left out: %s must be %s", name, packages, entry.value, wanted)
        return
    if ":" not in getattr(settings, "implementation", ""):
        log.warning("'%s' of %s is left out: %s lacks implementation = \"module:object\"", name, packages, entry.value)
        return
    yield settings


def _names(settings: type["Value"], key: str) -> tuple[str, ...]:
    field = settings.model_fields.get(key)
    return get_args(field.annotation) if field else ()


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value.partition(":")[0]
