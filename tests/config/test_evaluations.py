"""What config.yaml asks of published weights, row by row, and where it lies."""

import copy
import json
import re
from pathlib import Path

import pytest
from project import PROJECT

from issl.config import plan as catalog
from issl.config.presets import read_config
from issl.errors import UserError
from issl.spec.protocol import Augmented, Cached, encoding_id
from issl.spec.released import MODELS
from issl.spec.run import run_id
from issl.spec.value import short_hash


@pytest.fixture(scope="module")
def raw():
    return read_config(PROJECT / "config.yaml")


@pytest.fixture(scope="module")
def asked(raw):
    return catalog.plans(raw)["results"].evaluations


def test_the_table_of_imagenet_has_every_released_model_and_both_protocols(asked):
    rows = asked.rows["table_imagenet"]
    assert [row.label for row in rows] == [row.encoding.weights for row in rows] == list(MODELS)
    for row in rows:
        assert (row.encoding.resize, row.encoding.crop, row.encoding.data.kind) == (256, 224, "imagenet")
        assert row.metrics == ("top-1", "top-5")
    cached, augmented = rows[0].protocols.values()
    assert augmented == Augmented(kind="augmented") and isinstance(cached, Cached)
    # Optimiser, rate for 256 images, weight decay, batch norm, batch, epochs: the grid of August 2022.
    sgd = [(0.1, decay, False, 2048, 100) for decay in (1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4)]
    sgd += [(rate, 1e-6, False, 2048, 100) for rate in (0.03, 0.3, 1.0)]
    sgd += [(0.1, 1e-6, False, 2048, 300), (0.1, 1e-6, True, 2048, 100), (0.1, 1e-5, True, 2048, 100)]
    lars = [(rate, decay, False, 2048, 100) for rate, decay in ((0.1, 1e-6), (0.1, 1e-5), (0.01, 0))]
    expected = {("sgd", *each) for each in [*sgd, (0.3, 1e-6, False, 256, 100)]} | {("lars", *each) for each in lars}
    found = [(p.optimizer, p.lr, p.weight_decay, p.batch_norm, p.batch_size, p.epochs) for p in cached.probes]
    assert set(found) == expected and len(found) == len(expected) == 16


def test_published_numbers_are_those_of_the_readme_and_its_history(asked):
    points = asked.config.evaluations["table_imagenet"].published.points
    by_column = {}
    for (line, column), value in points.items():
        by_column.setdefault(column, {})[line.removeprefix("dissl_resnet50_")] = value
    assert by_column == {
        "cached, top-1": {"dNone_e100_m2": 66.4, "d8192_e100_m2": 67.6, "dNone_e400_m2": 70.4}
        | {"dNone_e400_m6": 71.5, "d8192_e400_m6": 72.6, "d8192_e800_m8": 72.9},
        "augmented, top-1": {"dNone_e100_m2": 66.9, "d8192_e100_m2": 68.9, "d8192_e100_m6": 70.7, "dNone_e400_m2": 71.1}
        | {"dNone_e400_m6": 73.0, "d8192_e400_m6": 74.0, "d8192_e800_m8": 73.9},
        "augmented, top-5": {"dNone_e100_m2": 87.5, "d8192_e100_m2": 88.5, "d8192_e100_m6": 88.5, "dNone_e400_m2": 90.2}
        | {"dNone_e400_m6": 91.3, "d8192_e400_m6": 91.9, "d8192_e800_m8": 91.9},
    }


def test_transfer_has_its_nine_data_sets_with_crops_and_metrics(asked):
    assert {
        row.label: (row.encoding.data.name, row.encoding.resize, *row.metrics) for row in asked.rows["table_transfer"]
    } == {
        "CIFAR-10": ("cifar10", 224, "top-1"),
        "CIFAR-100": ("cifar100", 224, "top-1"),
        "Food-101": ("food101", 256, "top-1"),
        "Stanford Cars": ("cars", 256, "top-1"),
        "FGVC Aircraft": ("aircraft", 256, "mean per class"),
        "DTD": ("dtd", 256, "top-1"),
        "Oxford Pets": ("pets", 256, "mean per class"),
        "Caltech-101": ("caltech101", 256, "mean per class"),
        "Flowers-102": ("flowers102", 256, "mean per class"),
    }


def test_issue_2_has_eight_combinations_and_shares_those_of_transfer(asked):
    rows = {row.label: row.encoding for row in asked.rows["issue2_cifar10"]}
    assert {(e.batch_norm, e.resize, e.layer) for e in rows.values()} == {
        (mode, resize, layer) for mode in ("eval", "train") for resize in (224, 256) for layer in ("trunk", "output")
    }
    for label, encoding in rows.items():
        mode, crop, dim = label.split(", ")
        assert (mode, "256" in crop, dim == "8192") == (
            encoding.batch_norm,
            encoding.resize == 256,
            encoding.layer == "output",
        )
    [cifar10] = [row.encoding for row in asked.rows["table_transfer"] if row.label == "CIFAR-10"]
    assert rows["eval, resize 224, 8192"] == cifar10
    assert len(asked.encodings) == 7 + 9 + 8 - 1


def test_other_presets_have_only_the_evaluations_they_name(raw):
    plans = catalog.plans(raw)
    own = {root: list(plan.evaluations.rows) for root, plan in plans.items() if root != "results"}
    assert own == {"results/small": [], "results/tiny": [], "results/imagenet": ["table_imagenet"]}
    changed = copy.deepcopy(raw)
    changed["presets"]["tiny"]["evaluations"] = {"table_transfer": {"seeds": [0, 1]}}
    plan = catalog.plans(changed)["results/tiny"].evaluations
    assert list(plan.rows) == ["table_transfer"] and len(plan.scores("table_transfer")) == 9 * 2 * 2


def test_evaluations_are_made_on_request_and_change_no_other_target(raw):
    with_them, without = (catalog.plans(each)["results"] for each in (raw, {**raw, "evaluations": {}, "presets": {}}))
    assert with_them.targets() == without.targets()
    assert with_them.runs == without.runs and with_them.data == without.data
    assert with_them.evaluations.targets()[:2] == ["results/table_imagenet.md", "results/table_imagenet.tex"]


def test_outputs_of_rules_are_not_leftovers(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = catalog.plans(raw)["results"]
    [row, *_] = plan.evaluations.rows["issue2_cifar10"]
    own = [*plan.evaluations.targets(), *plan.evaluations.scores("table_imagenet")]
    own += [f"results/{row.folder(0)}/{name}" for name in ("features.json", "features/0.npy", "features.part/0.npy")]
    stray = f"results/weights/{row.encoding.weights}/cifar10-00000000/features.json"
    for path in map(Path, [*own, stray]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert plan.leftovers() == [f"weights/{row.encoding.weights}/cifar10-00000000/"]


def test_the_comparison_reads_an_evaluation_once_it_has_scores(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = catalog.plans(raw)["results"]
    assert not {"table_imagenet", "table_transfer", "issue2_cifar10"} & set(plan.compared)
    scores = plan.evaluations.scores("table_imagenet")
    for path in map(Path, scores[:-1]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert "table_imagenet" not in catalog.plans(raw)["results"].compared, "one is missing"
    existing = catalog.plans(raw | {"existing_only": True})["results"]
    assert existing.compared == ["table_imagenet"] and len(existing.evaluations.rows_for("table_imagenet")) == 13
    Path(scores[-1]).touch()
    plan = catalog.plans(raw)["results"]
    assert plan.compared[-1] == "table_imagenet"
    assert len(plan.records("featurize_weights")) == 7 and len(plan.records("probe_weights")) == 14
    assert any(path.startswith("results/data/imagenet-") for path in plan.records("prepare"))


def test_a_scikit_learn_probe_requests_no_gpu(asked):
    kinds = {protocol.kind: asked.gpus(name) for name, protocol in asked.protocols.items()}
    assert kinds == {"cached": 1, "augmented": 0, "logistic": 0, "svm": 0}  # probe_images asks for its own


def test_paths_are_not_part_of_an_encoding(asked):
    for (weights, name), encoding in asked.encodings.items():
        assert "path" not in asked.encoding(weights, name) and "path" in asked.place(weights, name)
        assert encoding_id(encoding) == name


# --- our own runs ----------------------------------------------------------------------------------------------------


def test_the_preset_imagenet_evaluates_what_it_pretrains_beside_the_published_numbers(raw):
    ours, released = (catalog.plans(raw)[root] for root in ("results/imagenet", "results"))
    rows = ours.evaluations.rows["table_imagenet"]
    assert [row.label for row in rows] == [row.label for row in released.evaluations.rows["table_imagenet"]]
    for row in rows:
        encoding = row.encodings[1]
        assert encoding.run == f"results/imagenet/runs/{encoding.weights.removesuffix('-s1')}/s1"
        run = ours.runs[encoding.weights.removesuffix("-s1")]
        shape = MODELS[row.label].encoder
        assert (run.encoder.dim, run.encoder.head) == (shape.dim, shape.head)
        assert run.optim.epochs == MODELS[row.label].epochs
        assert row.protocols == released.evaluations.rows["table_imagenet"][0].protocols
    assert ours.published("table_imagenet") == released.published("table_imagenet")
    assert "not comparable" not in ours.caption("table_imagenet")


def with_own(raw, **evaluation):
    changed = copy.deepcopy(raw)
    row = {"weights": "table1_contrastive/+ dim.", "data": "cifar10"}
    own = {"rows": {"ours": row}, "protocols": {"svm": {"kind": "svm"}}}
    changed["presets"]["tiny"] |= {"seeds": [1, 2], "evaluations": {"mine": own | evaluation}}
    return changed


def test_a_row_of_an_experiment_has_weights_of_its_own_for_each_seed(raw):
    plan = catalog.plans(with_own(raw))["results/tiny"]
    [row] = plan.evaluations.rows["mine"]
    [run] = [row.run for row in plan.rows["table1_contrastive"] if row.label == "+ dim."]
    names, svm = [f"{run_id(run)}-s{seed}" for seed in (1, 2)], short_hash('{"kind":"svm"}')
    assert [encoding.weights for encoding in row.encodings.values()] == names
    assert plan.evaluations.scores("mine") == [
        f"results/tiny/weights/{name}/{encoding_id(encoding)}/s{seed}/svm-{svm}.csv"
        for name, (seed, encoding) in zip(names, row.encodings.items())
    ]
    for seed, encoding in row.encodings.items():
        asked = encoding.weights, encoding_id(encoding)
        folder = f"results/tiny/runs/{run_id(run)}/s{seed}"
        assert plan.evaluations.pretrained(*asked) == [f"{folder}/encoder.safetensors"]
        assert json.loads(plan.evaluations.place(*asked))["run"] == folder
        assert "runs/" not in plan.evaluations.encoding(*asked), "where it lies is not what it is"


def test_released_weights_wait_for_no_run(asked):
    assert all(asked.pretrained(*name) == [] for name in asked.encodings)


@pytest.mark.parametrize(
    "weights, nearest",
    [
        ("table1_contrastive/+ dimm.", "did you mean 'table1_contrastive/+ dim.'?"),
        ("dissl_resnet50_dNone_e100_m3", "did you mean 'dissl_resnet50_dNone_e100_m2'?"),
    ],
)
def test_unknown_weights_are_refused_with_the_nearest_name(raw, weights, nearest):
    changed = with_own(raw, rows={"ours": {"weights": weights, "data": "cifar10"}})
    with pytest.raises(UserError, match=re.escape("evaluations.mine: row 'ours': unknown weights")) as error:
        catalog.plans(changed)
    assert nearest in str(error.value)
