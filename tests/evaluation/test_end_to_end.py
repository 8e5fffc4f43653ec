"""The three tables from end to end: real ResNet-50 files over HTTP, photographs and data sets of a few images."""

import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from issl import encoders
from issl.config import read_yaml
from issl.released import MODELS

PROJECT = Path(__file__).parent.parent.parent
KEPT = ("dissl_resnet50_dNone_e100_m2", "dissl_resnet50_d8192_e400_m6")
ROOT = "results/mini"
SEARCHED = {"draws": 2, "holdout": 0.25}


def evaluations(paper):
    """The project's own evaluations at 64 px, with two models, two data sets and short protocols."""
    crop = {"resize": 72, "crop": 64, "batch_size": 16}
    imagenet, transfer, issue2 = (paper[name] for name in ("table_imagenet", "table_transfer", "issue2_cifar10"))
    others = [name for name in imagenet["rows"] if name not in KEPT]
    probes = [
        {"lr": 0.1, "weight_decay": [1e-6, 1e-4], "epochs": 5},
        {"optimizer": "lars", "batch_norm": True, "epochs": 5},
    ]
    return {
        "table_imagenet": {
            "base": crop,
            "rows": dict.fromkeys(others),
            "protocols": {
                "cached": {"probes": probes, "holdout": 0.25},
                "augmented": {"epochs": 2, "batch_size": 16, "milestones": [1], "holdout": 0.25},
            },
            "published": {"values": dict.fromkeys(others)},
            "claims": dict.fromkeys(imagenet["claims"]),
        },
        "table_transfer": {
            "base": crop,
            "rows": {name: None for name in transfer["rows"] if name not in ("CIFAR-10", "Oxford Pets")}
            | {"CIFAR-10": {"resize": 64}},
            "protocols": {"logistic regression": SEARCHED, "linear SVM": SEARCHED},
        },
        "issue2_cifar10": {
            "base": {"crop": 64, "batch_size": 16},
            "rows": {label: {"resize": row["resize"] // 32 * 8 + 8} for label, row in issue2["rows"].items()},
            "protocols": {"logistic regression": None, "linear SVM": SEARCHED},
            "published": {"values": {label: {"logistic regression": None} for label in issue2["published"]["values"]}},
        },
    }


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 80, 3), np.uint8)).save(path)


def write_pets(root):
    """Two kinds of pets: 8 training and 4 test images of each."""
    lines = {"trainval": [], "test": []}
    for label, kind in enumerate(("Abyssinian", "Beagle")):
        for k in range(12):
            save(root / f"images/{kind}_{k}.jpg", 12 * label + k)
            lines["trainval" if k < 8 else "test"].append(f"{kind}_{k} {label + 1} 1 1\n")
    (root / "annotations").mkdir()
    for split, said in lines.items():
        (root / f"annotations/{split}.txt").write_text("".join(said))


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Address of a server with two files of the release: state dicts of the real shapes."""
    folder = tmp_path_factory.mktemp("served")
    for name in KEPT:
        torch.manual_seed(0)
        torch.save(encoders.build(MODELS[name].encoder, 224).state_dict(), folder / f"{name}.torch")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def snakemake(tmp_path_factory, photographs, mirror):
    """Runs the project's workflow in a folder with the data sets, and a preset *mini* of the evaluations."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_pets(folder / "data/torchvision/oxford-iiit-pet")
    raw = read_yaml(PROJECT / "config.yaml")
    cifar10 = {"kind": "synthetic", "classes": 3, "train_per_class": 12, "test_per_class": 4, "path": None}
    raw["presets"] = {
        "mini": {
            "data": {"imagenet": {"path": str(photographs)}, "cifar10": cifar10},
            "experiments": dict.fromkeys(raw["experiments"]),
            "evaluations": evaluations(raw["evaluations"]),
            "hardware": {
                rule: {"threads": 1, "gpus": 0} for rule in ("featurize_weights", "probe_weights", "probe_images")
            },
            "execution": {"device": "cpu", "precision": "32"},
        }
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))

    def run(*arguments, check=True):
        command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", "--directory", folder, *arguments]
        there = {"TORCH_HOME": str(folder / "torch"), "ISSL_HUB_URL": mirror, "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, "PYTHONPATH": "", **there}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return folder, done

    return run


TARGETS = [f"{ROOT}/{name}.md" for name in ("table_imagenet", "table_transfer", "issue2_cifar10")]


@pytest.fixture(scope="module")
def finished(snakemake):
    return snakemake(*TARGETS, "--cores", "2")[0]


def rows_of(path):
    """Cells of a Markdown table, row by row; the header first."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.slow
def test_the_table_of_imagenet(finished):
    header, *rows = rows_of(finished / TARGETS[0])
    assert [row[0] for row in rows] == list(KEPT) and len(header) == 1 + 2 * 4
    tidy = pd.read_csv(finished / ROOT / "table_imagenet.csv")
    assert tidy.groupby(["row", "protocol"])["setting"].nunique().to_dict() == {
        **{(name, "cached"): 3 for name in KEPT},
        **{(KEPT[0], "augmented"): 3, (KEPT[1], "augmented"): 2},  # the pooled head is the 2048-d model's alone
    }
    assert tidy[["test_acc", "holdout_acc"]].stack().between(0, 1).all()
    assert tidy.loc[tidy["metric"] == "top-5", "test_acc"].eq(1).all(), "there are three classes"
    top1 = tidy[(tidy["metric"] == "top-1") & (tidy["protocol"] == "augmented") & (tidy["row"] == KEPT[0])]
    assert rows[0][header.index("augmented, top-1: best on test")] == f"{100 * top1['test_acc'].max():.1f}"


@pytest.mark.slow
def test_the_table_of_transfer(finished):
    header, *rows = rows_of(finished / TARGETS[1])
    assert [row[0] for row in rows] == ["CIFAR-10", "Oxford Pets"]
    assert header[1:] == [  # without the published number, in another preset than the paper's
        f"{classifier}: best on {split}"
        for classifier in ("logistic regression", "linear SVM")
        for split in ("test", "held-out")
    ]
    assert "By mean per class accuracy: Oxford Pets." in (finished / TARGETS[1]).read_text()


@pytest.mark.slow
def test_the_table_of_issue_2_has_eight_different_cells(finished):
    _, *rows = rows_of(finished / TARGETS[2])
    assert len(rows) == 8
    about = sorted((finished / ROOT / f"weights/{KEPT[1]}").glob("synthetic-*/features.json"))
    asked = [json.loads(path.read_text())["encoding"] for path in about]
    assert {(e.get("batch_norm"), e["resize"], e.get("layer")) for e in asked} >= {
        (mode, resize, layer) for mode in (None, "train") for resize in (64, 72) for layer in ("trunk", None)
    }


@pytest.mark.slow
def test_features_and_saves_are_gone_and_nothing_is_planned_again(finished, snakemake):
    left = [path for path in (finished / ROOT).rglob("*") if re.search(r"\.part$|\.npy$", path.name)]
    assert [path for path in left if "data" not in path.relative_to(finished / ROOT).parts] == []
    _, done = snakemake("-n", *TARGETS)
    assert "Nothing to be done" in done.stdout


@pytest.mark.slow
def test_the_comparison_has_them_once_they_are_there(finished, snakemake):
    snakemake(f"{ROOT}/reproduction.md", "--cores", "1")
    report = json.loads((finished / ROOT / "reproduction.json").read_text())
    found = {number["experiment"]: number["verdict"] for number in report["numbers"] if number["reproduced"]}
    assert found == dict.fromkeys(("table_imagenet", "table_transfer", "issue2_cifar10"), "not comparable")
    assert report["changed"] == [] and report["leftovers"] == []


@pytest.mark.slow
def test_weights_that_the_mirror_lacks_are_one_line(finished, snakemake):
    overlay = {
        "presets": {"mini": {"evaluations": {"table_transfer": {"base": {"weights": "dissl_resnet50_d8192_e800_m8"}}}}}
    }
    (finished / "more.yaml").write_text(yaml.safe_dump(overlay))
    _, done = snakemake(TARGETS[1], "--cores", "1", "--configfile", finished / "more.yaml", check=False)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors and "dissl_resnet50_d8192_e800_m8.torch" in errors[0] and "Traceback" not in done.stderr
