"""Lines and columns of figures and tables: what there is to publish and to claim, and one place for each result."""

import re

import pytest
from project import PROJECT

from issl.config.plan import plans
from issl.config.presets import merge, read_config
from issl.errors import UserError


@pytest.fixture(scope="module")
def raw():
    return read_config(PROJECT / "config.yaml")


@pytest.fixture(scope="module")
def alone(raw):
    """The config without presets: some of them lack the runs that a new experiment takes."""
    return raw | {"presets": {}}


LINES = {"kind": "lines", "x": "dim", "xlabel": "dim.", "hue": "method"}
SHARED = {
    "two probes of a row, in a table without columns": (
        *("table1_contrastive", {"probes": [{}, {"kind": "svm"}]}),
        "'SimCLR'; show fewer of them, or more columns",
    ),
    "two metrics, in a table with a column for each probe": (
        *("table_transfer", {"base": {"metrics": ["top-1", "top-5"]}}),
        "'CIFAR-10', 'logistic regression'; show",
    ),
    "two probes, in a table with a column for each metric": (
        *("table_imagenet", {"table": {"columns": ["metric"]}}),
        "'dissl_resnet50_dNone_e100_m2', 'top-1'; show",
    ),
    "two parts of the labels, in a table with a column for each probe": (
        *("table2_mlp", {"table": {"columns": ["probe"]}}),
        "'DISSL', 'mlp'; show",
    ),
    "two probes of a run, in a figure of lines": (
        *("fig7c", {"probes": [{}, {"kind": "svm"}]}),
        "'CISSL', '128'; show",
    ),
    "two runs of one method and dimension, in a figure of lines": (
        *("fig7c", {"grid": {"optim.lr": [1e-3, 2e-3]}}),
        "'CISSL', '128'; show",
    ),
    "two data sets of one run, in a figure of lines": (
        "baseline",
        {
            "rows": {name: {"weights": "fig7c/method cissl, dim 128", "data": name} for name in ("cifar10", "dtd")},
            "probes": [{}],
            "figure": LINES,
        },
        "'CISSL', '128'; show",
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_two_results_that_share_a_place_are_refused_before_anything_runs(alone, name):
    experiment, change, place = SHARED[name]
    with pytest.raises(UserError) as caught:
        plans(merge(alone, {"experiments": {experiment: change}}))
    assert str(caught.value).startswith(f"config: experiments.{experiment}: two results share the place {place}")
    assert "\n" not in str(caught.value)


def test_a_preset_whose_results_share_a_place_is_named(raw):
    overlay = {"experiments": {"table1_contrastive": {"probes": [{}, {"kind": "svm"}]}}}
    with pytest.raises(UserError, match=r"^config \(preset tiny\): experiments\.table1_contrastive: two results share"):
        plans(merge(raw, {"presets": {"tiny": overlay}}))


APART = {
    "probes by column": ("table1_contrastive", {"probes": [{}, {"kind": "svm"}], "table": {"columns": ["probe"]}}),
    "probes by line": (
        "fig7c",
        {"probes": [{}, {"kind": "svm"}], "grid": {"method": ["cissl"]}, "figure": {"hue": "probe"}},
    ),
    "metrics by column": (
        "table_transfer",
        {"base": {"metrics": ["top-1", "top-5"]}, "table": {"columns": ["probe", "metric"]}},
    ),
    "settings, of which one is selected": ("table1_contrastive", {"probes": [{"lr": [0.1, 0.3], "epochs": [10, 20]}]}),
    "points of a scatter": (
        "fig7c",
        {"probes": [{}, {"kind": "svm"}], "figure": {"kind": "scatter", "x": "log_loss", "xscale": None}},
    ),
    "data sets by line": (
        "baseline",
        {
            "rows": {name: {"weights": "fig7c/method cissl, dim 128", "data": name} for name in ("cifar10", "dtd")},
            "probes": [{}],
            "figure": LINES | {"hue": "data"},
        },
    ),
}


@pytest.mark.parametrize("name", APART)
def test_results_that_are_told_apart_share_no_place(alone, name):
    experiment, change = APART[name]
    if experiment in alone["experiments"]:
        change = change | {"published": None, "claims": None}  # they speak of other lines and columns
    assert experiment in plans(merge(alone, {"experiments": {experiment: change}}))["results"].rows


def test_a_weight_decay_that_is_not_shown_takes_no_place(raw):
    """Figure 7a has a probe on all labels with each of two weight decays, and shows one of them."""
    everything = merge(raw, {"experiments": {"fig7a": {"figure": {"weight_decay": None}}}})
    shown = plans(everything)["results"].rows["fig7a"]
    assert shown == plans(raw)["results"].rows["fig7a"], "those on equal labels compete: one of them is selected"
    other = merge(raw, {"experiments": {"fig7a": {"figure": {"weight_decay": 1e-5}, "claims": None}}})
    line = re.escape("experiments.fig7a.published: row '0.25': unknown column '200', allowed: 100000")
    with pytest.raises(UserError, match=line):
        plans(other)


def test_any_number_of_labels_can_be_published_of_data_whose_number_of_images_is_not_known(alone):
    own = {
        "rows": {"a": {"weights": "table1_contrastive/CISSL", "data": "dtd"}},
        "probes": [{"fraction": [1.0, 0.1]}],
        "figure": {"kind": "lines", "x": "n_labels", "xlabel": "labels", "hue": "method"},
        "published": {"source": "a paper", "precision": 0.1, "values": {"CISSL": {123: 45.6}}},
    }
    changed = merge(alone, {"experiments": {"baseline": own}})
    assert "123" in plans(changed)["results"].published("baseline")
    counted = merge(changed, {"experiments": {"baseline": {"rows": {"a": {"data": "cifar10"}}}}})
    with pytest.raises(UserError, match="row 'CISSL': unknown column '123', allowed: 5000, 50000"):
        plans(counted)


def test_a_claim_about_the_log_loss_of_an_untrained_encoder_is_refused(raw):
    """It would be undecided for ever."""
    change = {"experiments": {"fig7b": {"claims": {"x": {"falls": "untrained"}}}}}
    says = r"\(preset tiny\): experiments.fig7b: claim 'x': 'untrained' has no log loss, because it is not trained here"
    with pytest.raises(UserError, match=says):
        plans(merge(raw, {"presets": {"tiny": change}}))


def test_a_claim_about_the_log_loss_of_a_method_that_logs_none_is_refused(alone):
    """A row of such a method is planned all the same, and figure 7b names it."""
    change = {
        "methods": {"labels": {"label": "labels", "objective": {"name": "supervised", "classes": 200}}},
        "experiments": {"table1_contrastive": {"rows": {"labels": {"method": "labels"}}}},
    }
    planned = plans(merge(alone, change))["results"]
    assert "labels" in {row["method"] for row in planned.rows_for("fig7b")}
    change["experiments"]["fig7b"] = {"claims": {"x": {"falls": "labels"}}}
    with pytest.raises(UserError, match="claim 'x': 'labels' has no log loss, because its method logs none"):
        plans(merge(alone, change))


def test_an_untrained_encoder_has_no_settings_of_training(raw):
    plan = plans(raw)["results/tiny"]
    rows = {row["row"]: row for row in plan.rows_for("table1_contrastive")}
    settings = ("batch_size", "strength", "blur")
    assert [rows["untrained"][name] for name in settings] == [None] * 3 and rows["untrained"]["epochs"] == 0
    assert [type(rows["SimCLR"][name]) for name in settings] == [int, float, bool]


def test_released_weights_are_published_and_claimed_by_their_name(raw):
    model = "dissl_resnet50_dNone_e100_m2"
    own = {"rows": {"a": {"weights": model}}, "probes": [{}], "table": {"caption": "A baseline."}}
    found = merge(raw, {"experiments": {"baseline": own, "fig7b": {"claims": {"x": {"falls": model}}}}})
    with pytest.raises(UserError, match=f"claim 'x': '{model}' has no log loss, because it is not trained here"):
        plans(found)
    with pytest.raises(UserError, match=f"claim 'x': unknown row '{model}'"):
        plans(merge(found, {"experiments": {"baseline": None}}))
