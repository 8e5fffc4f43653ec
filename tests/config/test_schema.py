"""config.yaml: layers, presets, and one clear line for every mistake."""

import copy
import json

import pytest
import yaml
from project import PROJECT

from issl.config import schema as config
from issl.config.plan import plans
from issl.config.presets import merge, read_config
from issl.config.yaml import read_yaml
from issl.errors import UserError


@pytest.fixture
def raw():
    return copy.deepcopy(read_config(PROJECT / "config.yaml"))


def put(raw, path, value):
    """Sets a nested key; the path's last part is the key."""
    for key in path[:-1]:
        raw = raw[key]
    raw[path[-1]] = value


ROW = ("experiments", "table1_contrastive", "rows", "SimCLR")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("hardwear",), {}, "config: hardwear: unknown key, did you mean 'hardware'?"),
        (("defaults", "optimm"), {}, "config: defaults.optimm: unknown key, did you mean 'optim'?"),
        (("defaults", "encoder", "dmi"), 512, "encoder.dmi: unknown key, did you mean 'dim'?"),
        (("defaults", "optim", "epochs"), "many", "optim.epochs: Input should be a valid integer"),
        (("defaults", "optim", "epochs"), 0, "optim.epochs: Input should be greater than 0, not 0"),
        (("defaults", "data"), "tinyimagnet", "unknown data set 'tinyimagnet', did you mean 'tinyimagenet'?"),
        (("data", "tinyimagenet", "kind"), "tinyimage", "unknown kind 'tinyimage', did you mean 'tinyimagenet'?"),
        (("data", "tinyimagenet", "classes"), 1000, "data.tinyimagenet.classes: Input should be less than or equal"),
        (("methods", "simclr", "objective", "name"), "simclrr", "unknown name 'simclrr', did you mean 'simclr'?"),
        (("methods", "simclr", "objective", "temperature"), 0, "objective.temperature: Input should be greater than 0"),
        (("methods", "simclr", "objective", "temprature"), 1, "objective.temprature: unknown key, did you mean 'temp"),
        (("patches", "dim", "encoder", "dim"), 2000, "dim 2000 must be a multiple of 512"),
        ((*ROW, "method"), "simclrr", "row 'SimCLR': unknown method 'simclrr', did you mean 'simclr'?"),
        ((*ROW, "with"), ["dimm"], "row 'SimCLR': unknown patch 'dimm', did you mean 'dim'?"),
        ((*ROW, "withh"), [], "rows.SimCLR.withh: unknown key, did you mean 'with'?"),
        (ROW, {}, "row 'SimCLR': no method, allowed: simclr"),
        (("seeds",), [1, 1], "config: seeds: a seed stands twice"),
        (("seeds",), [], "config: seeds: Tuple should have at least 1 item"),
        (("seeds",), [-1], "seeds.0: Input should be greater than or equal to 0, not -1"),
        (("execution", "device"), "gpuu", "execution.device: Input should be 'gpu', 'cpu' or 'auto', not 'gpuu'"),
        (("experiments", "fig7a", "zip", "augment.strength"), [1.0], "fig7a.zip: the lists differ in length"),
        (("experiments", "fig7a", "grid"), {"method": ["dissl"]}, "fig7a: needs exactly one of rows, grid, zip"),
        (("experiments", "fig7c", "grid", "encoder.dim"), [8, 8], "two rows with one name: 'method cissl, dim 8'"),
        (("experiments", "fig7c", "probes"), [{"weight_decay": -1}], "probes.0: weight_decay: Input should be greater"),
        (("experiments", "fig7c", "probes"), [{}, {}], "probes: the same probe is asked for twice"),
        (("experiments", "fig7c", "table"), {"caption": "x"}, "fig7c: needs either a figure or a table"),
        (("experiments", "fig/7", ), {}, "experiments.fig/7"),
        (
            ("experiments", "table1_contrastive", "published", "values", "SimCLRR"),
            1.0,
            "experiments.table1_contrastive.published: unknown row 'SimCLRR', did you mean 'SimCLR'?",
        ),
        (
            ("experiments", "fig7c", "published", "values", "CISSL"),
            {128: 40.3, 1024: 1.0},
            "experiments.fig7c.published: row 'CISSL': unknown column '1024', allowed: 128, 2048, 512, 8192",
        ),
        (
            ("experiments", "table1_contrastive", "claims"),
            {"A > B": {"better": "CISL", "than": "SimCLR"}},
            "config: experiments.table1_contrastive: claim 'A > B': unknown row 'CISL', did you mean 'CISSL'?",
        ),
        (
            ("experiments", "table1_contrastive", "claims"),
            {"A > B": {"better": "CISSL"}},
            "claims.A > B: 'than' goes with better and narrows, and with nothing else",
        ),
        (
            ("experiments", "fig7c", "claims"),
            {"more is less": {"falls": "CISSL"}},
            "fig7c: claim 'more is less': 'falls' does not go with this kind of figure",
        ),
        (("experiments", "fig7b", "probes"), [{}], "shows runs of other experiments, and so cannot have 'probes'"),
        (("experiments", "fig7c", "not_run"), "why", "says why it is not run, and so cannot have 'base'"),
        (("defaults", "data"), "dtd", "row 'SimCLR': data 'dtd' is there to evaluate weights on, not to pretrain"),
        (("evaluations", "fig7a"), {}, "evaluations.fig7a: rows: needs at least one"),
        (("evaluations", "table_imagenet", "protocols"), {}, "table_imagenet: protocols: needs at least one"),
        (
            ("evaluations", "table_transfer", "rows", "DTD"),
            {"data": "dtt"},
            "evaluations.table_transfer: row 'DTD': unknown data set 'dtt', did you mean 'dtd'?",
        ),
        (
            ("evaluations", "table_transfer", "base", "weights"),
            "dissl_resnet50_d8192_e400",
            "row 'CIFAR-10': unknown weights 'dissl_resnet50_d8192_e400', did you mean 'dissl_resnet50_d8192_e400_m6'?",
        ),
        (("evaluations", "table_transfer", "base"), {}, "table_transfer: row 'CIFAR-10': says no weights"),
        (("evaluations", "table_transfer", "base", "crops"), 224, "base.crops: unknown key, did you mean 'crop'?"),
        (("evaluations", "table_transfer", "base", "crop"), 300, "crop 300 exceeds the shorter side, resize 224"),
        (
            ("evaluations", "table_transfer", "protocols", "linear SVM"),
            {"kind": "svn"},
            "protocols.linear SVM: protocol: unknown kind 'svn', did you mean 'svm'?",
        ),
        (
            ("evaluations", "table_transfer", "protocols", "aug"),
            {"kind": "augmented"},
            "row 'CIFAR-10': the augmented protocol crops photographs: it needs data of kind imagenet",
        ),
        (
            ("evaluations", "table_imagenet", "base", "layer"),
            "trunk",
            "the augmented protocol goes with 'layer: output' and 'batch_norm: eval' alone",
        ),
        (
            ("evaluations", "table_imagenet", "protocols", "cached", "probes"),
            [{"lr": [0.1, 0.1]}],
            "protocols.cached: protocol: the same probe is asked for twice",
        ),
        (("evaluations", "table_imagenet", "seeds"), [0, 0], "seeds: a seed stands twice in [0, 0]"),
        (
            ("evaluations", "table_transfer", "published", "values", "CIFAR-10", "linear SVN"),
            1.0,
            "table_transfer.published: row 'CIFAR-10': unknown column 'linear SVN', did you mean 'linear SVM'?",
        ),
        (
            ("evaluations", "table_transfer", "claims"),
            {"A > B": {"better": "DTT", "than": "DTD"}},
            "evaluations.table_transfer: claim 'A > B': unknown row 'DTT', did you mean 'DTD'?",
        ),
        (
            ("evaluations", "table_transfer", "claims"),
            {"less": {"falls": "DTD"}},
            "claim 'less': 'falls' needs columns in an order; allowed: better",
        ),
        (("experiments", "fig7a", "published", "precision"), None, "published: values need a precision"),
        (("experiments", "fig7c", "probes"), [], "fig7c: probes: needs at least one"),
        (
            ("experiments", "fig7c", "probes"),
            [{"weight_decay": [1e-5, 1e-6], "fraction": 0.01}],
            "holdout 0.1 of fraction 0.01 of 100000 training images, on which the weight decay is chosen, is less than",
        ),
        (
            ("experiments", "fig7c", "figure", "kind"),
            "linse",
            "unknown kind 'linse', did you mean 'lines'?",
        ),
        (("presets", "tiny"), None, "presets: each preset must be a mapping"),
        (("presets", "tiny", "optimm"), {"epochs": 1}, "config (preset tiny): optimm: unknown key"),
        (("presets", "a/b"), {}, "presets.a/b: a preset needs a plain name"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it(raw, path, value, says):
    put(raw, path, value)
    with pytest.raises(UserError) as caught:
        plans(raw)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_rows_with_the_same_name_are_refused(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a:\n  SimCLR: 1\n  CISSL: 2\n  SimCLR: 3\n")
    with pytest.raises(UserError, match=r"line 4: 'SimCLR' stands twice \(first in line 2\)"):
        read_yaml(file)


def test_yaml_tags_are_not_executed(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match="not valid YAML"):
        read_yaml(file)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read"):
        read_yaml("nowhere.yaml")


def test_merge_combines_mappings_replaces_lists_and_removes_nulls():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [9]}, "d": None, "e": 4}) == {"a": {"b": 1, "c": [9]}, "e": 4}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_a_preset_can_remove_an_experiment(raw):
    put(raw, ("presets", "tiny", "experiments", "fig7a"), None)
    found = plans(raw)
    assert "fig7a" not in found["results/tiny"].rows
    assert "fig7a" in found["results"].rows


def test_the_committed_schema_equals_that_of_the_models():
    """Regenerate with: python -m issl schema > workflow/schemas/config.schema.json"""
    kept = json.loads((PROJECT / "workflow/schemas/config.schema.json").read_text())
    assert kept == config.json_schema()


def test_the_schema_accepts_the_config_and_refuses_a_typo(raw):
    jsonschema = pytest.importorskip("jsonschema")  # comes with snakemake
    jsonschema.validate(raw, config.json_schema())
    put(raw, ("defaults", "encoder", "dmi"), 3)
    with pytest.raises(jsonschema.ValidationError, match="dmi"):
        jsonschema.validate(raw, config.json_schema())


def test_the_config_of_the_project_is_plain_yaml_1_1():
    """Snakemake reads YAML 1.1, where 1e-3 is text: the file writes 1.0e-3, so that other readers agree."""
    numbers = yaml.safe_load((PROJECT / "config.yaml").read_text())
    assert isinstance(numbers["defaults"]["optim"]["lr"], float)
