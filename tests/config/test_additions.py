"""Files of experiments/: they are found, they add runs, and nothing that was planned before changes."""

import shutil

import pytest
from project import copy_config

from issl.config.plan import load
from issl.errors import UserError

OWN = """\
methods:
  mine: {label: Mine, objective: {name: dcl, hidden: 64}}
experiments:
  my_table:
    on_request: true
    rows: {mine: {method: mine}, SimCLR: {method: simclr}}
    probes: [{}]
    table: {caption: My table.}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the project's config in the current folder, with an empty experiments/."""
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)
    shutil.rmtree("experiments")
    (tmp_path / "experiments").mkdir()
    return tmp_path


def refused(*overlays):
    with pytest.raises(UserError) as caught:
        load("config.yaml", overlays)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def runs(plan):
    return {experiment: [row.name for row in rows] for experiment, rows in plan.rows.items()}


def test_a_file_adds_an_experiment_and_moves_no_run_of_another(folder):
    before = load()
    (folder / "experiments/mine.yaml").write_text(OWN)
    after = load()
    assert before.keys() == after.keys()
    for root, plan in before.items():
        assert {"my_table": [], **runs(plan)} == {**runs(after[root]), "my_table": []}
        assert plan.targets() == after[root].targets()
    mine, simclr = after["results"].rows["my_table"]
    assert mine.run.objective.hidden == 64
    assert simclr.name == before["results"].rows["table1_contrastive"][0].name  # one run for both


def test_presets_have_the_experiment_on_request_only_if_its_file_names_it_for_them(folder):
    """And then with the preset's own recipe, and the file's settings for it on top."""
    file = folder / "experiments/mine.yaml"
    file.write_text(OWN)
    assert [root for root, plan in load().items() if "my_table" in plan.rows] == ["results"]
    file.write_text(OWN + "presets: {tiny: {methods: {mine: {objective: {out: 8}}}, experiments: {my_table: {}}}}\n")
    plans = load()
    assert [root for root, plan in plans.items() if "my_table" in plan.rows] == ["results", "results/tiny"]
    tiny, paper = (plans[root].rows["my_table"][0].run for root in ("results/tiny", "results"))
    assert (tiny.objective.out, tiny.optim.epochs) == (8, 9) and (paper.objective.out, paper.optim.epochs) == (128, 300)


def test_a_file_on_top_changes_what_was_added(folder):
    (folder / "experiments/mine.yaml").write_text(OWN)
    (folder / "top.yaml").write_text("methods: {mine: {objective: {hidden: 96}}}\npresets: {tiny: null}\n")
    plans = load("config.yaml", ["top.yaml"])
    assert plans["results"].rows["my_table"][0].run.objective.hidden == 96 and "results/tiny" not in plans
    (folder / "top.yaml").write_text("experiments: {my_table: {rows: {mine: {objective: {hiden: 3}}}}}\n")
    says = "top.yaml:1: experiments.my_table: row 'mine': objective.hiden: unknown key, did you mean 'hidden'?"
    assert refused("top.yaml") == says


def test_one_file_may_use_what_another_adds(folder):
    (folder / "experiments/mine.yaml").write_text(OWN)
    other = "experiments: {a_table: {rows: {x: {method: mine}}, probes: [{}], table: {caption: x}, on_request: true}}"
    (folder / "experiments/a.yaml").write_text(other)
    rows = load()["results"].rows
    assert rows["a_table"][0].name == rows["my_table"][0].name


ONLY = "a file in experiments/ only adds; allowed: data, methods, patches, experiments"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds: [1, 2]", f"1: seeds: {ONLY}, presets; this belongs in config.yaml"),
        ("\ndefaults: {optim: {lr: 1}}", f"2: defaults: {ONLY}, presets; this belongs in config.yaml"),
        ("metods: {}", f"1: metods: {ONLY}, presets; this belongs in config.yaml"),
        ("presets:\n  tiny:\n    seeds: [3]", f"3: presets.tiny.seeds: {ONLY}; this belongs in presets/tiny.yaml"),
        ("presets:\n  tny: {}", "2: presets.tny: unknown preset, did you mean 'tiny'?"),
        (
            "presets:\n  tiny:\n    methods:\n      simclr: {objective: {hidden: 8}}",
            "4: presets.tiny.methods.simclr: this file adds no such entry; change others in presets/tiny.yaml",
        ),
        (
            "methods:\n  new: {label: New, objective: {name: dcl}}\n  cissl: {label: X, objective: {name: cissl}}",
            "3: methods.cissl: is in config.yaml:{cissl}, too; give one of them another name",
        ),
        (
            "experiments:\n  x: {rows: {a: {method: disl}}}",
            "2: experiments.x: row 'a': unknown method 'disl', did you mean 'dissl'?",
        ),
        ("methods: 3", "1: methods: must be a mapping of keys to values, not 3"),
        ("[1, 2]", " must be keys with values, not [1, 2]"),
    ],
)
def test_a_file_that_does_more_or_is_wrong_is_refused_with_its_line(folder, text, says):
    (folder / "experiments/x.yaml").write_text(text)
    lines = (folder / "config.yaml").read_text().splitlines()
    cissl = next(number for number, line in enumerate(lines, 1) if line.startswith("  cissl:"))
    assert refused() == f"experiments/x.yaml:{says.format(cissl=cissl)}"


def test_an_entry_of_two_files_is_refused(folder):
    (folder / "experiments/a.yaml").write_text(OWN)
    (folder / "experiments/b.yaml").write_text(OWN.replace("my_table", "other"))
    says = "experiments/b.yaml:2: methods.mine: is in experiments/a.yaml:2, too; give one of them another name"
    assert refused() == says


def test_a_file_on_top_may_add_a_preset_but_experiments_do_not_know_it(folder):
    """Its place is not below what the user gives."""
    (folder / "top.yaml").write_text("presets: {own: {experiments: {my_table: {}}}}\n")
    (folder / "experiments/mine.yaml").write_text(OWN)
    assert "my_table" in load("config.yaml", ["top.yaml"])["results/own"].rows
