"""A finished run of somebody else, and a folder and a server to which it was pushed."""

from functools import partial

import pytest
from project import copy_config
from runs import Handler, finished_run
from web import serving

from issl.config import plan as catalog
from issl.sharing.push import push


@pytest.fixture
def specs(tmp_path, monkeypatch):
    """The settings of the runs of the project's preset *tiny*; the folder of the test has its config."""
    copy_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    return list(catalog.load()["results/tiny"].runs.values())


@pytest.fixture
def run(specs, tmp_path):
    """The folder of a finished run, which is in nobody's results."""
    return finished_run(tmp_path / "theirs", specs[0])


@pytest.fixture
def published(run, tmp_path):
    """A folder to which it was pushed."""
    push([run], str(tmp_path / "published"))
    return tmp_path / "published"


@pytest.fixture
def server(published):
    """The same folder on a web server."""
    with serving(partial(Handler, directory=published)) as running:
        yield running
