"""Files and names that mean harm: nothing in them is ever run, and nothing leaves its folder."""

import json
import pickle
import zipfile

import pytest
import torch
from harm import Harm
from project import PROJECT, planned, snakemake

from issl.config.presets import merge, presets, read_config
from issl.config.yaml import read_yaml
from issl.errors import UserError
from issl.training import checkpoints


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_cannot_run_code(tmp_path, how):
    trace, path = tmp_path / "trace", tmp_path / checkpoints.NAMES[0]
    if how == "torch":
        torch.save({"identity": Harm(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Harm(trace)))
    assert checkpoints.newest(tmp_path, {}) is None
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harm(trace)))
    assert trace.exists()  # the file would have done it


def test_yaml_cannot_run_code(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "config.yaml"
    path.write_text(f"seeds: !!python/object/apply:os.mkdir ['{trace}']\n")
    with pytest.raises(UserError, match=r"config\.yaml: not valid YAML: could not determine a constructor"):
        read_yaml(path)
    done = snakemake(tmp_path, "-n", check=False)
    assert done.returncode == 1 and not trace.exists()
    assert "Traceback" not in done.stderr


NAMES = ["$(touch trace)", "a b; touch trace", "`touch trace`", "' && touch trace '", "../../trace", "{input}", "%s\\n"]


@pytest.mark.slow
def test_names_of_rows_and_paths_cannot_reach_a_shell(tmp_path):
    """All free text that a config can hold, in a run from an image folder to a table."""
    from PIL import Image

    images = tmp_path / "im $(touch trace) 'ages"
    for split, number in (("train", 12), ("val", 4)):
        for label in ("a", "b $(touch trace)"):
            (images / split / label).mkdir(parents=True)
            for index in range(number):
                color = (40 * index % 255, 100 if split == "train" else 120, 200 if label == "a" else 0)
                Image.new("RGB", (16, 16), color).save(images / split / label / f"{index}; touch trace.png")
    raw = read_config(PROJECT / "config.yaml")
    tiny = raw["presets"]["tiny"]
    raw["experiments"]["table2_mlp"]["claims"] = {}  # they speak of other rows
    del tiny["experiments"]["table2_mlp"]["rows"]
    own = {
        "data": {"own": {"kind": "folder", "name": "own", "path": str(images), "image_size": 16}},
        "defaults": {
            "data": "own",
            "encoder": {"arch": "resnet10", "width": 8, "dim": 64},
            "optim": {"epochs": 1, "batch_size": 8, "warmup_epochs": 0},
        },
        "experiments": {
            "table2_mlp": {
                "rows": dict.fromkeys(raw["experiments"]["table2_mlp"]["rows"])  # null removes those
                | {name: {"method": "simclr"} for name in NAMES},  # one run under many names
                "probes": [{"kind": "linear", "label": "; touch trace", "epochs": 1, "batch_size": 8}],
                "table": {"caption": "$(touch trace) `touch trace`", "columns": ["probe"]},
                "published": None,
                "claims": None,
            }
        },
        "execution": {"wandb": {"project": "$(touch trace)", "entity": "; touch trace"}},
    }
    config = merge(raw, {"presets": {"tiny": merge(tiny, own)}})
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    snakemake(tmp_path, "-c2", "results/tiny/table2_mlp.md", "results/tiny/table2_mlp.html")
    assert not [path for path in tmp_path.rglob("*") if path.name == "trace"]
    table = (tmp_path / "results/tiny/table2_mlp.md").read_text()
    # Of the caption, of the one column of a probe with one setting, and of the rows.
    assert table.count("touch trace") == 2 + 1 + sum("touch trace" in name for name in NAMES)
    assert planned(tmp_path, "results/tiny/table2_mlp.md") == {}


@pytest.mark.parametrize("name", ["$(touch x)", "a b", "a;b", "../up", "Upper", ""])
def test_names_that_become_paths_are_refused(tmp_path, name):
    raw = read_config(PROJECT / "config.yaml")
    (tmp_path / "config.yaml").write_text(json.dumps(merge(raw, {"experiments": {name: raw["experiments"]["fig7a"]}})))
    done = snakemake(tmp_path, "-n", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: config.yaml:1: experiments.")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"experiments": {"fig7c": {"figure": {"caption": "a </SCRIPT> b"}}}}, "experiments.fig7c.figure.caption"),
        ({"presets": {"tiny": {"experiments": {"x</script>": {}}}}}, "presets.tiny.experiments: a key"),
    ],
)
def test_no_text_can_close_the_scripts_of_the_report(change, place):
    with pytest.raises(UserError, match=f"config: {place}: .* contains '</script'"):
        presets(merge(read_config(PROJECT / "config.yaml"), change))


def test_an_archive_cannot_write_outside(tmp_path):
    """Archives are read, never extracted: names in them are looked up, and no path is made of them."""
    from issl import data
    from issl.spec.data import TinyImageNet

    archive = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("../../outside", "/tmp/outside", "tiny-imagenet-200/train/../../../outside.JPEG"):
            file.writestr(name, "x")
    with pytest.raises(UserError):
        data.prepare(TinyImageNet(kind="tinyimagenet", archive=str(archive)), tmp_path / "data", progress=False)
    assert not list(tmp_path.rglob("outside*"))
