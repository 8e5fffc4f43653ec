"""Fingerprints of the code that made a result.

Written here because libraries that follow imports, such as grimp, say nothing of what the code does; and this reads
source files alone, so that the comparison needs no torch.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec, resolve_name
from itertools import accumulate
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent

STAGES: dict[str, tuple[str, ...]] = {
    "prepare": ("issl.data",),
    "pretrain": ("issl.training.pretrain",),
    "featurize": ("issl.probing.featurize",),
    "probe": ("issl.probing.job",),
}

# Modules that cannot change a number are left out, and not followed. In doubt a module counts: issl.jobs.files writes
# scores.
SILENT = (
    "issl.config.validation",  # error messages; each result records the settings that its job got
    "issl.jobs.execution",  # recorded beside the result
    "issl.jobs.ending",  # the end of a process
    "issl.jobs.environment",  # finds the project and Python
    "issl.errors",  # error messages
    "issl.fitting",  # starts a training, as a rule does; the package names it for type checkers
    "issl.jobs.fingerprint",  # this module
    "issl.jobs.handover",  # which process does a job
    "issl.jobs.logs",  # log messages
    "issl.jobs.memory",  # which memory is used again
    "issl.jobs.provenance",  # describes a finished result
    "issl.jobs.warm",  # which process does a job
    "issl.training.tracking",  # monitors training
    # Tables of alternatives: a new entry does not change the others' results. A job names the parts that it uses.
    "issl.data.datasets",
    "issl.objectives",
    "issl.probing.kinds",
    "issl.spec.data",
    "issl.spec.encoder",
    "issl.spec.objective",
    "issl.spec.plugins",
    "issl.spec.probe",
)


def part(used: Any) -> str:
    """Names what a job uses: only the class if its module is in `SILENT`, otherwise the whole module."""
    module = used.__module__
    return f"{module}:{used.__name__}" if module in SILENT else module


def modules(stage: str, parts: Iterable[str] = (), package: Path = PACKAGE) -> dict[str, str]:
    """Every module of the package that a stage imports, directly or through others, with a digest of its code.

    All import statements count, including those inside functions; imports by a computed name are missed. `parts` are
    names that `part` gave. The digest, 8 hex digits, ignores comments, docstrings, formatting, field descriptions and
    the package's version. Only compare digests made by the same version of Python: another may parse the same text to
    another tree.
    """
    sources = {_name(path, package): path for path in package.rglob("*.py")}
    sources |= {name: path for part in parts for name, path in _outside(part, package)}
    classes = [part.partition(":") for part in parts if ":" in part]
    found = {f"{module}:{name}": _class_digest(sources[module].read_text("utf-8"), name) for module, _, name in classes}
    waiting = [*STAGES[stage], *(part for part in parts if ":" not in part)]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = sources[name]
        around = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name], imports = _read(path.read_text(encoding="utf-8"), around)
        waiting += (each for each in _with_parents([name, *imports]) if each in sources and each not in SILENT)
    return dict(sorted(found.items()))


def fingerprint(modules: Mapping[str, str]) -> str:
    """8 hex digits for all these modules together, regardless of their order."""
    return _digest("\n".join(f"{name} {digest}" for name, digest in sorted(modules.items())))


@cache
def current(stage: str, *parts: str) -> dict[str, Any]:
    """The code of a stage as it is on disk now, for the record beside a result: fingerprint, modules and parts.

    Cached per process: a job that calls this when it starts records the code it ran, even if files change meanwhile.
    """
    found = modules(stage, parts)
    return {"fingerprint": fingerprint(found), "modules": found, "parts": list(parts)}


def of_package(package: Path = PACKAGE) -> str:
    """One digest of all source files of the package as they are now.

    Counts comments as well: every plan asks for it, and to parse all files would take it seconds.
    """
    sources = {_name(path, package): hashlib.sha256(path.read_bytes()).hexdigest() for path in package.rglob("*.py")}
    return fingerprint(sources)


def changed(then: Mapping[str, Any] | None, stage: str) -> list[str] | None:
    """Modules changed, added or removed since a result of this stage recorded its code as `then`.

    None if the result did not record its code.
    """
    if not then or "modules" not in then:
        return None
    before, now = then["modules"], current(stage, *filter(_exists, then.get("parts", ())))["modules"]
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _outside(part: str, package: Path) -> Iterator[tuple[str, Path]]:
    """The modules of the package of a plug-in that a part belongs to."""
    top = part.partition(":")[0].partition(".")[0]
    found = None if top == package.name else find_spec(top)
    if found and found.submodule_search_locations:
        for folder in map(Path, found.submodule_search_locations):
            yield from ((_name(path, folder), path) for path in folder.rglob("*.py"))
    elif found and found.origin:
        yield top, Path(found.origin)


def _exists(part: str) -> bool:
    module, _, name = part.partition(":")
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    file = dict(_outside(part, PACKAGE)).get(module, file)
    return file.exists() and (not name or name in _classes(file.read_text(encoding="utf-8")))


def _classes(source: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _class_digest(source: str, name: str) -> str:
    """Digest of a class and of the classes of its module that it inherits from."""
    known, waiting, texts = _classes(source), [name], {}
    while waiting:
        node = known[waiting.pop()]
        texts[node.name] = _text(node)
        waiting += [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in known]
    return _digest("\n".join(text for _, text in sorted(texts.items())))


def _name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def _with_parents(names: Iterable[str]) -> set[str]:
    """These modules and their packages: Python runs issl and issl.data before issl.data.arrays."""
    return {parent for name in names for parent in accumulate(name.split("."), "{}.{}".format)}


@cache  # by content: stages share most modules
def _read(source: str, around: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module in the package `around`, and all names that it might import."""
    tree = ast.parse(source)
    return _digest(_text(tree)), tuple(_imports(tree, around))


def _imports(tree: ast.Module, around: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), around)
            yield from (f"{origin}.{alias.name}" for alias in node.names)  # a submodule, or a name in `origin`


def _text(node: Any) -> str:
    """The code below a node of the tree, like `ast.dump`, whose output differs between versions of Python."""
    if isinstance(node, list):
        return f"[{', '.join(_text(each) for each in node if not _is_silent(each))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: _text(value) for name, value in ast.iter_fields(node)}
    given = ", ".join(f"{name}={text}" for name, text in fields.items() if text not in ("None", "[]"))
    return f"{type(node).__name__}({given})"


def _is_silent(node: Any) -> bool:
    """Whether it is a docstring, the description of a field, or the version of the package."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):  # a string on its own does nothing anywhere
            return True
        case ast.keyword(arg="description", value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__version__")]):
            return True
    return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
