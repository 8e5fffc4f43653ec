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
from issl.errors import UserError, quoted


@pytest.fixture
def raw():
    return copy.deepcopy(read_config(PROJECT / "config.yaml"))


def put(raw, path, value):
    """Sets a nested key; the path's last part is the key."""
    for key in path[:-1]:
        raw = raw[key]
    raw[path[-1]] = value


PUBLISHED = ("experiments", "table1_contrastive", "published")
OTHER = {"label": "May", "source": "a page", "precision": 0.05, "values": {"SimCLR": 44.6}}
ROW = ("experiments", "table1_contrastive", "rows", "SimCLR")
TRANSFER = ("experiments", "table_transfer")
RELEASED = "dissl_resnet50_d8192_e400_m6"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("hardwear",), {}, "config: hardwear: unknown key, did you mean 'hardware'?"),
        (("defaults", "optimm"), {}, "config: defaults.optimm: unknown key, did you mean 'optim'?"),
        (("defaults", "encoder", "dmi"), 512, "encoder.dmi: unknown key, did you mean 'dim'?"),
        (("defaults", "optim", "epochs"), "many", "optim.epochs: must be a whole number"),
        (("defaults", "optim", "epochs"), 0, "optim.epochs: must be greater than 0, not 0"),
        (("defaults", "data"), "tinyimagnet", "unknown data set 'tinyimagnet', did you mean 'tinyimagenet'?"),
        (("data", "tinyimagenet", "kind"), "tinyimage", "unknown kind 'tinyimage', did you mean 'tinyimagenet'?"),
        (("data", "tinyimagenet", "classes"), 1000, "data.tinyimagenet.classes: must be less than or equal"),
        (("methods", "simclr", "objective", "name"), "simclrr", "unknown name 'simclrr', did you mean 'simclr'?"),
        (("methods", "simclr", "objective", "name"), ["a"] * 99, f"unknown name {quoted(str(['a'] * 99))}, allowed: b"),
        (("methods", "simclr", "encoder"), {"arch": ["a"] * 99}, f"encoder.arch: unknown {quoted(['a'] * 99)}, allow"),
        ((*ROW[:2], "probes"), [{"kind": {"a" * 99: 1}}], f"probes.0: unknown kind {quoted(str({'a' * 99: 1}))}, allo"),
        (("methods", "simclr", "objective", "temperature"), 0, "objective.temperature: must be greater than 0"),
        (("methods", "simclr", "objective", "temprature"), 1, "objective.temprature: unknown key, did you mean 'temp"),
        (("patches", "dim", "encoder", "dim"), 2000, "dim 2000 must be a multiple of 512"),
        ((*ROW, "method"), "simclrr", "row 'SimCLR': unknown method 'simclrr', did you mean 'simclr'?"),
        ((*ROW, "with"), ["dimm"], "row 'SimCLR': unknown patch 'dimm', did you mean 'dim'?"),
        ((*ROW, "withh"), [], "rows.SimCLR.withh: unknown key, did you mean 'with'?"),
        (ROW, {}, "row 'SimCLR': needs a method (simclr, cissl, "),
        (ROW, {"method": "simclr", "weights": RELEASED}, "row 'SimCLR': has both a method and weights"),
        (ROW, {"weights": RELEASED, "optim": {}}, "row 'SimCLR': 'optim' needs a method, not weights"),
        (ROW, {"weights": RELEASED, "with": []}, "row 'SimCLR': 'with' needs a method, not weights"),
        (("seeds",), [1, 1], "config: seeds: duplicate seed in [1, 1]"),
        (("seeds",), [], "config: seeds: must have 1 or more entries, not []"),
        (("seeds",), [-1], "seeds.0: must be greater than or equal to 0, not -1"),
        (("seeds",), [2**32], "seeds.0: must be less than 4294967296"),
        (("execution", "device"), "gpuu", "execution.device: must be 'gpu', 'cpu' or 'auto', not 'gpuu'"),
        (("experiments", "fig7a", "zip", "augment.strength"), [1.0], "fig7a.zip: the lists differ in length"),
        (("experiments", "fig7a", "grid"), {"method": ["dissl"]}, "fig7a: needs exactly one of rows, grid, zip"),
        (("experiments", "fig7c", "grid", "encoder.dim"), [8, 8], "two rows have the same name 'method cissl, dim 8'"),
        (("experiments", "fig7c", "probes"), [{"weight_decay": -1}], "probes.0.weight_decay: must be greater"),
        (("experiments", "fig7c", "probes"), [{}, {}], "probes: 'linear': the same probe is listed twice"),
        (("experiments", "fig7c", "table"), {"caption": "x"}, "fig7c: needs either a figure or a table"),
        (("experiments", "fig/7", ), {}, "experiments.fig/7: must be lower-case letters, digits and underscores"),
        (("methods", "simclr", "label"), "a\x1b[31m", r"label: 'a\x1b[31m' contains '\x1b', which cannot be shown"),
        ((*ROW[:-1], "a\rb"), {}, r"table1_contrastive.rows: a key: 'a\rb' contains '\r', which cannot be shown"),
        (("methods", "simclr", "label"), " \n", "methods.simclr.label: must not be empty"),
        ((*ROW[:-1], "CISSL\n"), {"method": "cissl"}, "table1_contrastive.rows: two rows are both called 'CISSL'"),
        (("methods", "cissl_mlp", "label"), "CISSL ", "fig7b: 'CISSL' and 'CISSL ' would print alike: rename one"),
        ((*TRANSFER, "probes"), [{"kind": "svm", "label": name} for name in ("\u00e9", "e\u0301")], "would print"),
        ((3,), {}, "config: 3: must be a word: put it in quotes, not 3"),
        ((*PUBLISHED, "values", "SimCLR"), "high", "values.SimCLR: must be a number, or a mapping of columns to num"),
        ((*PUBLISHED, "values", "SimCLR"), {"a": "high"}, "values.SimCLR.a: must be a number, not 'high'"),
        (("data", "mine"), {}, "config: data.mine: needs a kind, allowed: cifar10, folder, huggingface, imagenet, "),
        (("methods", "simclr", "label"), "", "methods.simclr.label: must not be empty"),
        (("experiments", "fig7c", "figure", "size"), [1, 2, 3], "figure.size: must have 2 or fewer entries, not [1,"),
        (("experiments", "fig7c", "figure", "reference"), [[]], "figure.reference.0: must be a word or a number"),
        (("experiments", "fig7c", "base", "features"), {"data": {}}, "fig7c.base.features.data: unknown key: the row"),
        (ROW, {"method": "simclr", "features": {"data": 3}}, "row 'SimCLR': features.data: unknown key: the row's own"),
        (("defaults", "optim", "lr"), [1] * 99, f"optim.lr: must be a number, not {[1] * 24}"[:-3]),
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
            ("experiments", "fig7c", "figure", "reference"),
            ["CISL"],
            "config: experiments.fig7c.figure.reference: unknown line 'CISL', did you mean 'CISSL'?",
        ),
        (
            ("experiments", "table1_contrastive", "claims"),
            {"A > B": {"better": "CISL", "than": "SimCLR"}},
            "config: experiments.table1_contrastive: claim 'A > B': unknown row 'CISL', did you mean 'CISSL'?",
        ),
        (
            ("experiments", "table1_contrastive", "claims"),
            {"A > B": {"better": "CISSL"}},
            "claims.A > B: better and narrows need 'than', and no other claim takes it",
        ),
        (
            ("experiments", "fig7c", "claims"),
            {"more is less": {"falls": "CISSL"}},
            "fig7c: claim 'more is less': 'falls' does not go with this kind of figure",
        ),
        (
            ("experiments", "fig7b", "figure", "x"),
            "alignment",
            "accuracy, CISSL': 'falls' is about the log loss, and this figure has alignment",
        ),
        (("experiments", "fig7b", "probes"), [{}], "shows rows of other experiments, so it cannot have 'probes'"),
        (("experiments", "fig7b", "seeds"), [1], "shows rows of other experiments, so it cannot have 'seeds'"),
        (("experiments", "fig7b", "hardware"), {}, "shows rows of other experiments, so it cannot have 'hardware'"),
        (("experiments", "fig7c", "not_run"), "why", "has 'not_run', and so cannot have 'base'"),
        (("experiments", "x"), {"not_run": "why", "seeds": [1]}, "has 'not_run', and so cannot have 'seeds'"),
        (("evaluations",), {}, "config: evaluations: this key is now 'experiments'; rename it"),
        (("defaults", "data"), "dtd", "row 'SimCLR': data 'dtd' is only for evaluation, not for pretraining"),
        ((*TRANSFER, "rows"), {}, "table_transfer: needs exactly one of rows, grid, zip, not empty"),
        (("experiments", "table_imagenet", "probes"), [], "table_imagenet: probes: needs at least one"),
        (
            (*TRANSFER, "rows", "DTD"),
            {"data": "dtt"},
            "experiments.table_transfer: row 'DTD': unknown data set 'dtt', did you mean 'dtd'?",
        ),
        (
            (*TRANSFER, "base", "weights"),
            "dissl_resnet50_d8192_e400",
            "row 'CIFAR-10': unknown weights 'dissl_resnet50_d8192_e400', did you mean 'dissl_resnet50_d8192_e400_m6'?",
        ),
        ((*TRANSFER, "base"), {}, "experiments.table_transfer: row 'CIFAR-10': needs a method (simclr, cissl, "),
        ((*TRANSFER, "base", "method"), "simclr", "row 'CIFAR-10': has both a method and weights"),
        ((*TRANSFER, "base", "optim"), {}, "row 'CIFAR-10': 'optim' needs a method, not weights"),
        (
            (*TRANSFER, "base", "features"),
            {"crops": 224},
            "config: experiments.table_transfer.base.features.crops: unknown key, did you mean 'crop'?",
        ),
        ((*TRANSFER, "base", "crop"), 224, "table_transfer.base.crop: this key is now 'features.crop'; rename it"),
        ((*TRANSFER, "base", "features"), {"crop": 300}, "features: crop 300 exceeds the shorter side, resize 224"),
        (
            (*TRANSFER, "probes"),
            [{"kind": "svn"}],
            "row 'CIFAR-10': probes.0: unknown kind 'svn', did you mean 'svm'?",
        ),
        (
            (*TRANSFER, "probes"),
            [{"kind": "svm"}, {"kind": "logistic", "label": "svm"}],
            "probes: 'svm': all probes of a grid must be of one kind",
        ),
        (
            (*TRANSFER, "probes"),
            [{"kind": "augmented"}],
            "row 'CIFAR-10': the augmented protocol crops photographs: it needs data of kind imagenet",
        ),
        (
            ("experiments", "table_imagenet", "base", "features"),
            {"layer": "trunk"},
            "the augmented protocol needs 'layer: output' and 'batch_norm: eval'",
        ),
        (
            ("experiments", "table_imagenet", "base", "features"),
            {"batch_norm": "train"},
            "the augmented protocol needs 'layer: output' and 'batch_norm: eval'",
        ),
        (
            ("experiments", "table_imagenet", "probes"),
            [{"kind": "cached", "lr": [0.1, 0.1]}],
            "probes: 'cached': the same probe is listed twice",
        ),
        (("experiments", "table_imagenet", "seeds"), [0, 0], "table_imagenet.seeds: duplicate seed in [0, 0]"),
        (("experiments", "table_imagenet", "base", "metrics"), ["top-2"], "base.metrics.0: must be 'top-1', "),
        (
            (*TRANSFER, "hardware", "probe", "gpus"),
            1,
            "experiments.table_transfer.hardware.probe.gpus: unknown key, allowed: mem_gb, minutes, threads",
        ),
        (
            (*TRANSFER, "published", "values", "CIFAR-10", "linear SVN"),
            1.0,
            "table_transfer.published: row 'CIFAR-10': unknown column 'linear SVN', did you mean 'linear SVM'?",
        ),
        (
            (*TRANSFER, "claims"),
            {"A > B": {"better": "DTT", "than": "DTD"}},
            "experiments.table_transfer: claim 'A > B': unknown row 'DTT', did you mean 'DTD'?",
        ),
        (
            (*TRANSFER, "claims"),
            {"less": {"falls": "DTD"}},
            "claim 'less': 'falls' does not go with this kind of figure",
        ),
        *(
            (
                (*TRANSFER, "claims"),
                {"more": claim},
                f"claim 'more': '{next(iter(claim))}' needs columns in an order; allowed: better",
            )
            for claim in ({"rises": "DTD"}, {"saturates": "DTD"}, {"narrows": "DTD", "than": "CIFAR-10"})
        ),
        (("experiments", "fig7a", "published", "precision"), None, "published: values need a precision"),
        ((*PUBLISHED, "source"), "", "table1_contrastive.published.source: must not be empty"),
        ((*PUBLISHED, "source"), None, "published.source: must be a word: put it in quotes, not None"),
        (PUBLISHED, {"precision": 0.05, "values": {"SimCLR": 1}}, "table1_contrastive.published.source: missing"),
        (PUBLISHED, {"source": "a page", "precision": 0.05}, "a precision needs values"),
        ((*PUBLISHED, "also"), [OTHER | {"source": ""}], "published.also.0.source: must not be empty"),
        ((*PUBLISHED, "also"), [OTHER | {"values": {}}], "published.also.0.values: must have 1 or more entries"),
        ((*PUBLISHED, "also"), [OTHER, OTHER], "published: also: two sources are labelled 'May'"),
        ((*PUBLISHED, "also"), [OTHER | {"values": {"DISSL": 1}}], "also 'May': 'DISSL' has no number in values"),
        (("experiments", "fig7c", "probes"), [], "fig7c: probes: needs at least one"),
        (
            ("experiments", "fig7c", "probes"),
            [{"weight_decay": [1e-5, 1e-6], "fraction": 0.01}],
            "holdout 0.1 of fraction 0.01 of 100000 training images, on which a setting is selected, is less than",
        ),
        (
            ("experiments", "fig7c", "probes"),
            [{"kind": "knn", "k": 90_001}],
            "probes: k 90001 exceeds the 90000 training images that are not held out",
        ),
        (
            ("experiments", "fig7c", "probes"),
            [{"kind": "fine_tuned", "fraction": 0.001}],
            "probes: fraction 0.001 of 100000 training images is less than one per class",
        ),
        (
            ("experiments", "fig7c", "probes"),
            [{"kind": "fine_tuned", "lr": [0.05, 0.1], "fraction": 0.01}],
            "holdout 0.1 of fraction 0.01 of 100000 training images, on which a setting is selected, is less than",
        ),
        (
            (*TRANSFER, "probes"),
            [{"kind": "fine_tune"}],
            "row 'CIFAR-10': probes.0: unknown kind 'fine_tune', did you mean 'fine_tuned'?",
        ),
        (
            (*TRANSFER, "probes"),
            [{"kind": "fine_tuned", "batch_size": 1}],
            "probes.0.batch_size: must be greater than or equal to 2, not 1",
        ),
        (
            (*TRANSFER,),
            {
                "rows": {"A": {"weights": RELEASED, "data": "cifar10", "features": {"batch_norm": "train"}}},
                "probes": [{"kind": "fine_tuned"}],
                "table": {"caption": "A."},
            },
            "row 'A': a fine-tuned encoder is scored in eval mode: it needs 'batch_norm: eval'",
        ),
        (
            (*TRANSFER, "table", "measures"),
            ["rankme"],
            "table_transfer.table.measures.0: must be 'rank_me', 'alignment' or 'uniformity', not 'rankme'",
        ),
        ((*TRANSFER, "table", "measures"), ["alignment"] * 2, "table.measures: 'alignment' is listed twice"),
        (
            ("experiments", "fig7c", "figure", "kind"),
            "linse",
            "unknown kind 'linse', did you mean 'lines'?",
        ),
        (("seeds",), [True], "config: seeds.0: must be a whole number, not 'true'"),
        (("defaults", "optim", "lr"), True, "config: defaults.optim.lr: must be a number, not 'true'"),
        (("experiments", "fig7c", "probes"), [{"weight_decay": [True, 1e-4]}], "weight_decay: must be a number, not"),
        ((*PUBLISHED, "values"), {"SimCLR": True}, "values.SimCLR: must be a number, or a mapping of columns to num"),
        (("presets", "tiny"), 3, "config: presets.tiny: must be a mapping of changes, not 3"),
        (("presets", "tiny", "optimm"), {"epochs": 1}, "config (preset tiny): optimm: unknown key"),
        (("presets",), [], "config: presets: must be a mapping of names to presets, not []"),
        (("presets", 3), {}, "config: presets.3: a preset needs a plain name"),
        (("presets", "a/b"), {}, "presets.a/b: a preset needs a plain name"),
        (("presets", "tiny", "inherit"), "some", "tiny): inherit: must be 'all' or 'named', not 'some'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it(raw, path, value, says):
    put(raw, path, value)
    with pytest.raises(UserError) as caught:
        plans(raw)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("defaults", "encoder", "dmi"), 3, "config: defaults.encoder.dmi: unknown key, did you mean 'dim'?"),
        (("methods", "simclr", "objective", "temprature"), 3, "config: methods.simclr.objective.temprature: unknown"),
        (
            ("methods", "simclr", "objective", "temperature"),
            0,
            "config: methods.simclr.objective.temperature: must be",
        ),
        (("patches", "dim", "encoder", "dim"), "big", "config: patches.dim.encoder.dim: must be a whole number, not"),
        (
            *(("experiments", "fig7c", "base", "optim"), {"lr": -1}),
            "config: experiments.fig7c.base.optim.lr: must be greater than 0, not -1",
        ),
        (
            *(("experiments", "table1_contrastive", "rows", "SimCLR", "optim"), {"lr": -1}),
            "config: experiments.table1_contrastive: row 'SimCLR': optim.lr: must be greater than 0, not -1",
        ),
        (  # of two settings that do not go together, the row is what has both
            *(("patches", "dim", "encoder", "head"), "none"),
            "config: experiments.table1_contrastive: row '+ dim.': encoder: dim 2048 needs 'head: expand'",
        ),
    ],
)
def test_a_mistake_is_blamed_on_the_layer_that_has_it(raw, path, value, place):
    put(raw, path, value)
    with pytest.raises(UserError) as caught:
        plans(raw | {"presets": {}})
    assert str(caught.value).startswith(place)


def test_the_last_layer_with_a_setting_wins_and_is_blamed(raw):
    put(raw, ("defaults", "optim", "lr"), -1)
    put(raw, ("patches", "dim", "optim"), {"lr": -2})
    put(raw, ("experiments", "table1_contrastive", "rows"), {"A": {"method": "simclr", "with": ["dim"]}})
    with pytest.raises(UserError, match=r"config: patches\.dim\.optim\.lr: must be greater than 0, not -2"):
        plans(raw | {"presets": {}, "experiments": {"table1_contrastive": raw["experiments"]["table1_contrastive"]}})


def test_one_seed_may_be_written_without_brackets(raw):
    assert plans(raw | {"presets": {}, "seeds": 3})["results"].config.seeds == (3,)


def test_two_rows_with_the_same_name_are_refused(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a:\n  SimCLR: 1\n  CISSL: 2\n  SimCLR: 3\n")
    with pytest.raises(UserError, match=r"config\.yaml:4: duplicate key 'SimCLR' \(first defined on line 2\)"):
        read_yaml(file)


@pytest.mark.parametrize("rows", ["{1: {}, 1.0: {}}", "{1: {}, '1': {}}", "{'1.0': {}, 1: {}}"])
def test_two_rows_that_would_print_alike_are_refused(raw, tmp_path, rows):
    file = tmp_path / "rows.yaml"
    file.write_text(rows)
    with pytest.raises(UserError, match=r"duplicate key '1\.0'|two rows are both called '1'"):
        put(raw, ("experiments", "table1_contrastive", "rows"), {k: {"method": "cissl"} for k in read_yaml(file)})
        plans(raw)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds: [010]", ".yaml:1: YAML reads 010 as an octal number, 8"),
        ("a: {b: 1:30}", "YAML reads 1:30 as a number, 90"),
        ("a: 1_000", "YAML reads 1_000 as a number, 1000"),
        ("a: 1:30.5", "YAML reads 1:30.5 as a number, 90.5"),
        ("rows:\n  no: {}", ".yaml:2: YAML reads no as a truth value, False"),
        ("a: [On]", "YAML reads On as a truth value, True"),
        ("rows: {2024-01-02: {}}", "YAML reads 2024-01-02 as a date"),
        ("seeds: [!!int '010']", "YAML reads 010 as an octal number, 8"),
    ],
)
def test_values_that_yaml_reads_as_something_else_are_refused(tmp_path, text, says):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match="write that, or put it in quotes") as caught:
        read_yaml(file)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_plain_values_are_read_as_they_are_written(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a: ['010', \"1:30\", true, False, 0, -3, 0x1f, 1.0e-4, 'no', null, 0.25, 10:a, a_b]\n")
    expected = ["010", "1:30", True, False, 0, -3, 31, 1e-4, "no", None, 0.25, "10:a", "a_b"]
    assert read_yaml(file) == {"a": expected}


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


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("defaults", "encoder", "dmi"), 3),
        (("defaults", "optim", "epochs"), "many"),
        (("methods", "simclr", "objective", "temprature"), 0.1),
        ((*TRANSFER, "base", "features"), {"crops": 64}),
        ((*TRANSFER, "base", "features"), {"data": {"kind": "cifar10"}}),
        ((*TRANSFER, "probes"), [{"kind": "svm", "drawz": 3}]),
        ((*TRANSFER, "probes"), [{"kind": "svm", "draws": [3, "many"]}]),
    ],
)
def test_the_schema_accepts_the_config_and_refuses_a_typo(raw, path, value):
    jsonschema = pytest.importorskip("jsonschema")  # comes with snakemake
    jsonschema.validate(raw, config.json_schema())
    put(raw, (*TRANSFER, "probes"), [{"draws": [3, 4], "kind": "svm", "label": "x"}, {"weight_decay": [0, 1e-6]}])
    jsonschema.validate(raw, config.json_schema())
    put(raw, path, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, config.json_schema())


def test_the_config_of_the_project_is_plain_yaml_1_1():
    """Snakemake reads YAML 1.1, where 1e-3 is text: the file writes 1.0e-3, so that other readers agree."""
    numbers = yaml.safe_load((PROJECT / "config.yaml").read_text())
    assert isinstance(numbers["defaults"]["optim"]["lr"], float)
