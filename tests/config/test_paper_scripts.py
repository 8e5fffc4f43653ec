"""presets/paper.yaml: experiments of the paper's own scripts, beside those of the release."""

import copy
import json
from typing import NamedTuple

import pytest
from project import PROJECT
from rows import row_of

from issl.config import plan as catalog
from issl.config import resources
from issl.config.layers import combined, read_layers
from issl.errors import UserError
from issl.spec.released import MODELS
from issl.spec.run import run_id


@pytest.fixture(scope="module")
def raw():
    """config.yaml and its presets, without experiments/."""
    return combined(layer.content for layer in read_layers([PROJECT / "config.yaml"], {}) if not layer.adds)


class Cost(NamedTuple):
    rows: int
    pretrainings: int
    shared: int  # with the released experiments
    new_epochs: int


COSTS = {
    "table1_contrastive_paper": Cost(8, 8, 5, 900),
    "table1_distillation_paper": Cost(8, 8, 2, 3900),
    "table1_large_batch": Cost(10, 10, 10, 0),
    "table2_paper": Cost(5, 5, 3, 600),
    "fig7a_paper": Cost(4, 4, 0, 1200),
    "fig7a_extended": Cost(4, 4, 3, 300),
    "fig7b_paper": Cost(17, 17, 1, 6050),
    "fig7c_paper": Cost(16, 16, 4, 12_000),
}


OF_WEIGHTS = {"ssl_risk_decomposition": 11, "issue2_d2048": 4}  # rows; these pretrain nothing
ONLY_PUBLISHED = ("ssl_risk_decomposition_few_shot", "issue2_curve")


def test_each_experiment_pretrains_what_the_release_lacks(paper, released):
    assert [name for name in paper.rows if name not in released.rows] == [*COSTS, *OF_WEIGHTS]
    for name, cost in COSTS.items():
        runs = {row.name: row.run for row in paper.rows[name] if row.run}
        new = [run.optim.epochs for run_name, run in runs.items() if run_name not in released.runs]
        assert cost == Cost(len(paper.rows[name]), len(runs), len(runs) - len(new), sum(new)), name
    new = {name: run for name, run in paper.runs.items() if name not in released.runs}
    assert len(new) == 43 and sum(run.optim.epochs for run in new.values()) == 24_650  # one is in two tables


def test_all_makes_and_asks_for_the_same_as_without_them(paper, released):
    assert paper.targets() == released.targets()
    assert paper.runs.items() > released.runs.items() and paper.data == released.data
    assert paper.config.comparable
    for name, rows in released.rows.items():
        assert paper.rows[name] == rows
        for row in rows:
            ids = row.encoder(row.seeds[0]), row.encoding_id
            assert paper.group(*ids) == released.group(*ids)
            for rule in ("featurize", "probe"):
                assert resources.request(paper, rule, *ids) == resources.request(released, rule, *ids)
    for rule in ("prepare", "pretrain", "featurize", "probe"):
        assert resources.largest(paper, rule) == resources.largest(released, rule)


def test_other_presets_do_not_inherit_them(raw):
    without = {name: overlay for name, overlay in raw["presets"].items() if name != "paper"}
    for root, plan in catalog.plans(raw | {"presets": without}).items():
        if root != "results":
            found = catalog.plans(raw)[root]
            assert found.config == plan.config and found.rows == plan.rows


def test_all_are_on_request_and_can_be_named(paper):
    for name in (*COSTS, *OF_WEIGHTS):
        assert paper.config.experiments[name].on_request
        assert set(paper.files(name)) <= {f"results/{path}" for path in paper.made()}


def test_claims_of_what_was_not_requested_are_not_compared(paper):
    assert '"fig7a"' in paper.comparison() and '"fig7c_paper"' in paper.comparison()
    asked = json.loads(paper.comparison())["experiments"]
    assert not any("claims" in asked[name] for name in COSTS) and "claims" in asked["fig7a"]
    assert asked["table1_contrastive_paper"]["published"]["values"]["SimCLR"] == 44.6


# Method, heads, dim, head, epochs, batch, strength, blur, classes.
SETTINGS = {
    ("fig7a_paper", "strength 2.0, classes 12000"): ("cosine", 512, "none", 300, 512, 2, False, 12000),
    ("fig7a_paper", "strength 0.25, classes 24000"): ("cosine", 512, "none", 300, 512, 0.25, False, 24000),
    ("fig7a_extended", "strength 2.0, classes 12000"): ("released", 512, "none", 300, 512, 2, False, 12000),
    ("table1_distillation_paper", "DISSL"): ("cosine", 512, "none", 300, 256, 1, False, 16384),
    ("table1_distillation_paper", "+ dim."): ("cosine", 2048, "expand", 300, 256, 1, False, 16384),
    ("table1_distillation_paper", "+ aug."): ("cosine", 2048, "expand", 300, 256, 2, True, 16384),
    ("table1_distillation_paper", "+ epochs"): ("cosine", 2048, "expand", 1000, 256, 2, True, 16384),
    ("table1_distillation_paper", "+ dim. and epochs"): ("cosine", 2048, "expand", 1000, 256, 1, False, 16384),
    ("table1_distillation_paper", "+ epochs, C 8192"): ("cosine", 2048, "expand", 1000, 256, 2, True, 8192),
    ("table2_paper", "DISSL"): ("cosine", 512, "none", 300, 256, 1, False, 16384),
    ("table2_paper", "DISSL MLP"): ("cosine", 512, "none", 300, 512, 1, False, 16384),
}


@pytest.mark.parametrize("place", SETTINGS, ids=" / ".join)
def test_distillation_has_the_settings_of_the_papers_scripts(paper, place):
    run = row_of(paper, *place).run
    assert SETTINGS[place] == (
        *(run.objective.heads, run.encoder.dim, run.encoder.head, run.optim.epochs, run.optim.batch_size),
        *(run.augment.strength, run.augment.blur, run.objective.classes),
    )


def test_figure_7c_has_eight_dimensions_and_the_wide_projector(paper):
    for row in paper.rows["fig7c_paper"]:
        assert (row.run.encoder.head, row.run.optim.epochs, row.run.optim.batch_size) == ("expand", 1000, 512)
    linear = [row.run for row in paper.rows["fig7c_paper"] if row.method == "cissl_wide"]
    mlp = [row.run for row in paper.rows["fig7c_paper"] if row.method == "cissl_mlp"]
    for runs in (linear, mlp):
        assert [run.encoder.dim for run in runs] == [128, 256, 512, 1024, 2048, 4096, 8192, 16384]
    assert {run.objective.widths for run in linear} == {(2048, 2048)}


# Sweeps of CISSL that figure 7b pools: epochs, hidden layers of the projector, outputs of both heads.
POOL = {(epochs, (2048, 2048), 128) for epochs in (50, 100, 200, 500, 1000, 1500)}
POOL |= {(300, (width, width), 128) for width in (512, 1024, 2048, 4096)}
POOL |= {(300, (2048,) * depth, 128) for depth in (1, 2, 3, 4)} | {(300, (1024,), 128)}
POOL |= {(200, (2048, 2048), outputs) for outputs in (32, 64, 128, 256)}


def test_figure_7b_pools_the_sweeps_of_the_papers_scripts(paper):
    rows = {row.label: row.run for row in paper.rows["fig7b_paper"]}
    found = {
        (run.optim.epochs, run.objective.widths or (run.objective.hidden,), run.objective.out) for run in rows.values()
    }
    assert found == POOL and len(rows) == len(POOL) == 17
    for run in rows.values():
        assert (run.objective.name, run.encoder.dim, run.encoder.head, run.optim.batch_size) == (
            "cissl",
            512,
            "none",
            512,
        )
    figure = paper.config.experiments["fig7b_paper"].figure
    assert [rows[name].optim.epochs for name in figure.highlight] == [50, 100, 200, 500, 1000, 1500]
    assert (figure.weight_decay, figure.above, figure.falling) == (1e-6, 30, True)


def test_a_highlighted_row_that_does_not_exist_is_named(raw):
    changed = copy.deepcopy(raw)
    changed["presets"]["paper"]["experiments"]["fig7b_paper"]["figure"]["highlight"] = ["50 epoch"]
    with pytest.raises(UserError, match=r"fig7b_paper.figure.highlight: unknown row '50 epoch', did you mean '50 e"):
        catalog.plans(changed)


def settings(paper, experiment, label=None):
    """The probes of a row: kind, weight decay, fraction, epochs, batch size."""
    row = row_of(paper, experiment, label) if label else paper.rows[experiment][0]
    probes = [probe for grid in row.probes.values() for probe in grid.probes]
    return [(p.kind, p.weight_decay, p.fraction, p.epochs, p.batch_size) for p in probes]


FULL = [(decay, 1, 100, 512) for decay in (1e-4, 1e-5, 1e-6)] + [(1e-5, 1, 300, 2048)]
FEW = [(decay, 0.02, 1000, 512) for decay in (1e-3, 1e-4, 1e-5, 1e-6)]


def test_probes_equal_those_of_the_papers_scripts(paper):
    for name in ("table1_contrastive_paper", "table1_distillation_paper", "table1_large_batch"):
        assert settings(paper, name) == [("linear", *probe) for probe in FULL]
    assert settings(paper, "table2_paper") == [(kind, *probe) for kind in ("linear", "mlp") for probe in FULL + FEW]
    assert settings(paper, "fig7c_paper", "method cissl_mlp, dim 256") == [("mlp", *probe) for probe in FULL]
    fractions = (1, 0.3, 0.1, 0.03, 0.01, 0.002)
    for name, last in (("fig7a_paper", 100), ("fig7a_extended", 1000)):
        epochs = {0.002: last}
        expected = [("linear", 1e-6, part, epochs.get(part, 100), 512) for part in fractions]
        assert settings(paper, name) == [*expected, ("linear", 1e-5, 1, 100, 512)]


def test_the_large_batch_has_a_rate_of_2_4(paper):
    (probe,) = paper.rows["table1_large_batch"][0].probes["batch 2048"].probes
    assert probe.lr * probe.batch_size / 256 == pytest.approx(2.4)


# --- released weights ---


def test_the_decomposition_of_risk_has_its_eleven_encoders(paper):
    rows = paper.rows["ssl_risk_decomposition"]
    assert {row.released for row in rows} == MODELS.keys() - {"dissl_resnet50_d8192_e100_m6"} and len(rows) == 11
    full, few = (paper.config.experiments[f"ssl_risk_decomposition{end}"].published.points for end in ("", "_few_shot"))
    assert [line for line, _ in full] == [row.label for row in rows]
    assert list(few) == [(row.label, column) for row in rows for column in ("30", "1 %", "5", "3")]
    for line, _ in full:  # fewer labels, less accuracy
        values = [full[line, ""], *(few[line, column] for column in ("30", "1 %", "5", "3"))]
        assert values == sorted(values, reverse=True)


def test_its_full_probes_are_jobs_of_the_table_of_imagenet(paper):
    own, table = paper.scores("ssl_risk_decomposition"), paper.scores("table_imagenet")
    assert len(own) == 11 and len(set(own) - set(table)) == 5


def test_the_curve_of_issue_2_agrees_with_its_best_and_peaks_once(paper):
    curve = paper.config.experiments["issue2_curve"].published.points
    best = paper.config.experiments["issue2_d2048"].published.points
    for short, name in (("LR", "logistic regression"), ("SVM", "linear SVM")):
        test = [value for (_, column), value in curve.items() if column == f"{short}, test"]
        assert len(test) == 10 and max(test) == best["batch_norm train, resize 256", name]
        peak = test.index(max(test))
        assert test[: peak + 1] == sorted(test[: peak + 1]) and test[peak:] == sorted(test[peak:], reverse=True)
    assert all(curve[c, "LR, train"] > curve[c, "LR, test"] for c, _ in curve)


def test_what_is_only_published_is_shown_with_the_reason(paper):
    for name in ONLY_PUBLISHED:
        assert paper.config.experiments[name].not_run and name not in paper.rows


# --- the mechanism ---


def test_a_preset_called_paper_overlays_the_papers_own_settings(raw):
    changed = copy.deepcopy(raw)
    changed["presets"]["paper"] = {"experiments": {"fig7b": None}, "seeds": [5, 7]}
    found = catalog.plans(changed)
    assert "fig7b" not in found["results"].rows and "fig7b" in found["results/small"].rows
    assert found["results"].config.seeds == (5, 7) and found["results/small"].config.seeds == (1,)
    assert found["results"].config.comparable and "results/paper" not in found


def test_a_mistake_in_it_is_one_line(raw):
    changed = raw | {"presets": {"paper": {"experiments": {"fig7c": {"grid": {"encoder.dim": [100]}, "tabel": {}}}}}}
    with pytest.raises(UserError, match=r"^config: experiments\.fig7c\.tabel: unknown key, did you mean 'table'\?$"):
        catalog.plans(changed)


def test_runs_of_the_release_keep_their_ids(paper):
    """Another id would train them again."""
    pinned = {
        ("table1_contrastive", "SimCLR"): "simclr-z512-e300-e44fb714",
        ("table1_contrastive", "+ epochs"): "cissl-z2048-e1000-ac64a73c",
        ("table1_distillation", "DINO"): "dino-z512-e300-d0a6ec91",
        ("table1_distillation", "DISSL"): "dissl-z512-e300-9fde7fa0",
        ("table2_mlp", "DISSL MLP"): "dissl_mlp-z512-e300-a003b3cc",
    }
    assert {place: run_id(row_of(paper, *place).run) for place in pinned} == pinned
