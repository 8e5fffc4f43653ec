"""The project's own config.yaml: as it is read, and the plan of the paper."""

import pytest
from project import PROJECT

from issl.config import plan as catalog
from issl.config.presets import read_config


@pytest.fixture(scope="module")
def raw():
    return read_config(PROJECT / "config.yaml")


@pytest.fixture(scope="module")
def paper(raw):
    return catalog.plans(raw)["results"]


@pytest.fixture(scope="module")
def released(raw):
    """The plan without presets/paper.yaml."""
    return catalog.plans(raw | {"presets": {}})["results"]
