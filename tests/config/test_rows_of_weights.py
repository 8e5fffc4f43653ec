"""Rows that take weights as they are: what config.yaml asks of released models, and of runs on another data set."""

import copy
import json
import re
from pathlib import Path

import pytest

from issl.config import plan as catalog
from issl.errors import UserError
from issl.spec.encoding import encoding_id
from issl.spec.probe import SVM, Augmented, Cached, Logistic, grid_id
from issl.spec.released import MODELS
from issl.spec.run import run_id

TABLES = ("table_imagenet", "table_transfer", "issue2_cifar10")


# --- released models -------------------------------------------------------------------------------------------------


def test_the_table_of_imagenet_has_every_released_model_and_both_protocols(paper):
    rows = paper.rows["table_imagenet"]
    assert [row.label for row in rows] == [row.released for row in rows] == list(MODELS)[:7]
    for row in rows:
        assert (row.encoding.resize, row.encoding.crop, row.encoding.data.kind) == (256, 224, "imagenet")
        assert (row.encoding.layer, row.encoding.batch_norm, row.encoding.batch_size) == ("output", "eval", 128)
        assert row.metrics == ("top-1", "top-5") and row.seeds == (0,) and row.run is None
        assert row.probes == rows[0].probes
    cached, augmented = (grid.probes for grid in rows[0].probes.values())
    assert augmented == (Augmented(kind="augmented"),) and {type(probe) for probe in cached} == {Cached}
    # Optimiser, rate for 256 images, weight decay, batch norm, batch, epochs: the grid of August 2022.
    sgd = [(0.1, decay, False, 2048, 100) for decay in (1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4)]
    sgd += [(rate, 1e-6, False, 2048, 100) for rate in (0.03, 0.3, 1.0)]
    sgd += [(0.1, 1e-6, False, 2048, 300), (0.1, 1e-6, True, 2048, 100), (0.1, 1e-5, True, 2048, 100)]
    lars = [(rate, decay, False, 2048, 100) for rate, decay in ((0.1, 1e-6), (0.1, 1e-5), (0.01, 0))]
    expected = {("sgd", *each) for each in [*sgd, (0.3, 1e-6, False, 256, 100)]} | {("lars", *each) for each in lars}
    found = [(p.optimizer, p.lr, p.weight_decay, p.batch_norm, p.batch_size, p.epochs) for p in cached]
    assert set(found) == expected and len(found) == len(expected) == 16


def test_published_numbers_are_those_of_the_readme_and_its_history(paper):
    points = paper.config.experiments["table_imagenet"].published.points
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


def test_transfer_has_its_nine_data_sets_with_crops_metrics_and_both_classifiers(paper):
    rows = paper.rows["table_transfer"]
    assert {row.label: (row.encoding.data.name, row.encoding.resize, *row.metrics) for row in rows} == {
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
    assert {row.encoding.crop for row in rows} == {224} and {row.seeds for row in rows} == {(0,)}
    for row in rows:
        probes = {name: grid.probes for name, grid in row.probes.items()}
        assert probes == {"logistic regression": (Logistic(kind="logistic"),), "linear SVM": (SVM(kind="svm"),)}


def test_issue_2_has_eight_combinations_and_shares_those_of_transfer(paper):
    rows = {row.label: row.encoding for row in paper.rows["issue2_cifar10"]}
    ways = [(mode, size, layer) for mode in ("eval", "train") for size in (224, 256) for layer in ("trunk", "output")]
    assert {label: (e.batch_norm, e.resize, e.layer) for label, e in rows.items()} == {
        f"batch_norm {mode}, resize {size}, layer {layer}": (mode, size, layer) for mode, size, layer in ways
    }
    assert {(e.crop, e.data.name) for e in rows.values()} == {(224, "cifar10")}
    [cifar10] = [row.encoding for row in paper.rows["table_transfer"] if row.label == "CIFAR-10"]
    assert rows["batch_norm eval, resize 224, layer output"] == cifar10
    released = {(row.name, encoding_id(row.encoding)) for name in TABLES for row in paper.rows[name]}
    assert len(released) == 7 + 9 + 8 - 1
    assert len({row.features(0) for name in TABLES for row in paper.rows[name]}) == len(released)


def test_other_presets_have_only_the_experiments_on_request_that_they_name(raw):
    plans = catalog.plans(raw)
    own = {root: [name for name in plan.rows if name in TABLES] for root, plan in plans.items() if root != "results"}
    assert own.pop("results/imagenet") == ["table_imagenet"] and not any(own.values())
    changed = copy.deepcopy(raw)
    changed["presets"]["tiny"]["experiments"]["table_transfer"] = {"seeds": [0, 1]}
    plan = catalog.plans(changed)["results/tiny"]
    assert [name for name in plan.rows if name in TABLES] == ["table_transfer"]
    assert len(plan.scores("table_transfer")) == 9 * 2 * 2


def test_what_is_on_request_changes_no_target_of_all(raw):
    without, alone = copy.deepcopy(raw) | {"presets": {}}, raw | {"presets": {}}
    for name in TABLES:
        del without["experiments"][name]
    without, with_them = (catalog.plans(each)["results"] for each in (without, alone))
    assert with_them.targets() == without.targets()
    assert with_them.runs == without.runs and without.data.items() < with_them.data.items()
    assert with_them.rows["fig7b"] == without.rows["fig7b"]
    assert with_them.compared == without.compared and with_them.records("prepare") == without.records("prepare")
    assert with_them.files("table_imagenet") == [
        f"results/table_imagenet.{end}" for end in ("md", "tex", "html", "csv")
    ]


def test_what_all_makes_can_be_made_on_request_instead(raw):
    changed = copy.deepcopy(raw)
    changed["experiments"]["fig7a"]["on_request"] = True
    plan, before = catalog.plans(changed)["results"], catalog.plans(raw)["results"]
    assert set(before.targets()) - set(plan.targets()) == {f"results/fig7a.{end}" for end in ("pdf", "png", "csv")}
    assert plan.scores("fig7a") == before.scores("fig7a")
    strong = run_id(plan.rows["fig7a"][0].run)
    assert strong not in {run_id(row.run) for row in plan.rows["fig7b"]}
    assert strong in {run_id(row.run) for row in before.rows["fig7b"]}


def test_the_comparison_reads_what_is_on_request_once_it_has_all_scores(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = raw | {"presets": {}}
    plan = catalog.plans(raw)["results"]
    assert not set(TABLES) & set(plan.compared)
    scored = plan.scored("table_imagenet")
    for path in (Path("results", path) for each in scored for path in catalog.needed(each)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("results", scored[-1].path).unlink()
    assert "table_imagenet" not in catalog.plans(raw)["results"].compared, "one is missing"
    existing = catalog.plans(raw | {"existing_only": True})["results"]
    assert existing.compared == ["table_imagenet"] and len(existing.rows_for("table_imagenet")) == 13
    assert len(existing.records("featurize")) == 7 and len(existing.records("probe")) == 13
    assert existing.records("pretrain") == existing.trained() == []
    before = {stage: set(plan.records(stage)) for stage in ("featurize", "probe")}
    Path("results", scored[-1].path).touch()
    plan = catalog.plans(raw)["results"]
    assert plan.compared[-1] == "table_imagenet"
    assert len(set(plan.records("featurize")) - before["featurize"]) == 7, "the augmented protocol reads images"
    assert len(set(plan.records("probe")) - before["probe"]) == 14
    assert any(path.startswith("results/data/imagenet-") for path in plan.records("prepare"))


def test_released_weights_wait_for_no_run(paper):
    for row in (row for name in TABLES for row in paper.rows[name]):
        encoder = row.encoder(0)
        assert encoder == f"weights/{row.released}" and paper.encoder(encoder) == row.released
        assert paper.weights(encoder) == []


def test_probes_wait_for_features_or_for_the_weights_where_they_read_images(raw):
    plan = catalog.plans(raw)["results/imagenet"]
    row = plan.rows["table_imagenet"][0]
    encoder, encoding = row.encoder(1), encoding_id(row.encoding)
    cached, augmented = (plan.read_by(encoder, encoding, grid_id(grid)) for grid in row.probes.values())
    assert cached == [f"results/imagenet/{encoder}/features/{encoding}"] == [f"results/imagenet/{row.features(1)}"]
    assert augmented == plan.weights(encoder) == [f"results/imagenet/{encoder}/encoder.safetensors"]


def test_paths_are_not_part_of_an_encoding(paper):
    for name, encoding in paper.encodings.items():
        places = json.loads(paper.place(encoding.data))
        assert set(places) & {"path", "archive"}
        assert not set(places) & set(json.loads(encoding.canonical())["data"])
        assert encoding_id(encoding) == name


def test_released_weights_on_the_default_data_are_part_of_figure_7b(raw):
    """And so are only the rows on this data: losses and accuracies of others are of another kind."""
    changed, model = copy.deepcopy(raw), "dissl_resnet50_dNone_e100_m2"
    changed["experiments"]["baseline"] = {
        "seeds": [5],
        "rows": {"released": {"weights": model}, "elsewhere": {"weights": model, "data": "cifar10"}},
        "probes": [{}],
        "table": {"caption": "A baseline."},
    }
    plan, before = (catalog.plans(each)["results"] for each in (changed, raw))
    (added,) = [row for row in plan.rows["fig7b"] if row not in before.rows["fig7b"]]
    assert (added.label, added.released, added.run) == ("baseline: released", model, None)
    assert (added.encoding.data.name, added.encoding.resize, added.encoding.crop) == ("tinyimagenet", 256, 224)
    (said,) = [row for row in plan.rows_for("fig7b") if row["row"] == "baseline: released"]
    assert (said["method"], said["family"], said["encoder"], said["released"]) == (model, "linear", model, True)
    assert (said["dim"], said["epochs"], said["seed"], said["batch_size"], said["strength"]) == (
        2048,
        100,
        5,
        None,
        None,
    )
    score = f"results/weights/{model}/probes/{said['encoding']}/{said['grid']}-s5.csv"
    assert score in plan.scores("fig7b") and len(plan.histories("fig7b")) == len(plan.scores("fig7b")) - 1


# --- runs of ours ----------------------------------------------------------------------------------------------------


def test_the_preset_imagenet_scores_what_it_pretrains_beside_the_published_numbers(raw):
    ours, released = (catalog.plans(raw)[root] for root in ("results/imagenet", "results"))
    rows, theirs = (plan.rows["table_imagenet"] for plan in (ours, released))
    assert [row.label for row in rows] == [row.label for row in theirs]
    for row in rows:
        assert row.seeds == (1,) and ours.runs[row.name] == row.run
        assert ours.weights(row.encoder(1)) == [f"results/imagenet/runs/{row.name}/s1/encoder.safetensors"]
        shape = MODELS[row.label].encoder
        assert (row.run.encoder.dim, row.run.encoder.head) == (shape.dim, shape.head)
        assert row.run.optim.epochs == MODELS[row.label].epochs
        assert row.probes == theirs[0].probes and row.metrics == theirs[0].metrics
        assert row.encoding == theirs[0].encoding, "photographs are seen as the released models see them"
    assert ours.published("table_imagenet") == released.published("table_imagenet")
    assert "not comparable" not in ours.caption("table_imagenet")


def with_own(raw, *rows, preset="tiny", **experiment):
    """The config whose preset *tiny* scores rows of its own on other data, with two seeds."""
    changed = copy.deepcopy(raw)
    own = {
        "rows": {row["weights"]: row for row in rows},
        "probes": [{"weight_decay": [1e-5, 1e-6]}, {"kind": "svm"}],
        "table": {"caption": "Ours.", "columns": ["probe"]},
    }
    changed["presets"]["tiny"]["seeds"] = [1, 2]
    changed["presets"]["tiny"]["experiments"]["mine"] = own | experiment
    return changed


CISSL = {"weights": "table1_contrastive/CISSL", "data": "cifar10"}


def test_a_run_can_be_scored_on_another_data_set_and_with_an_svm(raw):
    plan = catalog.plans(with_own(raw, CISSL))["results/tiny"]
    [row] = plan.rows["mine"]
    [origin] = [row for row in plan.rows["table1_contrastive"] if row.label == "CISSL"]
    assert (row.run, row.method, row.released) == (origin.run, "cissl", None)
    assert row.seeds == origin.seeds == (1, 2)
    size = origin.run.data.image_size
    assert (row.encoding.data.name, row.encoding.resize, row.encoding.crop) == ("cifar10", size, size)
    assert origin.encoding == row.encoding.model_copy(update={"data": origin.run.data})
    assert (size, row.encoding.batch_size) == (16, 512)
    assert {name: grid.kind for name, grid in row.probes.items()} == {"linear": "linear", "svm": "svm"}
    assert row.probes["svm"].probes == (SVM(kind="svm"),)
    encoding = encoding_id(row.encoding)
    assert plan.scores("mine") == [
        f"results/tiny/runs/{run_id(origin.run)}/s{seed}/probes/{encoding}/{grid_id(grid)}-s{seed}.csv"
        for grid in row.probes.values()
        for seed in (1, 2)
    ]
    for seed in (1, 2):
        folder = f"runs/{run_id(origin.run)}/s{seed}"
        assert row.encoder(seed) == origin.encoder(seed) == folder
        assert plan.weights(folder) == [f"results/tiny/{folder}/encoder.safetensors"]
        assert plan.encoder(folder) == f"results/tiny/{folder}"
        for grid in row.probes.values():
            features = f"results/tiny/{folder}/features/{encoding}"
            assert plan.read_by(folder, encoding, grid_id(grid)) == [features]
    assert {data.name for data in plan.data.values()} == {"synthetic", "cifar10"}
    assert plan.runs == catalog.plans(raw)["results/tiny"].runs, "nothing more is pretrained"


def test_what_is_scored_elsewhere_is_shown_with_the_settings_of_its_run(raw):
    plan = catalog.plans(with_own(raw, CISSL))["results/tiny"]
    of_run = {row["row"]: row for row in plan.rows_for("table1_contrastive")}["CISSL"]
    own = ("row", "data", "encoding", "probe", "grid", "n_settings", "seed")
    for said in plan.rows_for("mine"):
        assert {k: v for k, v in said.items() if k not in own} == {k: v for k, v in of_run.items() if k not in own}
        assert (said["row"], said["data"]) == ("table1_contrastive/CISSL", "cifar10")
    assert [(said["probe"], said["seed"]) for said in plan.rows_for("mine")] == [
        *(("linear", 1), ("linear", 2), ("svm", 1), ("svm", 2)),
    ]
    assert len(plan.histories("mine")) == 4


def test_other_data_do_not_enter_figure_7b(raw):
    plan, without = (catalog.plans(config)["results/tiny"] for config in (with_own(raw, CISSL), raw))
    assert {row.encoding.data.name for row in plan.rows["fig7b"]} == {"synthetic"}
    assert [row.label for row in plan.rows["fig7b"]] == [row.label for row in without.rows["fig7b"]]


def test_weights_without_data_are_scored_on_what_they_were_pretrained_on(raw):
    plan = catalog.plans(with_own(raw, {"weights": "table1_contrastive/CISSL"}))["results/tiny"]
    [row] = plan.rows["mine"]
    [origin] = [row for row in plan.rows["table1_contrastive"] if row.label == "CISSL"]
    assert row.encoding == origin.encoding


def test_released_weights_without_data_are_scored_on_the_default_data(raw):
    plan = catalog.plans(with_own(raw, {"weights": "dissl_resnet50_dNone_e100_m2"}))["results/tiny"]
    [row] = plan.rows["mine"]
    assert row.encoding.data == plan.config.data["synthetic"] and row.seeds == (1, 2)
    assert [row.encoder(seed) for seed in row.seeds] == ["weights/dissl_resnet50_dNone_e100_m2"] * 2
    assert len(set(plan.scores("mine"))) == 4, "one encoder, and probes with each seed"


def test_the_probe_of_other_peoples_rows_is_the_family_of_their_method(raw):
    own = with_own(raw, {"weights": "table2_mlp/DISSL MLP", "data": "cifar10"}, probes=[{"hidden": 16}])
    [row] = catalog.plans(own)["results/tiny"].rows["mine"]
    assert {name: [probe.hidden for probe in grid.probes] for name, grid in row.probes.items()} == {"mlp": [16]}


def test_probes_that_read_images_leave_no_record_of_features(raw):
    own = {"weights": "dissl_resnet50_dNone_e100_m2", "data": "imagenet"}
    plan = catalog.plans(with_own(raw, own, probes=[{"kind": "augmented"}]))["results/tiny"]
    probes = [path for path in plan.records("probe") if "/augmented-" in path]
    assert "mine" in plan.compared and len(probes) == 2
    assert not [path for path in plan.records("featurize") if path.startswith("results/tiny/weights/")]


@pytest.mark.parametrize(
    ("milestones", "expected"), [([4, 6], [(4, 6)]), ([[4, 6], [5]], [(4, 6), (5,)]), ([], [()]), (None, [(8, 16, 24)])]
)
def test_a_setting_that_is_a_list_itself_is_one_value(raw, milestones, expected):
    probe = {"kind": "augmented"} | ({} if milestones is None else {"milestones": milestones})
    own = {"weights": "dissl_resnet50_dNone_e100_m2", "data": "imagenet"}
    [row] = catalog.plans(with_own(raw, own, probes=[probe]))["results/tiny"].rows["mine"]
    assert [probe.milestones for probe in row.probes["augmented"].probes] == expected


def test_a_row_can_encode_images_in_its_own_way(raw):
    own = {**CISSL, "features": {"resize": 32, "layer": "trunk"}}
    [row] = catalog.plans(with_own(raw, own, base={"features": {"crop": 28, "resize": 30}}))["results/tiny"].rows[
        "mine"
    ]
    assert (row.encoding.resize, row.encoding.crop, row.encoding.layer) == (32, 28, "trunk")


@pytest.mark.parametrize(
    "weights, nearest",
    [
        ("table1_contrastive/+ dimm.", "did you mean 'table1_contrastive/+ dim.'?"),
        ("dissl_resnet50_dNone_e100_m3", "did you mean 'dissl_resnet50_dNone_e100_m2'?"),
        ("table1_contrastive", "did you mean 'table1_contrastive/CISSL'?"),
    ],
)
def test_unknown_weights_are_refused_with_the_nearest_name(raw, weights, nearest):
    where = f"config (preset tiny): experiments.mine: row '{weights}': unknown weights"
    with pytest.raises(UserError, match=re.escape(where)) as error:
        catalog.plans(with_own(raw, {"weights": weights, "data": "cifar10"}))
    assert nearest in str(error.value)


def test_weights_of_a_row_that_pretrains_nothing_are_refused(raw):
    changed = with_own(raw, CISSL, {"weights": "mine/table1_contrastive/CISSL"})
    with pytest.raises(UserError, match="row 'mine/table1_contrastive/CISSL': unknown weights"):
        catalog.plans(changed)
