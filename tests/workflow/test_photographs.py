"""The preset *imagenet* at reduced sizes, on a folder of photographs: its pretraining, and its table."""

import copy
import hashlib
import json
import shutil

import pandas as pd
import pytest
from project import PROJECT, planned, snakemake
from small_workflow import with_preset, write

from issl.config.presets import read_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small_imagenet(photographs):
    """The preset *imagenet* at reduced sizes: its seven rows of DISSL are trained alone, on three classes."""
    views = {
        "m2": [{"number": 2, "size": 32, "min_area": 0.08}],
        "m6": [{"number": 2, "size": 24, "min_area": 0.14}, {"number": 2, "size": 16, "min_area": 0.05}],
    }
    kept = {"dissl_resnet50_dNone_e100_m2", "dissl_resnet50_d8192_e100_m6"}
    table = read_config(PROJECT / "config.yaml")["experiments"]["table_imagenet"]
    others = dict.fromkeys(set(table["published"]["values"]) - kept)
    short = {
        "base": {"features": {"resize": 36, "crop": 32, "batch_size": 8}},
        "published": {"values": others},
        "claims": dict.fromkeys(table["claims"]),
        "probes": [
            {"kind": "cached", "lr": [0.1, 1.0], "epochs": 5, "holdout": 0.25},
            {"kind": "augmented", "epochs": 1, "batch_size": 8, "holdout": 0.25},
        ],
        "hardware": {"featurize": {"threads": 1}, "probe": {"threads": 1}},
    }
    small = {
        "data": {"imagenet": {"path": str(photographs), "image_size": 32}},
        "defaults": {
            "augment": {"views": views["m2"]},
            "encoder": {"arch": "resnet10", "width": 8, "dim": 64, "bottleneck": 8},
            "optim": {"epochs": 2, "batch_size": 16, "lr": 4.8, "warmup_epochs": 1},
        },
        "methods": {"dissl": {"objective": {"classes": 16, "hidden": 8, "bottleneck": 8}}},
        "patches": {
            "d8192": {"encoder": {"dim": 128}},
            "m6": {"augment": {"views": views["m6"]}},
            "m8": {"augment": {"views": views["m6"]}},
            **{f"e{epochs}": {"optim": {"epochs": 3}} for epochs in (400, 800)},
        },
        "experiments": {"imagenet_contrastive": None, "table_imagenet": short},
        "hardware": {
            "prepare": {"threads": 1},
            "pretrain": {"gpus": 0, "nodes": None, "threads": 1},
            **{rule: {"gpus": 0, "threads": 1} for rule in ("featurize", "probe")},
        },
        "execution": {"device": "cpu", "progress": False},
    }
    config = with_preset("imagenet", small)
    rows = config["presets"]["imagenet"]["experiments"]["table_imagenet"]["rows"]  # which only this preset has
    for name in others:
        del rows[name]
    return config


def test_imagenet_is_pretrained_alone_and_may_move(tmp_path, small_imagenet, photographs):
    write(tmp_path, small_imagenet)
    assert planned(tmp_path, "imagenet") == {"prepare": 1, "pretrain": 7, "curves": 1, "imagenet": 1}
    snakemake(tmp_path, "imagenet", "--cores", "2")
    runs = sorted((tmp_path / "results/imagenet/runs").iterdir())
    assert len(runs) == 7
    for run in runs:
        assert {path.name for path in (run / "s1").iterdir() if not path.name.startswith(".")} == {
            *("encoder.safetensors", "history.csv", "run.json"),
        }
    assert len(list((tmp_path / "results/imagenet/curves").glob("*.svg"))) == 7
    assert planned(tmp_path, "imagenet") == {}

    shutil.copytree(photographs, tmp_path / "elsewhere")
    moved = copy.deepcopy(small_imagenet)
    moved["presets"]["imagenet"]["data"]["imagenet"]["path"] = "elsewhere"
    write(tmp_path, moved)
    assert planned(tmp_path, "imagenet") == {}
    moved["seeds"] = [1, 2]
    write(tmp_path, moved)
    assert planned(tmp_path, "imagenet") == {"pretrain": 7, "curves": 1, "imagenet": 1}
    seed2 = f"results/imagenet/runs/{runs[0].name}/s2/run.json"
    snakemake(tmp_path, seed2, "--cores", "1")  # finds the photographs where they are now, with the list of before


def test_what_was_pretrained_on_photographs_is_scored_on_them(tmp_path, small_imagenet):
    write(tmp_path, small_imagenet)
    table = "results/imagenet/table_imagenet.md"
    assert planned(tmp_path, table) == {
        **{"prepare": 1, "pretrain": 2, "featurize": 2, "probe": 4, "aggregate": 1, "tabulate": 1},
    }
    snakemake(tmp_path, table, "--cores", "2")
    assert planned(tmp_path, table) == {}
    tidy = pd.read_csv(tmp_path / "results/imagenet/table_imagenet.csv")
    runs = {path.name for path in (tmp_path / "results/imagenet/runs").iterdir()}
    assert {*tidy["encoder"]} == runs and len(runs) == 2 and not tidy["released"].any()
    assert set(tidy["probe"]) == {"cached", "augmented"} and tidy["test_acc"].between(0, 1).all()
    shown = (tmp_path / table).read_text()
    assert "66.9" in shown, "the published number is beside it"
    about = sorted((tmp_path / "results/imagenet/runs").glob("*/s1/features/*.json"))
    digests = {json.loads(path.read_text())["weights"] for path in about}
    assert len(digests) == 2 and digests == {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "results/imagenet/runs").glob("*/s1/encoder.safetensors")
    }
