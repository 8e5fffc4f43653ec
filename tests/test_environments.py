"""Conda environments, pyproject.toml and constraints.txt declare every package that the code imports."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import grimp
import pytest
import rattler
import torch
import yaml
from project import PROJECT
from web import serving

from issl.models import encoders
from issl.probing.kinds import KINDS
from issl.spec.shape import Shape

ENVIRONMENTS = sorted((PROJECT / "envs").glob("*.yaml"))

# Where a package's import name, its name on PyPI and its name on conda-forge differ.
PYPI = {"PIL": "pillow", "pytorch_lightning": "pytorch-lightning", "rattler": "py-rattler", "sklearn": "scikit-learn"}
PYPI |= {"yaml": "pyyaml", "markdown_it": "markdown-it-py", "cosmic_ray": "cosmic-ray", "pynvml": "nvidia-ml-py"}
PYPI |= {"huggingface_hub": "huggingface-hub", "griffe": "griffelib"}
CONDA = {"matplotlib": "matplotlib-base", "torch": "pytorch"}

# What the command of a rule runs; `issl.cli` imports a stage inside its command, so nothing else of it is loaded. Kinds
# of probes and encoders are imported by a computed name, which no reader of the source sees.
TRUNKS = "issl.models.trunks"
STAGES = {
    "prepare": ("issl.data",),
    "pretrain": (TRUNKS, "issl.training.pretrain"),
    "featurize": (TRUNKS, "issl.probing.featurize"),
    "probe": (TRUNKS, "issl.probing.job", *KINDS.values()),
}


# --- imports, read from the source ---


def imports(source: str, inside_functions: bool = True) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names taken from it) of each import statement that can run: not those for type checkers."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "this project imports by absolute names"
            yield node.module, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending.extend(node.orelse)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(ast.iter_child_nodes(node))


@cache
def file_of(module: str) -> Path | None:
    """Source of one of this project's modules; None for what is none."""
    place = PROJECT.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def third_party(names: set[str]) -> set[str]:
    return {PYPI.get(name, name) for name in names} - set(sys.stdlib_module_names) - {"issl", "benchmarks", "hubconf"}


def closure(*entries: str | Path, inside_functions: bool = True) -> set[str]:
    """PyPI names of all that the entries (modules or scripts) can come to import.

    A module that is imported may be called, so the imports in its functions count. A package around it is merely run
    (``issl/data/__init__.py`` for ``from issl.data.arrays import read``): of it, and of what it imports, only the
    imports that stand outside functions count.
    """
    found: set[str] = set()
    seen: set[tuple[Path, bool]] = set()
    pending = [(entry, inside_functions) for entry in entries]
    while pending:
        module, called = pending.pop()
        path = module if isinstance(module, Path) else file_of(module)
        if path is None or (path, called) in seen:
            continue
        seen.add((path, called))
        if isinstance(module, str):
            parents = module.split(".")[:-1]
            pending.extend((".".join(parents[:depth]), False) for depth in range(1, len(parents) + 1))
        for name, members in imports(path.read_text(), called):
            if name.partition(".")[0] != "issl":
                found.add(name.partition(".")[0])
                continue
            # `from issl import data` takes modules out of a package that is merely run on the way.
            modules = [f"{name}.{member}" for member in members if file_of(f"{name}.{member}")]
            pending.extend((taken, called) for taken in modules)
            pending.append((name, called and len(modules) < max(1, len(members))))
    return third_party(found)


def needed(environment: str) -> set[str]:
    """PyPI names of what the jobs in an environment can come to import."""
    if environment in ("results", "times"):
        scripts = {*(PROJECT / "workflow/scripts").glob("*.py")}
        of_times = {PROJECT / "workflow/scripts/times.py"}
        return closure(*(of_times if environment == "times" else scripts - of_times))
    commands = closure("issl.__main__", inside_functions=False)  # all commands share what `issl.cli` needs to start
    return (commands | closure(*STAGES[environment])) - declared("huggingface").keys()


@pytest.mark.slow
def test_the_import_closure_agrees_with_a_real_interpreter():
    """The reading of the sources agrees with an interpreter that starts the leanest and the richest stage."""
    for environment in ("prepare", "pretrain"):
        modules = ", ".join(("sys", "issl.cli", *STAGES[environment]))
        code = f"import {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
        later = {"prepare": {"torchvision", "simplejpeg", "scipy"}, "pretrain": {"wandb", "simplejpeg", "timm"}}[
            environment
        ]  # only when asked for
        assert needed(environment) - later <= third_party(set(loaded.stdout.split()))
        assert later <= needed(environment)


# --- conda environments ---


def read_environment(path: Path) -> dict[str, str]:
    """Package name -> version bounds, "" for none."""
    specs = [rattler.MatchSpec(spec, strict=True) for spec in yaml.safe_load(path.read_text())["dependencies"]]
    packages = {spec.name.normalized: str(spec.version or "") for spec in specs}
    assert len(packages) == len(specs), f"{path.name} names a package twice"
    return packages


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_is_valid_and_uses_conda_forge_only(path):
    content = yaml.safe_load(path.read_text())
    assert content.keys() == {"channels", "dependencies"}
    assert content["channels"] == ["conda-forge", "nodefaults"]
    assert read_environment(path)  # strict match specs, no pip section
    assert content["dependencies"][0].startswith("python ")
    assert content["dependencies"][1:] == sorted(content["dependencies"][1:])


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_has_every_package_that_its_rule_imports(path):
    assert read_environment(path).keys() >= {CONDA.get(name, name) for name in needed(path.stem)}


def test_the_environments_are_as_they_are_written():
    """Written by: make envs"""
    module = spec_from_file_location("write", PROJECT / "envs/write.py")
    writer = module_from_spec(module)
    module.loader.exec_module(writer)
    graph = grimp.build_graph(
        "issl", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    assert set(writer.ENVIRONMENTS) == {path.stem for path in ENVIRONMENTS}
    for path in ENVIRONMENTS:
        assert path.read_text() == writer.text(path.stem, graph), path.name


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_has_the_bounds_of_pyproject(path):
    bounds = {CONDA.get(name, name): bound for name, bound in (declared() | declared("timm")).items()}
    bounds["python"] = pyproject()["requires-python"]
    for package, bound in read_environment(path).items():
        assert bound == bounds[package], package


def test_every_rule_has_an_environment_and_every_environment_a_rule():
    named = set()
    for path in (PROJECT / "rules").glob("*.smk"):
        text = path.read_text()
        rules = re.findall(r"^rule (\w+):", text, re.MULTILINE)
        found = re.findall(r'^    conda:\n        "(.+)"$', text, re.MULTILINE)
        assert len(found) == len(rules), f"{path.name}: a rule without an environment"
        named |= {(path.parent / name).resolve() for name in found}
    assert named == set(ENVIRONMENTS)


def test_a_rule_runs_the_stage_of_its_environment():
    for stage in STAGES:
        text = (PROJECT / f"rules/{stage}.smk").read_text()
        assert f"python -m issl {stage} " in text
        assert f'"../envs/{stage}.yaml"' in text


# --- pyproject.toml and constraints.txt ---


@cache
def pyproject() -> dict:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def requirements(lines: list[str]) -> dict[str, str]:
    """Package -> bounds, from lines like ``numpy>=2.0``."""
    parts = [re.fullmatch(r"([A-Za-z0-9._-]+?)\s*([<>=!~].*)?", line) for line in lines]
    assert all(parts), lines
    return {normal(part[1]): part[2] or "" for part in parts}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str | None = None) -> dict[str, str]:
    """Dependencies of the package, or of one of its extras, with their bounds."""
    project = pyproject()
    return requirements(project["optional-dependencies"][extra] if extra else project["dependencies"])


EXTRAS = ("test", "mutants", "huggingface", "hub")


def test_every_dependency_has_a_lower_bound():
    for package, bound in [*declared().items(), *(each for extra in EXTRAS for each in declared(extra).items())]:
        assert re.fullmatch(r">=[0-9.]+", bound), package


def test_constraints_pin_every_direct_dependency_within_its_bounds():
    pinned = requirements((PROJECT / "constraints.txt").read_text().splitlines())
    for package, bound in (declared() | declared("test")).items():
        assert package in pinned, f"{package} is not pinned"
        version, least = (rattler.Version(text.lstrip("=>")) for text in (pinned[package], bound))
        assert version >= least, f"{package} {version} is not {bound}"


def test_constraints_are_plain_pins_of_published_versions():
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line  # no path, no URL, no local version
    names = [normal(line.partition("==")[0]) for line in lines]
    assert len(names) == len(set(names))
    assert "issl" not in names


def used_in(*places: str) -> set[str]:
    """PyPI names of everything imported in files of this project, for type checkers or not."""
    files = [path for place in places for path in sorted((PROJECT / place).rglob("*.py"))]
    files = [path for path in files if ".peers" not in path.parts]  # packages that benchmarks install for themselves
    assert files
    modules = {module for path in files for module, _ in imports(path.read_text())}
    own = {path.stem for path in files if "tests" in path.parts}  # conftest and the like
    return third_party({module.partition(".")[0] for module in modules} - own)


def test_every_import_of_the_package_is_a_dependency():
    known = declared().keys() | declared("timm").keys() | declared("huggingface").keys() | declared("hub").keys()
    assert used_in("issl", "workflow") <= known


def test_a_package_that_only_some_data_sets_need_is_in_no_environment():
    for path in ENVIRONMENTS:
        assert not read_environment(path).keys() & declared("huggingface").keys(), path.name


def test_hubconf_declares_every_package_that_a_released_model_needs(tmp_path):
    """A small one is downloaded where nothing else that this project depends on can be imported."""
    import hubconf

    declares = {PYPI.get(name, name) for name in hubconf.dependencies}
    assert declares <= closure(PROJECT / "hubconf.py")
    names = {package: name for name, package in PYPI.items()}
    absent = [names.get(package, package) for package in declared().keys() - declares - {"numpy"}]  # torchvision has it
    assert {"yaml", "sklearn", "click"} <= set(absent)
    torch.save(encoders.build(SMALL, 224).state_dict(), tmp_path / "small.torch")
    command = [sys.executable, "-c", BARE, json.dumps(absent), json.dumps(vars(SMALL))]
    with serving(partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        there = {"PYTHONPATH": str(PROJECT), "TORCH_HOME": str(tmp_path / "torch"), "ISSL_HUB_URL": server.url}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **there})
    assert done.stdout == "64\n", done.stderr


SMALL = Shape(arch="resnet10", width=8, dim=64)
BARE = """
import json, sys
sys.modules |= dict.fromkeys(json.loads(sys.argv[1]))
import hubconf
from issl.spec.released import MODELS, Model
from issl.spec.shape import Shape
MODELS["dissl_resnet50_dNone_e100_m2"] = Model(Shape(**json.loads(sys.argv[2])), 1, "m2", "nowhere/small.torch")
print(hubconf.dissl_resnet50_dNone_e100_m2(progress=False).dim)
"""


def test_every_import_of_the_tests_and_tools_is_declared():
    assert used_in("tests", "envs") <= declared().keys() | declared("test").keys() | declared("mutants").keys()
    assert used_in("docs") <= declared().keys() | declared("docs").keys()


def test_the_tests_have_what_the_documentation_needs():
    assert declared("docs").items() <= declared("test").items()


def test_only_the_mutation_tester_imports_the_mutants_extra():
    for path in (PROJECT / "tests").rglob("*.py"):
        used = third_party({module.partition(".")[0] for module, _ in imports(path.read_text())})
        assert used & declared("mutants").keys() == (declared("mutants").keys() if path.name == "mutants.py" else set())
