"""The plan: what the paper asks for, resolved by three links, shared where it is the same."""

import copy
import json
from pathlib import Path

import pytest
from project import PROJECT
from rows import row_of

from issl.config import plan as catalog
from issl.config.presets import merge
from issl.config.yaml import read_yaml
from issl.errors import UserError
from issl.spec.probe import grid_id
from issl.spec.run import run_id


def grids(planned):
    """The ids of a row's probes."""
    return [grid_id(grid) for grid in planned.probes.values()]


def test_the_paper_has_20_pretrainings_and_two_of_our_own(released):
    assert {name: len(rows) for name, rows in released.rows.items() if name in SHOWN} == {
        "table1_contrastive": 5,
        "table1_distillation": 6,  # with DINO's official recipe
        "table2_mlp": 2,
        "fig7a": 3,
        "fig7b": 23,  # every run once, one of them with two families of probes
        "fig7c": 8,
    }
    assert len(released.runs) == 22
    assert sum(run.optim.epochs for run in released.runs.values()) == 13_700 + 2 * 300


def test_the_shared_run_is_the_one_the_released_scripts_repeat(released):
    users = {run: set(released.experiments_of(run)) for run in released.runs}
    assert {run: found for run, found in users.items() if len(found) > 1} == {
        run_id(row_of(released, "table1_contrastive", "+ epochs").run): {"table1_contrastive", "fig7c"},
        run_id(row_of(released, "table1_distillation", "DISSL").run): {"table1_distillation", "table2_mlp"},
    }
    assert (
        row_of(released, "table1_contrastive", "+ epochs").run
        == row_of(released, "fig7c", "method cissl, dim 2048").run
    )


ON_REQUEST = ("table_imagenet", "table_transfer", "issue2_cifar10")
SHOWN = ("table1_contrastive", "table1_distillation", "table2_mlp", "fig7a", "fig7b", "fig7c")  # by `all`


# Every run of the released scripts: method, dim, head, epochs, batch, strength, blur, classes, peak learning rate.
EXPECTED = {
    ("table1_contrastive", "SimCLR"): ("simclr", 512, "none", 300, 512, 1, False, None, 4e-3),
    ("table1_contrastive", "CISSL"): ("cissl", 512, "none", 300, 512, 1, False, None, 4e-3),
    ("table1_contrastive", "+ dim."): ("cissl", 2048, "expand", 300, 512, 1, False, None, 4e-3),
    ("table1_contrastive", "+ epochs"): ("cissl", 2048, "expand", 1000, 512, 1, False, None, 4e-3),
    ("table1_contrastive", "+ aug."): ("cissl", 2048, "expand", 1000, 512, 2, True, None, 4e-3),
    ("table1_distillation", "DINO"): ("dino", 512, "none", 300, 256, 1, False, 1000, 2e-3),
    ("table1_distillation", "DINO (official recipe)"): ("dino", 512, "none", 300, 256, 1, False, 1000, 2e-3),
    ("table2_mlp", "DISSL"): ("dissl", 512, "none", 300, 256, 1, False, 16384, 2e-3),
    ("table2_mlp", "DISSL MLP"): ("dissl", 512, "none", 300, 512, 1, False, 16384, 4e-3),
    ("table1_distillation", "DISSL"): ("dissl", 512, "none", 300, 256, 1, False, 16384, 2e-3),
    ("table1_distillation", "+ dim."): ("dissl", 2048, "expand", 300, 256, 1, False, 16384, 2e-3),
    ("table1_distillation", "+ epochs"): ("dissl", 2048, "expand", 1000, 256, 1, False, 16384, 2e-3),
    ("table1_distillation", "+ aug."): ("dissl", 2048, "expand", 1000, 256, 2, True, 16384, 2e-3),
    ("fig7a", "strength 0.25, classes 24000"): ("dissl", 512, "none", 300, 512, 0.25, False, 24000, 4e-3),
    ("fig7a", "strength 0.5, classes 20000"): ("dissl", 512, "none", 300, 512, 0.5, False, 20000, 4e-3),
    ("fig7a", "strength 1.0, classes 16384"): ("dissl", 512, "none", 300, 512, 1, False, 16384, 4e-3),
    **{
        ("fig7c", f"method {method}, dim {dim}"): ("cissl", dim, "expand", 1000, 512, 1, False, None, 4e-3)
        for method in ("cissl", "cissl_mlp")
        for dim in (128, 512, 2048, 8192)
    },
}


@pytest.mark.parametrize("place", EXPECTED, ids=" / ".join)
def test_every_run_has_the_published_settings(paper, place):
    run = row_of(paper, *place).run
    assert EXPECTED[place] == (
        run.objective.name,
        run.encoder.dim,
        run.encoder.head,
        run.optim.epochs,
        run.optim.batch_size,
        run.augment.strength,
        run.augment.blur,
        getattr(run.objective, "classes", None),
        pytest.approx(run.optim.lr * run.optim.batch_size / 256),
    )
    assert run.encoder.arch == "resnet18"
    assert run.data.kind == "tinyimagenet"


def test_every_row_of_the_paper_is_planned(released):
    assert tuple(released.rows) == (*SHOWN, *ON_REQUEST)
    own = {name: rows for name, rows in released.rows.items() if name != "fig7b" and name not in ON_REQUEST}
    assert {(name, row.label) for name, rows in own.items() for row in rows} == set(EXPECTED)


def test_figure_7b_shows_every_run_once_for_each_of_its_grids(paper):
    everywhere = {(run_id(r.run), grid) for name in SHOWN for r in paper.rows[name] for grid in grids(r)}
    listed = [(run_id(r.run), *grids(r)) for r in paper.rows["fig7b"]]
    assert len(listed) == len(set(listed)) and set(listed) == everywhere
    assert paper.rows["fig7b"][0].label == "table1_contrastive: SimCLR"


def test_probes_equal_those_of_the_released_scripts(paper):
    for experiment in ("table1_contrastive", "table1_distillation", "fig7c"):
        for planned in paper.rows[experiment]:
            kind = "mlp" if "mlp" in planned.method else "linear"
            assert list(planned.probes) == [kind]
            assert [(p.kind, p.weight_decay, p.fraction, p.epochs) for p in planned.probes[kind].probes] == [
                (kind, decay, 1.0, 100) for decay in (1e-4, 1e-5, 1e-6)
            ]
    assert [(p.weight_decay, p.fraction, p.epochs) for p in paper.rows["fig7a"][0].probes["linear"].probes] == [
        (1e-6, 1.0, 100),
        (1e-6, 0.1, 100),
        (1e-6, 0.01, 100),
        (1e-6, 0.002, 1000),
        (1e-5, 1.0, 100),
    ]


def test_a_row_resolves_as_defaults_method_patches_and_own_keys(raw):
    changed = copy.deepcopy(raw)
    changed["defaults"]["optim"]["clip_value"] = 1
    changed["methods"]["simclr"]["optim"] = {"clip_value": 2, "lr": 1}
    changed["patches"]["dim"]["optim"] = {"lr": 2, "online_lr": 2}
    changed["experiments"]["table1_contrastive"]["rows"]["SimCLR"] = {
        "method": "simclr",
        "with": ["dim"],
        "optim": {"online_lr": 3},
    }
    run = row_of(catalog.plans(changed)["results"], "table1_contrastive", "SimCLR").run
    assert (run.optim.clip_value, run.optim.lr, run.optim.online_lr, run.encoder.dim) == (2, 2, 3, 2048)


def test_presets_have_their_own_folders_and_the_same_experiments(raw):
    found = catalog.plans(raw)
    assert list(found) == ["results", "results/imagenet", "results/mini", "results/small", "results/tiny"]
    names = [list(plan.rows) for plan in found.values()]
    assert names[3] == list(SHOWN) and names[2] == names[4] == [*SHOWN, "baselines", "baselines_rank_me"]
    assert names[0][: len(SHOWN) + len(ON_REQUEST)] == [*SHOWN, *ON_REQUEST] and names[1] == [
        "table_imagenet",
        "imagenet_dissl",
        "imagenet_contrastive",
    ]
    assert {type(run.data).__name__ for run in found["results/tiny"].runs.values()} == {"Synthetic"}
    assert all(run.data.train_per_class == 125 for run in found["results/small"].runs.values())


def test_a_caption_names_the_data_that_are_scored(raw):
    shown = {
        root: plan.caption("table1_contrastive")
        for root, plan in catalog.plans(raw).items()
        if "table1_contrastive" in plan.rows
    }
    assert shown["results"] == "Contrastive ISSL, linear probe. Data: tinyimagenet."
    assert shown["results/tiny"].startswith(
        "Contrastive ISSL, linear probe. Data: synthetic. Preset tiny: not comparable"
    )
    several = catalog.plans(raw)["results"].caption("table_transfer")
    assert "Data:" not in several and several.startswith("Transfer of ")


def test_a_preset_can_have_only_the_experiments_that_it_names(raw):
    mine = {"rows": {"a": {"method": "simclr"}}, "probes": [{}], "table": {"caption": ""}}
    own = {"experiments": {"fig7c": {}, "table_transfer": {}, "mine": mine}}
    every, named = (
        catalog.plans(raw | {"presets": {"own": preset}})["results/own"]
        for preset in (own, {**own, "inherit": "named"})
    )
    assert list(every.rows) == [*SHOWN, "table_transfer", "mine"]
    assert list(named.rows) == ["fig7c", "table_transfer", "mine"] and len(named.runs) == 8 + 1


def test_rows_of_a_grid_are_called_by_what_tells_them_apart(raw):
    own = {"base": {"method": "dissl"}, "probes": [{}], "table": {"caption": ""}}
    ways = {"one": {"augment.strength": [0.5, 1.0]}, "two": {"augment.strength": [0.5], "encoder.dim": [512]}}
    experiments = raw["experiments"] | {name: own | {"grid": grid} for name, grid in ways.items()}
    plan = catalog.plans(raw | {"presets": {}, "experiments": experiments})["results"]
    assert [[row.label for row in plan.rows[name]] for name in ways] == [["0.5", "1.0"], ["strength 0.5, dim 512"]]
    claimed = merge(
        raw,
        {
            "presets": None,
            "experiments": {**experiments, "one": {**experiments["one"], "claims": {"x": {"better": 1, "than": 0.5}}}},
        },
    )
    assert catalog.plans(claimed)["results"].rows == plan.rows, "a number is a name like another"


# Section of the released configurations: dimension, head, epochs, views (number, size, areas), beta's warm-up, teacher.
M2 = ((2, 224, 0.08, 1.0),)
M6 = ((2, 160, 0.14, 1.0), (4, 96, 0.05, 0.14))
M8 = ((2, 224, 0.14, 1.0), (6, 96, 0.05, 0.14))
IMAGENET = {
    "dissl_resnet50_dNone_e100_m2": (2048, "none", 100, M2, 0, "residual"),
    "dissl_resnet50_d8192_e100_m2": (8192, "expand", 100, M2, 0, "reduced"),
    "dissl_resnet50_d8192_e100_m6": (8192, "expand", 100, M6, 0, "reduced"),
    "dissl_resnet50_dNone_e400_m2": (2048, "none", 400, M2, 0, "residual"),
    "dissl_resnet50_dNone_e400_m6": (2048, "none", 400, M6, 0, "residual"),
    "dissl_resnet50_d8192_e400_m6": (8192, "expand", 400, M6, 0, "reduced"),
    "dissl_resnet50_d8192_e800_m8": (8192, "expand", 800, M8, 1000, "reduced"),
}


def test_only_the_preset_imagenet_trains_on_imagenet_with_the_released_configurations(raw, paper):
    plan = catalog.plans(raw)["results/imagenet"]
    alone = {name: rows for name, rows in plan.rows.items() if not any(row.probes for row in rows)}
    assert {name: len(rows) for name, rows in alone.items()} == {"imagenet_dissl": 7, "imagenet_contrastive": 3}
    assert {run_id(row.run) for rows in alone.values() for row in rows} == set(plan.runs)
    assert "imagenet" not in {run.data.kind for run in paper.runs.values()}
    published = paper.config.experiments["table_imagenet"].published.values
    assert [row.label for row in alone["imagenet_dissl"]] == list(published)
    for row in alone["imagenet_dissl"]:
        run, views = row.run, row.run.augment.views
        assert IMAGENET[row.label] == (
            *(run.encoder.dim, run.encoder.head, run.optim.epochs),
            tuple((v.number, v.size, v.min_area, v.max_area) for v in views),
            *(run.objective.invariance_warmup_steps, run.objective.teacher),
        )
    for rows in alone.values():
        for row in rows:
            run = row.run
            assert (run.encoder.arch, run.encoder.init, run.data.image_size) == ("resnet50", "torch", 224)
            augment = run.augment
            assert (augment.jitter, augment.hue, augment.gray, augment.blur, augment.blur_kernel) == (
                *(0.8, 0.2, 0.2, True, "pillow"),
            )
            assert (augment.strength, augment.flip_p, augment.jitter_p, augment.blur_p) == (1, 0.5, 0.8, 0.5)
            optim = run.optim
            batch_size = 3072 if run.objective.name == "cissl" else 2560
            assert (optim.optimizer, optim.momentum, optim.trust, optim.weight_decay) == ("lars", 0.9, 0.001, 1e-6)
            assert (optim.batch_size, optim.lr, optim.warmup_lr, optim.warmup_epochs) == (batch_size, 0.3, 0.001, 10)
            assert (optim.cosine, optim.clip_value, optim.drop_last) == ("whole_run", 0, True)


def test_a_pretraining_only_experiment_has_records_and_no_comparison(raw):
    plan = catalog.plans(raw)["results/imagenet"]
    *records, curves = plan.targets()
    assert curves == "results/imagenet/curves" and len(records) == len(plan.runs) == 10
    assert all(record.endswith("/s1/run.json") for record in records)
    assert plan.trained() == [record.replace("run.json", "history.csv") for record in records]
    first, *_ = plan.rows["imagenet_dissl"]
    data, first = first.run.data, run_id(first.run)
    assert plan.experiments_of(first) == ["table_imagenet", "imagenet_dissl"]
    last = run_id(plan.rows["imagenet_contrastive"][0].run)
    assert plan.experiments_of(last) == ["imagenet_contrastive"]
    assert f"results/imagenet/runs/{first}/s1/run.json" in (PROJECT / "docs/imagenet.md").read_text()
    assert plan.place(data) == '{"path": "data/imagenet"}'
    assert {f"runs/{first}/s1/{name}" for name in ("run.json", "checkpoints/")} < plan.made()


def test_a_pretraining_only_experiment_has_no_figure_or_table(raw):
    changed = copy.deepcopy(raw)
    changed["presets"]["imagenet"]["experiments"]["imagenet_dissl"]["claims"] = {"x": {"better": "a", "than": "b"}}
    with pytest.raises(UserError, match="imagenet_dissl: has no probes and only pretrains, so it cannot have 'cl"):
        catalog.plans(changed)


def test_scores_follow_the_order_of_the_rows(paper):
    rows, scores = paper.rows_for("fig7c"), paper.scores("fig7c")
    assert len(rows) == len(scores) == 8
    for row, score in zip(rows, scores):
        assert score == (
            f"results/runs/{row['encoder']}/s{row['seed']}/probes/{row['encoding']}/{row['grid']}-s{row['seed']}.csv"
        )


def test_targets_are_every_figure_and_table(paper):
    tables = ("table1_contrastive", "table1_distillation", "table2_mlp")
    assert sorted(paper.targets()) == sorted(
        [f"results/{name}.{ending}" for name in ("fig7a", "fig7b", "fig7c") for ending in ("pdf", "png", "csv")]
        + [f"results/{name}.{ending}" for name in tables for ending in ("md", "tex", "html", "csv")]
        + [f"results/reproduction.{ending}" for ending in ("md", "json", "html")]
        + ["results/curves"]
    )


def test_the_official_dino_recipe_differs_in_four_settings(paper):
    baseline, official = (row_of(paper, "table1_distillation", name).run for name in ("DINO", "DINO (official recipe)"))
    assert official == baseline.model_copy(
        update={
            "objective": baseline.objective.model_copy(
                update={
                    "teacher_projector": "copy",
                    "ema_schedule": "half_period",
                    "normalize": "after_bottleneck",
                    "evaluate": "teacher",
                }
            )
        }
    )


def test_a_table_of_measures_needs_the_record_of_every_rows_features(paper):
    """Also of rows that only probes on images score; other tables need none."""
    rows = paper.rows["baselines"]
    expected = [f"results/{row.features(1)}.json" for row in rows for _ in row.probes]
    assert paper.measured("baselines") == expected and len(expected) == len(paper.rows_for("baselines")) == 4 * 15
    assert set(paper.measured("baselines_rank_me")) == set(expected)  # a figure against a measure does too
    others = [name for name in paper.rows if name not in ("baselines", "baselines_rank_me")]
    assert not any(paper.measured(name) for name in others)


def test_existing_only_shows_no_row_without_the_measures_of_its_table(raw, tmp_path, monkeypatch):
    plan = catalog.plans(raw)["results"]
    scored = next(each for each in plan.scored("baselines") if plan.grids[grid_id_of(each)].kind == "fine_tuned")
    monkeypatch.chdir(tmp_path)
    for path in catalog.needed(scored):
        Path("results", path).parent.mkdir(parents=True, exist_ok=True)
        Path("results", path).touch()
    plan = catalog.plans(raw | {"existing_only": True})["results"]
    assert plan.scores("baselines") == plan.measured("baselines") == []
    record = Path("results", f"{scored.row.features(scored.seed)}.json")
    record.parent.mkdir(parents=True)
    record.touch()
    assert plan.scores("baselines") == [f"results/{scored.path}"] and plan.measured("baselines") == [str(record)]


def grid_id_of(scored):
    return grid_id(scored.row.probes[scored.probe])


def test_existing_only_uses_results_on_disk(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = catalog.plans(raw | {"existing_only": True})["results"]
    scored = catalog.plans(raw)["results"].scored("fig7c")[0]
    first = f"results/{scored.path}"
    assert plan.compared == [] and plan.rows_for("fig7c") == [] and plan.trained() == []
    for path in (Path("results", path) for path in catalog.needed(scored)):
        assert catalog.plans(raw | {"existing_only": True})["results"].scores("fig7c") == [], (
            "trains nothing for a record"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    plan = catalog.plans(raw | {"existing_only": True})["results"]
    assert plan.scores("fig7c") == [first]
    assert plan.compared == ["fig7b", "fig7c"]
    assert plan.records("pretrain") == [str(Path(first).parents[2] / "run.json")]


def test_leftovers_are_the_files_that_no_rule_makes(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = catalog.plans(raw)["results"]
    ours, released = plan.rows["fig7c"][0], plan.rows["issue2_cifar10"][0]
    stray = [
        *("results/runs/cissl-z512-e300-00000000/s1/run.json", "results/old.pdf"),
        f"results/{ours.encoder(1)}/features/tinyimagenet-00000000.json",
        f"results/{released.encoder(0)}/probes/cifar10-00000000/svm-00000000-s0.csv",
    ]
    own = [*plan.targets(), *plan.records("featurize"), "results/logs/pretrain/x.log"]
    for name in ("fig7c", *ON_REQUEST):
        own += [*plan.files(name), *plan.scores(name), *(f"results/{each.record}" for each in plan.scored(name))]
    features = [f"results/{row.features(row.seeds[0])}" for row in (ours, released)]
    own += [f"{path}{ending}" for path in features for ending in (".json", "/0.npy", ".part/0.npy")]
    own = [path if path != "results/curves" else "results/curves/simclr-s1.svg" for path in own]
    others = catalog.plans(raw)["results/tiny"].targets()
    for path in map(Path, [*stray, *own, *others]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert plan.leftovers() == [
        "old.pdf",
        f"{ours.encoder(1)}/features/tinyimagenet-00000000.json",
        "runs/cissl-z512-e300-00000000/",
        f"{released.encoder(0)}/probes/cifar10-00000000/",
    ]


@pytest.mark.parametrize("path", sorted((PROJECT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_config_resolves(raw, path):
    example = read_yaml(path)
    found = catalog.plans(merge(raw, example))
    assert {f"results/{preset}" for preset in example["presets"]} <= found.keys()


def test_the_path_of_the_data_is_not_part_of_its_identity(paper):
    assert len(paper.data) == 1 + 1 + 9  # pretrained on, ImageNet, and nine to transfer to
    for data in paper.data.values():
        places = set(json.loads(paper.place(data)))
        assert places & {"archive", "path"} and not places & set(json.loads(data.canonical()))
    (pretrained,) = {run.data for run in paper.runs.values()}
    assert '"archive": "data/tiny-imagenet-200.zip"' in paper.place(pretrained)


def test_published_numbers_are_shown_only_beside_the_settings_of_the_paper(raw, paper):
    assert '"+ aug."' in paper.published("table1_distillation")
    assert catalog.plans(raw)["results/tiny"].published("table1_distillation") == "null"
    unpublished = copy.deepcopy(raw) | {"presets": {}}
    del unpublished["experiments"]["table1_distillation"]["published"]
    assert catalog.plans(unpublished)["results"].published("table1_distillation") == "null"


def test_every_example_can_be_planned(raw):
    examples = (PROJECT / "examples").glob("*.yaml")
    plans = {path.stem: catalog.plans(merge(raw, read_yaml(path)))[f"results/{path.stem}"] for path in examples}
    assert {name: len(plan.runs) for name, plan in plans.items()} == {"small_cpu": 11, "mini_imagenet": 3}


def test_a_figure_that_would_show_nothing_is_refused(raw):
    lines = {"kind": "lines", "x": "dim", "hue": "method", "xlabel": "dim", "weight_decay": 1e-3}
    scatter = {"kind": "scatter", "x": "log_loss", "hue": "method", "xlabel": "loss"}
    for figure, probes in (
        (lines, [{"weight_decay": 1e-4}]),
        (scatter, [{"kind": "mlp"}]),
        (scatter, [{"fraction": 0.1}]),
    ):
        one = {"rows": {"A": {"method": "cissl"}}, "probes": probes, "figure": figure}
        with pytest.raises(UserError, match=r"config: experiments\.one: no probe has what this figure shows"):
            catalog.plans(raw | {"presets": {}, "experiments": {"one": one}})


def test_a_figure_of_several_metrics_is_refused(raw):
    figure = {"kind": "lines", "x": "dim", "hue": "method", "xlabel": "dim"}
    rows = {"A": {"method": "cissl", "metrics": ["top-5"]}, "B": {"method": "cissl", "with": ["dim"]}}
    one = {"rows": rows, "probes": [{}], "figure": figure}
    with pytest.raises(UserError, match="a figure shows one metric, not top-1 and top-5"):
        catalog.plans(raw | {"presets": {}, "experiments": {"one": one}})


def test_two_data_sets_of_one_identity_in_two_places_are_refused(raw):
    """One would silently be used for the other."""
    two = {name: {"kind": "imagenet", "path": path} for name, path in (("one", "a"), ("two", "b"))}
    with pytest.raises(UserError, match="data: 'imagenet' and 'one' are one data set to the workflow, but"):
        catalog.plans(raw | {"presets": {}, "data": raw["data"] | two})
    same = {"again": dict(raw["data"]["imagenet"]), "other": {"kind": "imagenet", "path": "b", "name": "other"}}
    assert catalog.plans(raw | {"presets": {}, "data": raw["data"] | same})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"probes": [{"weight_decay": 1e-4}, {"fraction": []}]}, "probes.1.fraction: an empty list gives no probes"),
        (
            {"rows": None, "grid": {"encoder.dim": []}, "base": {"method": "cissl"}},
            "encoder.dim: an empty list",
        ),
        ({"probes": [{"kind": {"a": "b"}}]}, "probes.0: unknown kind"),
    ],
)
def test_lists_that_make_probes_or_rows_vanish_are_refused(raw, change, says):
    one = {"rows": {"A": {"method": "cissl"}}, "probes": [{}], "table": {"caption": ""}} | change
    with pytest.raises(UserError) as caught:
        catalog.plans(raw | {"presets": {}, "experiments": {"one": {k: v for k, v in one.items() if v is not None}}})
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["prepare", "all", "runs", "data"])
def test_a_preset_with_a_name_of_the_workflows_own_is_refused(raw, name):
    with pytest.raises(UserError, match=rf"config: presets\.{name}: the workflow uses this name itself"):
        catalog.plans(raw | {"presets": {name: {}}})


def test_experiments_that_are_no_mapping_are_one_line(raw):
    with pytest.raises(UserError, match=r"tiny\): experiments: must be a mapping"):
        catalog.plans(raw | {"presets": {"tiny": {"experiments": 3}}})


UNTRAINED = {"label": "untrained", "objective": {"name": "untrained"}}


def with_untrained(raw, preset, experiment, **rows):
    """The plan of a preset with untrained rows."""
    rows = {label: {"method": "untrained"} | row for label, row in rows.items()}
    change = {"methods": {"untrained": UNTRAINED}, "experiments": {experiment: {"rows": rows}}}
    return catalog.plans(merge(raw, {"presets": {preset: change}}))[f"results/{preset}"]


def test_untrained_rows_of_one_encoder_share_a_run_whatever_they_would_train_with(raw):
    longer = {"with": ["epochs", "aug"], "optim": {"batch_size": 32}}
    plan = with_untrained(raw, "small", "table1_contrastive", a={}, b=longer, c={"with": ["dim"]})
    a, b, c = (row_of(plan, "table1_contrastive", label).run for label in "abc")
    assert run_id(a) == run_id(b) != run_id(c)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"optim": {"epoks": 5}}, "optim.epoks: unknown key, did you mean 'epochs'"),
        ({"augment": {"strenth": 2}}, "augment.strenth: unknown key, did you mean 'strength'"),
    ],
)
def test_a_mistake_in_the_training_of_an_untrained_row_is_refused(raw, row, says):
    with pytest.raises(UserError, match=says):
        with_untrained(raw, "small", "table1_contrastive", a=row)


def test_an_untrained_encoder_of_photographs_has_the_views_of_its_row(raw):
    plan = with_untrained(raw, "imagenet", "imagenet_dissl", two={}, six={"with": ["m6"]})
    views = [len(row_of(plan, "imagenet_dissl", label).run.augment.views) for label in ("two", "six")]
    assert views == [1, 2]


@pytest.mark.parametrize(("classes", "refused"), [(5, True), (6, False)])
def test_a_metric_that_any_classifier_meets_is_refused(raw, classes, refused):
    """One of five guesses among five classes is always right."""
    few = {"few": {"kind": "synthetic", "classes": classes, "train_per_class": 500}}
    row = {"method": "cissl", "data": "few", "metrics": ["top-5"]}
    changed = raw | {"presets": {}, "data": raw["data"] | few, "experiments": {"one": {"rows": {"A": row}}}}
    changed["experiments"]["one"] |= {"probes": [{}], "table": {"caption": "x"}}
    if not refused:
        catalog.plans(changed)
        return
    with pytest.raises(UserError, match="one: row 'A': metrics: top-5 is 100 % of any classifier, for the data have 5"):
        catalog.plans(changed)
