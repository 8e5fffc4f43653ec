"""Which code made a result."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent

STAGES: dict[str, tuple[str, ...]] = {
    "prepare": ("issl.data",),
    "pretrain": ("issl.training.pretrain",),
    "featurize": ("issl.probing.encode",),
    "probe": ("issl.probing.heads",),
    "featurize_weights": ("issl.probing.featurize",),
    "probe_weights": ("issl.probing.protocols",),
}

# Left out, and not followed: what cannot change a number. Anything in doubt counts, also issl.jobs.files, which writes
# scores.
SILENT = (
    "issl.config.validation",  # words about mistakes; what a job got from the config is on record beside its result
    "issl.jobs.execution",  # on record beside the result
    "issl.jobs.environment",  # finds the project and Python
    "issl.errors",  # words
    "issl.jobs.fingerprint",  # this module
    "issl.jobs.logs",  # words
    "issl.jobs.provenance",  # describes a result once it is there
    "issl.training.tracking",  # watches a training
)


def modules(stage: str, package: Path = PACKAGE) -> dict[str, str]:
    """Every module of the package that a stage imports, directly or through others, with a digest of its code.

    All import statements count, also those inside functions; an import by a computed name would not be seen. The
    digest, 8 hex digits, ignores comments, docstrings, formatting, descriptions of fields and the package's version.
    Compare digests under one version of Python only: another may parse the same text to another tree.
    """
    sources = {_name(path, package): path for path in package.rglob("*.py")}
    found: dict[str, str] = {}
    waiting = list(STAGES[stage])
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
    """8 hex digits that stand for all these modules, in whatever order they come."""
    return _digest("\n".join(f"{name} {digest}" for name, digest in sorted(modules.items())))


@cache
def current(stage: str) -> dict[str, Any]:
    """The code of a stage as it is now on disk, for the record beside a result: its fingerprint and its modules.

    Read once a process: a job that asks when it starts says what it ran, even if files change meanwhile.
    """
    found = modules(stage)
    return {"fingerprint": fingerprint(found), "modules": found}


def of_stages() -> dict[str, str]:
    """The fingerprint of each stage's code as it is now."""
    return {stage: current(stage)["fingerprint"] for stage in STAGES}


def changed(then: Mapping[str, Any] | None, stage: str) -> list[str] | None:
    """Modules that changed, came or went since a result of this stage recorded its code as `then`.

    None if the result does not say what made it.
    """
    if not then or "modules" not in then:
        return None
    before, now = then["modules"], current(stage)["modules"]
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def _with_parents(names: Iterable[str]) -> set[str]:
    """Python runs issl and issl.data before issl.data.arrays."""
    return {parent for name in names for parent in accumulate(name.split("."), "{}.{}".format)}


@cache  # by content: stages share most modules
def _read(source: str, around: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module in the package `around`, and all names that it may import."""
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
    """The code below a node of the tree; like `ast.dump`, which differs between versions of Python."""
    if isinstance(node, list):
        return f"[{', '.join(_text(each) for each in node if not _is_silent(each))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: _text(value) for name, value in ast.iter_fields(node)}
    said = ", ".join(f"{name}={text}" for name, text in fields.items() if text not in ("None", "[]"))
    return f"{type(node).__name__}({said})"


def _is_silent(node: Any) -> bool:
    """Whether it is a docstring, the description of a field, or the version of the package."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):  # wherever it stands, a lone string does nothing
            return True
        case ast.keyword(arg="description", value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__version__")]):
            return True
    return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
