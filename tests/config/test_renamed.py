"""A former key of the config ends in one line that names its successor, and each successor exists."""

import copy

import pytest
from project import PROJECT
from pydantic import BaseModel

from issl.config import schema
from issl.config.plan import load, plans
from issl.config.presets import read_config
from issl.config.renamed import RENAMED
from issl.errors import UserError
from issl.spec.encoding import Encoding


@pytest.fixture
def raw():
    return copy.deepcopy(read_config(PROJECT / "config.yaml"))


def refusal(raw) -> str:
    with pytest.raises(UserError) as caught:
        plans(raw)
    return str(caught.value)


def test_an_old_section_names_its_successor(raw):
    raw["evaluations"] = raw["experiments"]
    assert refusal(raw) == "config: evaluations: this key is now 'experiments'; rename it"


def test_an_old_key_of_an_experiment_and_of_its_row_name_their_successors(raw):
    raw["experiments"]["fig7c"]["protocols"] = raw["experiments"]["fig7c"].pop("probes")
    assert refusal(raw) == "config: experiments.fig7c.protocols: this key is now 'probes'; rename it"
    raw["experiments"]["fig7c"].pop("protocols")
    raw["experiments"]["table1_contrastive"]["rows"]["SimCLR"]["crop"] = 32
    assert refusal(raw).endswith("rows.SimCLR.crop: this key is now 'features.crop'; rename it")


def test_the_line_of_an_old_key_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("seeds: [1]\nexperiments:\n  fig7c:\n    protocols: []\n")
    with pytest.raises(UserError, match=r"mine\.yaml:4: experiments\.fig7c\.protocols: this key is now 'probes'"):
        load(PROJECT / "config.yaml", [tmp_path / "mine.yaml"])


def test_a_misspelt_key_is_still_corrected(raw):
    raw["evaluation"] = {}
    assert "evaluation: unknown key" in refusal(raw)


@pytest.mark.parametrize(
    ("model", "old", "new"), [(model, *pair) for model, keys in RENAMED.items() for pair in keys.items()]
)
def test_no_old_key_is_in_use_and_every_successor_is(model, old, new):
    def keys(of: type[BaseModel]) -> set[str]:
        return {field.alias or name for name, field in of.model_fields.items()}

    section, _, key = new.rpartition(".")
    here = keys(getattr(schema, model))
    assert old not in here
    assert key in (keys(Encoding) if section == "features" else here)
    assert section in {"", *here}
