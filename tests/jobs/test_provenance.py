"""Where a result comes from: the commit, what changed since, and the versions."""

import json
import platform
import subprocess
import tomllib
from datetime import UTC, datetime
from importlib import metadata

import pytest
from project import PROJECT

import issl
from issl.data.datasets import synthetic
from issl.jobs import fingerprint, provenance
from issl.jobs.provenance import git_state
from issl.spec.data import Synthetic


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit; gives its folder and a way to call git there."""
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set when a hook runs the tests
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "repository"
    (folder / "package").mkdir(parents=True)
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false")

    def git(*arguments):
        done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (folder / "package/code.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return folder, git


def test_a_clean_checkout_is_recorded_as_its_commit(repository):
    folder, git = repository
    assert git_state(folder / "package") == {"commit": git("rev-parse", "HEAD"), "dirty": False}


def test_a_changed_file_makes_it_dirty_until_it_is_committed(repository):
    folder, git = repository
    first = git("rev-parse", "HEAD")
    (folder / "package/code.py").write_text("x = 2\n")
    assert git_state(folder / "package") == {"commit": first, "dirty": True}
    git("add", ".")
    assert git_state(folder / "package")["dirty"]
    git("commit", "--quiet", "--message", "second")
    second = git("rev-parse", "HEAD")
    assert second != first
    assert git_state(folder / "package") == {"commit": second, "dirty": False}


def test_a_removed_file_makes_it_dirty(repository):
    folder, _ = repository
    (folder / "package/code.py").unlink()
    assert git_state(folder)["dirty"]


def test_results_and_other_new_files_do_not_make_it_dirty(repository):
    folder, _ = repository
    (folder / "results.csv").write_text("1\n")
    assert not git_state(folder)["dirty"]


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "unpacked").mkdir()
    assert git_state(tmp_path / "unpacked") is None


def test_a_repository_without_commits_has_none(tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert git_state(tmp_path) is None


def test_without_git_there_is_no_commit(repository, monkeypatch, tmp_path):
    folder, _ = repository
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert git_state(folder) is None


def test_provenance_records_versions_host_and_time():
    before = datetime.now(UTC).replace(microsecond=0)
    about = provenance.describe("pretrain")
    assert about["versions"]["python"] == platform.python_version()
    for package in ("torch", "torchvision", "pytorch-lightning", "numpy"):
        assert about["versions"][package] == metadata.version(package)
    assert about["host"] == platform.node()
    assert before <= datetime.fromisoformat(about["started"]) <= datetime.now(UTC)
    assert about["code"]["modules"].keys() == fingerprint.modules("pretrain").keys()
    assert json.loads(json.dumps(about)) == about


def test_provenance_names_what_a_job_takes_of_tables_of_alternatives():
    code = provenance.describe("prepare", synthetic.read, Synthetic)["code"]
    assert code["parts"] == ["issl.data.datasets.synthetic", "issl.spec.data:Synthetic"]
    assert code["modules"] == fingerprint.modules("prepare", code["parts"])
    assert provenance.describe("prepare")["code"]["parts"] == []


def test_the_project_version_is_known_without_installation(monkeypatch):
    """A rule's conda environment finds it through PYTHONPATH, and may lack other packages of the list."""

    def nothing_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing_installed)
    versions = provenance.describe("pretrain")["versions"]
    assert versions["issl"] == issl.__version__
    assert versions["torchvision"] is None


def test_the_version_is_defined_once():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["version"] == issl.__version__
    assert f"\nversion: {issl.__version__}\n" in (PROJECT / "CITATION.cff").read_text()
