"""The data sets in docs/data.md can be used as they are written there; what a data set needs is asked for at once."""

import re

import pytest
import yaml
from project import PROJECT

from issl.config import plan as catalog
from issl.errors import UserError
from issl.jobs import packages
from issl.spec.data import ImageNet

PAGE = (PROJECT / "docs/data.md").read_text()
BLOCKS = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
DATA = {name: entry for block in BLOCKS for name, entry in block["data"].items()}
RELEASED = "dissl_resnet50_dNone_e100_m2"


def planned(raw, name, entry, row):
    """The plan of one row on a data set, beside the project's own experiments."""
    mine = {"rows": {"mine": row | {"data": name}}, "probes": [{}], "table": {"caption": "."}}
    changed = raw | {
        "presets": {},
        "data": raw["data"] | {name: entry},
        "experiments": raw["experiments"] | {"mine": mine},
    }
    return catalog.plans(changed)["results"]


def test_each_kind_has_an_example():
    assert {entry["kind"] for entry in DATA.values()} == {
        *("tinyimagenet", "cifar10", "folder", "imagenet", "torchvision", "huggingface", "synthetic")
    }


@pytest.mark.parametrize("name", DATA)
def test_an_example_is_planned(raw, monkeypatch, name):
    monkeypatch.setattr(packages, "installed", lambda module: True)
    plan = planned(raw, name, DATA[name], {"weights": RELEASED})
    [row] = plan.rows["mine"]
    assert row.encoding.data.kind == DATA[name]["kind"]
    if row.encoding.data.image_size is not None and not isinstance(row.encoding.data, ImageNet):
        [row] = planned(raw, name, DATA[name], {"method": "simclr", "optim": {"batch_size": 64}}).rows["mine"]
        assert row.run.data == row.encoding.data


def test_data_that_are_only_listed_cannot_be_pretrained_on(raw):
    with pytest.raises(UserError, match="data 'pets' is only for evaluation, not for pretraining, without an `image_"):
        planned(raw, "pets", DATA["pets"], {"method": "simclr"})


def test_a_missing_package_stops_the_plan_with_the_command_that_installs_it(raw, monkeypatch):
    monkeypatch.setattr(packages, "installed", lambda module: False)
    for row in ({"method": "simclr"}, {"weights": RELEASED}):
        with pytest.raises(UserError, match=r"row 'mine'.*: data 'birds' needs a package: python -m pip install .*'$"):
            planned(raw, "birds", DATA["birds"], row)


def test_data_that_no_row_uses_need_no_package(raw, monkeypatch):
    monkeypatch.setattr(packages, "installed", lambda module: False)
    assert catalog.plans(raw | {"presets": {}, "data": raw["data"] | {"birds": DATA["birds"]}})


def test_two_folders_of_one_name_are_refused(raw):
    other = DATA["birds"] | {"path": "data/other"}
    with pytest.raises(UserError, match="are one data set to the workflow, but in different places"):
        catalog.plans(raw | {"presets": {}, "data": raw["data"] | {"birds": DATA["birds"], "others": other}})


def test_an_unknown_name_is_one_line_with_the_nearest(raw):
    wrong = {"kind": "torchvision", "name": "svnh", "image_size": 32}
    with pytest.raises(UserError, match="torchvision has no data set 'svnh', did you mean 'svhn'") as error:
        catalog.plans(raw | {"presets": {}, "data": raw["data"] | {"svhn": wrong}})
    assert "\n" not in str(error.value)


def test_a_package_that_is_a_mere_folder_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "hollow").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not packages.installed("hollow") and not packages.installed("no_such_package")
    assert packages.installed("numpy")
