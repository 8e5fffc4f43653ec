"""Continuous integration runs what people run: the targets of the Makefile, with the versions of constraints.txt."""

import os
import re
import shutil
import subprocess

import pytest
import yaml
from project import PROJECT

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
SCRIPT = PROJECT / ".ci/run"
BYTECODE = "PYTHONDONTWRITEBYTECODE"


def commands(path) -> list[str]:
    """Lines that the steps of a workflow run."""
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [line for job in jobs for step in job["steps"] for line in step.get("run", "").splitlines()]


def made(lines) -> set[str]:
    return {match[1] for line in lines if (match := re.match(r"make ([\w.-]+)", line.strip()))}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_workflow_runs_targets_of_the_makefile_or_the_script_that_does(path):
    lines = commands(path)
    targets = made([*lines, *(SCRIPT.read_text().splitlines() if ".ci/run" in lines else ())])
    assert targets
    for target in targets:  # asks make itself: it ends with 2 where there is no such target
        found = subprocess.run(["make", "--dry-run", target], cwd=PROJECT, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr


def test_together_the_workflows_run_lint_and_every_tier():
    runs = {path.stem: commands(path) for path in WORKFLOWS}
    assert {"lint", "test-fast", "docs"} <= made(runs["push"])
    assert ".ci/run" in runs["nightly"] and {"test", "test-slow"} <= made(SCRIPT.read_text().splitlines())
    assert made(runs["weekly"]) == {"test-fast"}


# --- set-up ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def installing(tmp_path):
    """Gives the commands with which a target installs packages, from nothing, where the programs of `path` exist."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, tmp_path)
    for tool in ("make", "sh"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))

    def commands(target, *words, **more):
        command = ["make", "--dry-run", "--no-print-directory", target, *words]
        inherited = {name: value for name, value in os.environ.items() if name not in ("UV", "MAKEFLAGS", BYTECODE)}
        environment = inherited | {"PATH": str(tmp_path / "bin"), **more}
        shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return [" ".join(line.split()) for line in shown.stdout.splitlines() if "pip install" in line]

    return commands


@pytest.mark.parametrize("target", ["demo", "setup", "bench"])
def test_what_people_run_installs_no_packages_of_tests(installing, target):
    (command,) = installing(target)
    assert command.endswith('--constraint constraints.txt --editable "."')


@pytest.mark.parametrize("target", ["test", "test-slow", "lint", "docs", "envs", "chaos", "gpu-evidence", "format"])
def test_targets_for_contributors_install_everything_at_once(installing, target):
    (command,) = installing(target)
    assert command.endswith('--constraint constraints.txt --editable ".[test]"')


def test_uv_installs_if_it_is_there_and_pip_on_request(installing, tmp_path):
    (with_pip,) = installing("demo")
    (tmp_path / "bin/uv").symlink_to(shutil.which("true"))
    (with_uv,) = installing("demo")
    rest = '--quiet --constraint constraints.txt --editable "."'
    assert with_pip == f".venv/bin/python -m pip install --no-compile {rest}"
    assert with_uv == f"{tmp_path}/bin/uv pip install --python .venv/bin/python {rest}"
    assert installing("demo", "UV=") == [with_pip]


def test_packages_are_compiled_at_once_where_python_may_not_write_bytecode(installing):
    (with_pip,) = installing("demo", **{BYTECODE: "1"})
    (with_uv,) = installing("demo", "UV=/bin/uv", **{BYTECODE: "1"})
    assert "--no-compile" not in with_pip
    assert "--compile-bytecode" in with_uv


def test_each_workflow_can_only_read_the_repository():
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}, path.name


def test_pre_commit_has_the_pinned_version_of_each_tool():
    pinned = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines())
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    versions = {hook["repo"].rpartition("/")[2].removesuffix("-pre-commit"): hook["rev"] for hook in hooks}
    assert versions == {tool: f"v{pinned[tool]}" for tool in ("ruff", "snakefmt", "codespell")}
