"""Folders to run the workflow in: one without results, and one where it has finished."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from project import copy_config, snakemake
from small_workflow import small_config, write


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Path:
    """A folder with the project's own config and no results."""
    folder = tmp_path_factory.mktemp("fresh")
    copy_config(folder)
    return folder


@pytest.fixture(scope="session")
def config() -> dict:
    """The project's config with a *tiny* of two rows and two points that trains in seconds."""
    return small_config()


@pytest.fixture(scope="session")
def finished(shared_folder, config) -> Path:
    """A finished run of every target of the small *tiny*: made once for all test processes, and only looked at."""
    folder = shared_folder / "finished"
    with FileLock(shared_folder / "finished.lock"):
        if not (folder / "results/tiny/reproduction.md").exists():
            folder.mkdir(exist_ok=True)
            write(folder, config)
            snakemake(folder, "tiny", "--cores", "2")
    return folder


@pytest.fixture
def finished_copy(finished, tmp_path) -> Path:
    """A copy of that folder, to edit and to run again; times of files count, so they are kept."""
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)
