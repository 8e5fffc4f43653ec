"""The documentation names only what exists: files, config keys, targets, commands, links."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import yaml
from project import PROJECT, copy_config, snakemake

from issl.cli import issl
from issl.config import plan as catalog
from issl.config.display import Lines, Table
from issl.config.hardware import Hardware, PretrainResources
from issl.config.presets import merge, read_config
from issl.jobs.execution import Execution
from issl.spec.augment import Augment
from issl.spec.data import DataSpec
from issl.spec.encoder import ENCODERS
from issl.spec.objective import ObjectiveSpec
from issl.spec.optim import Optim
from issl.spec.probe import KINDS

PAGES = [
    *sorted((PROJECT / "docs").glob("*.md")),
    PROJECT / "notebooks/README.md",
    *(page for page in (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md") if page.exists()),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOP = {path.name for path in PROJECT.iterdir()}
MADE = ("results/", "data/")  # by users and jobs: not in the repository
EXAMPLES = {
    "presets/digits.yaml",
    "experiments/widths.yaml",
    "issl/objectives/spectral.py",
    "issl/data/datasets/npz.py",
    "issl/probing/means.py",
    "issl/models/convmixer.py",
    "tests/objectives/test_spectral.py",
}  # of extending.md
EXAMPLE_TARGETS = re.compile(r"results/(my_\w+|digits/\w+)\.\w+")

SECTIONS = {
    "augment": [Augment],
    "encoder": list(ENCODERS.values()),
    "optim": [Optim],
    "objective": list(get_args(get_args(ObjectiveSpec)[0])),
    "probes": list(KINDS.values()),
    "figure": [Lines],
    "table": [Table],
    "execution": [Execution],
    "hardware": [Hardware],
    "data": list(get_args(get_args(DataSpec)[0])),
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def quoted(page: Path) -> list[str]:
    """What stands in backticks outside code blocks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(page.read_text()) if language in languages]


def commands(page: Path, program: str) -> list[list[str]]:
    """Words after `program` in every command that the page shows."""
    lines = quoted(page) + [
        line.partition("#")[0] for block in blocks(page, "sh", "bash") for line in block.splitlines()
    ]
    return [line.strip().removeprefix(program).split() for line in lines if line.strip().startswith(f"{program} ")]


@cache
def targets() -> set[str]:
    """Everything that the plans can make and people ask for."""
    plans = catalog.load(PROJECT / "config.yaml").values()
    made = {target for plan in plans for target in (*plan.targets(), *plan.times)}
    made |= {file for plan in plans for name in plan.rows for file in plan.files(name)}
    return made | {"all", "tiny", "small"}


def test_the_main_pages_exist():
    assert {"fidelity.md", "architecture.md", "extending.md", "data.md"} <= {page.name for page in PAGES}


@every_page
def test_every_path_in_the_docs_exists(page):
    for code in quoted(page):
        path = code.rstrip("/")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path) or code.startswith(MADE) or path in EXAMPLES:
            continue
        if "/" in path and path.split("/")[0] in TOP:
            assert (PROJECT / path).exists(), f"{page.name}: `{code}`"


@every_page
def test_every_config_key_in_the_docs_exists(page):
    for code in quoted(page):
        key = re.match(r"([a-z]+)((?:\.[a-z_]+)+)(?::|$)", code)
        if not key or key[1] not in SECTIONS:
            continue
        models, steps = SECTIONS[key[1]], key[2].strip(".").split(".")
        if key[1] == "hardware" and len(steps) == 2:
            assert steps[1] in PretrainResources.model_fields, f"{page.name}: `{code}`"
        if key[1] == "execution" and len(steps) == 2:
            models, steps = [Execution.model_fields[steps[0]].annotation], steps[1:]
        assert any(steps[0] in model.model_fields for model in models), f"{page.name}: `{code}`"


@every_page
def test_every_snakemake_target_in_the_docs_is_planned(page):
    for words in commands(page, "snakemake"):
        for word in words:
            if word.startswith("results/") and not EXAMPLE_TARGETS.fullmatch(word):
                assert word in targets(), f"{page.name}: snakemake {' '.join(words)}"


def test_every_snakemake_flag_in_the_docs_exists():
    used = {word for page in PAGES for words in commands(page, "snakemake") for word in words if word[:2] == "--"}
    known = snakemake(PROJECT, "--help").stdout
    assert used and not {flag for flag in used if not re.search(rf"{flag.partition('=')[0]}\b", known)}


@every_page
def test_every_command_in_the_docs_exists(page):
    for words in commands(page, "python -m issl"):
        name = words[0]
        if name == "--help":
            continue
        assert name in issl.commands, f"{page.name}: python -m issl {name}"
        known = {flag for option in issl.commands[name].params for flag in option.opts} | {"--help"}
        assert {word for word in words if word[:2] == "--"} <= known, f"{page.name}: {' '.join(words)}"


@every_page
def test_every_link_in_the_docs_has_a_target(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:|#", link):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


@every_page
def test_python_in_the_docs_parses(page):
    for code in blocks(page, "python"):
        ast.parse(code)


@every_page
def test_yaml_in_the_docs_parses(page):
    for code in blocks(page, "yaml"):
        assert yaml.safe_load(code)


@every_page
def test_an_experiment_in_the_docs_is_planned(page):
    for code in blocks(page, "yaml"):
        overlay = yaml.safe_load(code)
        if isinstance(overlay, dict) and overlay.keys() == {"experiments"}:
            plan = catalog.plans(merge(read_config(PROJECT / "config.yaml"), overlay))["results"]
            for name in overlay["experiments"]:
                assert plan.scores(name) and plan.files(name), name


def test_the_file_of_experiments_in_the_docs_is_planned(tmp_path):
    [example] = [code for code in blocks(PROJECT / "docs/extending.md", "yaml") if "my_projectors" in code]
    copy_config(tmp_path)
    (tmp_path / "experiments/widths.yaml").write_text(example)
    plans = catalog.load(tmp_path / "config.yaml")
    assert [root for root, plan in plans.items() if "my_projectors" in plan.rows] == ["results", "results/tiny"]
    for root, width in (("results", 256), ("results/tiny", 64)):
        shared, narrow = plans[root].rows["my_projectors"]
        assert shared.run in [row.run for row in plans[root].rows["table1_contrastive"]]
        assert narrow.run.objective.widths == (width,)


def test_every_make_target_in_the_docs_exists():
    rules = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    used = {words[0] for page in PAGES for words in commands(page, "make") if words}
    assert used <= rules


def test_the_citation_file_names_the_paper_and_its_authors():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors", "year"} <= paper.keys()
    assert paper["year"] == 2022
    assert [author["family-names"] for author in paper["authors"]] == ["Dubois", "Hashimoto", "Ermon", "Liang"]
