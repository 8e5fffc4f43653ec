"""The project's own config.yaml: as it is read, and the plan of the paper."""

import pytest
from project import PROJECT

from issl.config import plan as catalog
from issl.config.presets import read_config
from issl.config.yaml import read_yaml


@pytest.fixture(scope="module")
def raw():
    return read_config(PROJECT / "config.yaml")


@pytest.fixture(scope="module")
def plans(raw):
    return catalog.plans(raw)


@pytest.fixture(scope="module")
def paper(plans):
    return plans["results"]


@pytest.fixture(scope="module")
def released():
    """The plan of config.yaml alone."""
    return catalog.plans(read_yaml(PROJECT / "config.yaml"))["results"]
