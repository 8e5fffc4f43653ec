"""A folder with the project's config, in which jobs can have left files."""

import os

import pytest
from project import copy_config

from issl.config.plan import load
from issl.planning import flops


@pytest.fixture(scope="session")
def counts(tmp_path_factory):
    """The file of counted operations, which are the same for all tests."""
    return tmp_path_factory.mktemp("counts") / "flops.json"


@pytest.fixture
def plans(tmp_path, monkeypatch, counts):
    """The plans of the config in this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", os.devnull)  # a Slurm that is installed and does not run would be waited for
    monkeypatch.setattr(flops, "CACHE", counts)
    copy_config(tmp_path)
    return load()


@pytest.fixture
def tiny(plans):
    return plans["results/tiny"]
