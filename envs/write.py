"""Writes the conda environment of each rule: every package that its code may import, with pyproject.toml's bounds.

Run it with `make envs`; a test checks that the files are up to date. Packages that only some data sets need stay out.
"""

import re
import sys
import tomllib
from pathlib import Path

import grimp

FOLDER = Path(__file__).parent
COMMAND = ("issl.config.plan", "issl.config.schema", "issl.jobs.logs")  # what `issl.cli` needs to start, besides click
ENCODERS = ("issl.models.trunks",)  # imported by the name that an encoder's settings have

# environment -> purpose of its jobs, and the modules that they start from
ENVIRONMENTS = {
    "prepare": ("decodes archives", (*COMMAND, "issl.data")),
    "pretrain": ("trains encoders", (*COMMAND, *ENCODERS, "issl.training.pretrain")),
    "featurize": ("runs encoders, so no Lightning", (*COMMAND, *ENCODERS, "issl.probing.featurize")),
    "probe": (
        "trains classifiers on frozen representations",
        (
            *COMMAND,
            *ENCODERS,
            *(f"issl.probing.{name}" for name in ("job", "heads", "cached", "augmented", "fine_tuned", "classifiers")),
        ),
    ),
    "times": (
        "compares times of jobs, with torch for operations that nobody counted yet",
        ("issl.jobs.logs", "issl.planning.efficiency", "issl.planning.observed", "issl.report.html"),
    ),
    "results": (
        "draws small tables and figures, so no torch",
        tuple(
            f"issl.{name}"
            for name in (
                *("config.display", "jobs.logs", "jobs.fingerprint"),
                *(f"report.{name}" for name in ("curves", "figures", "html", "page", "reproduction", "tables")),
            )
        ),
    ),
}

# Modules with another name on PyPI or conda-forge.
PYPI = {"PIL": "pillow", "pytorch_lightning": "pytorch-lightning", "sklearn": "scikit-learn", "yaml": "pyyaml"}
PYPI |= {"markdown_it": "markdown-it-py", "pynvml": "nvidia-ml-py"}
CONDA = {"matplotlib": "matplotlib-base", "torch": "pytorch"}


def text(environment: str, graph: grimp.ImportGraph) -> str:
    """The content of an environment's file."""
    does, roots = ENVIRONMENTS[environment]
    reached = set(roots).union(*(graph.find_upstream_modules(root) for root in roots))
    reached |= {"click"} if set(COMMAND) <= reached else set()
    outside = {name for name in reached if not name.startswith("issl")} - set(sys.stdlib_module_names)
    packages = {PYPI.get(name, name) for name in outside} - OPTIONAL
    lines = sorted(f"{CONDA.get(name, name)} {BOUNDS[name]}" for name in packages)
    return (
        f"# {does[0].upper()}{does[1:]}; issl itself comes through PYTHONPATH. Written by `make envs`: do not edit.\n"
        "channels: [conda-forge, nodefaults]\ndependencies:\n"
        + "".join(f"  - {line}\n" for line in (f"python {PROJECT['requires-python']}", *lines))
    )


PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["timm"]]  # a job must find what it may need
BOUNDS = dict(re.fullmatch(r"([\w-]+)(>=.+)", line).groups() for line in DECLARED)
OPTIONAL = {line.partition(">=")[0] for line in PROJECT["optional-dependencies"]["huggingface"]}

if __name__ == "__main__":
    graph = grimp.build_graph("issl", include_external_packages=True, exclude_type_checking_imports=True)
    for environment in ENVIRONMENTS:
        (FOLDER / f"{environment}.yaml").write_text(text(environment, graph), encoding="utf-8")
