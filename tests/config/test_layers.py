"""A mistake is blamed on the file and the line where it is written, whichever layers lie over and under that."""

import re

import pytest
from project import PROJECT, copy_config, planned, snakemake
from snakemake.cli import parse_config

from issl.config.layers import OPTION, Place, read_layers, setting
from issl.config.plan import load
from issl.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the project's config in the current folder."""
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)
    return tmp_path


def write_mistake(path, after, mistake):
    """Adds a line below the line that begins with `after`; gives its number."""
    lines = path.read_text().splitlines()
    number = next(index for index, line in enumerate(lines) if line.startswith(after)) + 1
    lines.insert(number, mistake)
    path.write_text("\n".join(lines))
    return number + 1


def blamed(*overlays, settings=()):
    with pytest.raises(UserError) as caught:
        load("config.yaml", overlays, settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "after", "mistake", "says"),
    [
        ("config.yaml", "defaults:", "  encodr: {dim: 3}", "defaults.encodr: unknown key, did you mean 'encoder'?"),
        (
            "config.yaml",
            "  table1_contrastive:",
            "    seeds: [1, x]",
            "experiments.table1_contrastive.seeds.1: must be",
        ),
        (
            *("config.yaml", "    rows:", "      new: {method: cissl, with: [dimm]}"),
            "experiments.table1_contrastive: row 'new': unknown patch 'dimm', did you mean 'dim'?",
        ),
        (
            *("config.yaml", "    rows:", "      new: {method: cissl, encoder: {dim: 2000}}"),
            "experiments.table1_contrastive: row 'new': encoder: dim 2000 needs 'head: expand'",
        ),
        (
            *("config.yaml", "    grid:", "      optim.lrr: [1.0, 2.0]"),
            "experiments.fig7c: row 'lrr 1.0, method cissl, dim 128': optim.lrr: unknown key, did you mean 'lr'?",
        ),
        (
            *("config.yaml", "    claims:", "      more: {better: CISL, than: SimCLR}"),
            "experiments.table1_contrastive: claim 'more': unknown row 'CISL', did you mean 'CISSL'?",
        ),
        (
            *("config.yaml", "      values:                   # method", "        CISSL2: {128: 1}"),
            "experiments.fig7c.published: unknown row 'CISSL2', did you mean 'CISSL'?",
        ),
        ("presets/tiny.yaml", "defaults:", "  dtaa: x", "defaults.dtaa: unknown key, did you mean 'data'?"),
        ("presets/paper.yaml", "experiments:", "  x: 3", "experiments.x: must be a mapping of keys to values, not 3"),
    ],
)
def test_the_line_of_a_mistake_is_named(folder, file, after, mistake, says):
    line = write_mistake(folder / file, after, mistake)
    assert blamed().startswith(f"{file}:{line}: {says}")


def test_of_several_lines_of_a_list_the_one_with_the_mistake_is_named(folder):
    line = write_mistake(folder / "config.yaml", "    probes:                     # cached", "      - {kind: svn}")
    assert re.match(rf"config\.yaml:{line}: experiments\.table_imagenet: row '.*': probes\.0: unknown kind", blamed())


def test_the_topmost_file_with_the_setting_is_blamed(folder):
    """Whatever lies below it, and also if only a preset cannot have it."""
    (folder / "mine.yaml").write_text("# mine\ndefaults:\n  optim: {lr: 0.001,\n          epochs: 0}\n")
    (folder / "other.yaml").write_text("defaults: {optim: {warmup_epochs: 2}}\n")
    assert blamed("mine.yaml", "other.yaml").startswith("mine.yaml:4: defaults.optim.epochs: must be greater than 0")
    assert blamed(folder / "mine.yaml").startswith("mine.yaml:4: ")
    (folder / "mine.yaml").write_text("patches:\n  aug: {optim: {batch_size: 100000}}\n")
    says = blamed("mine.yaml")
    assert re.match(
        r"mine\.yaml:2 \(preset \w+\): patches\.aug\.optim\.batch_size: 100000 exceeds the \d+ training", says
    )
    (folder / "mine.yaml").write_text("presets:\n  tiny:\n    defaults: {optim: {lr: -1}}\n")
    assert blamed("mine.yaml").startswith("mine.yaml:3: defaults.optim.lr: must be greater than 0, not -1")


def test_a_value_that_replaces_a_list_is_blamed_for_its_items(folder):
    """The list below it has an item of that number, too."""
    assert blamed(settings=["seeds=-3"]) == "--config: seeds.0: must be greater than or equal to 0, not -3"
    (folder / "mine.yaml").write_text("\nseeds: -3\n")
    assert blamed("mine.yaml").startswith("mine.yaml:2: seeds.0: must be")


def test_a_mistake_of_the_command_line_is_blamed_on_it(folder):
    says = "--config: execution.device: must be 'gpu', 'cpu' or 'auto', not 'gpuu'"
    assert blamed(settings=["execution={device: gpuu}"]) == says
    done = snakemake(folder, "-n", "tiny", "--config", "execution={device: gpuu}", check=False)
    assert done.stderr.strip().splitlines()[-1] == f"error: {says}"


def test_snakemake_blames_the_file_of_its_own_option(folder):
    (folder / "mine.yaml").write_text("seeds: [1]\n\ndefaults: {encoder: {dmi: 3}}\n")
    done = snakemake(folder, "-n", "tiny", "--configfile", folder / "mine.yaml", check=False)
    says = "mine.yaml:3: defaults.encoder.dmi: unknown key, did you mean 'dim'?"
    assert done.stderr.strip().splitlines()[-1] == f"error: {says}" == f"error: {blamed('mine.yaml')}"


def test_a_result_given_as_a_config_file_is_blamed(folder):
    """Snakemake takes every word after --configfile for one: targets come first."""
    result = folder / "results/reproduction.json"
    result.parent.mkdir()
    result.write_text('{"lines": []}')
    done = snakemake(folder, "-n", "--configfile", folder / "presets/tiny.yaml", result, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith("error: results/reproduction.json:1: lines: unknown key")


def test_a_missing_key_is_blamed_on_what_lacks_it(folder):
    line = write_mistake(folder / "config.yaml", "data:", "  mine: {kind: folder}")
    assert blamed() == f"config.yaml:{line}: data.mine.name: missing"


def test_null_in_an_overlay_removes_a_preset(folder):
    (folder / "mine.yaml").write_text("presets: {tiny: null, paper: null}\n")
    found = load("config.yaml", ["mine.yaml"])
    assert "results/tiny" not in found and "fig7b_paper" not in found["results"].rows
    assert "results/tiny" in load() and "fig7b_paper" in load()["results"].rows


@pytest.mark.parametrize(
    "text",
    ["a_1=3", "ab=3.5", "ab=true", "ab=False", "ab=010", "ab=1_000", "ab=", "ab=x", "ab=[1, x]", "ab={c: {d: 1e-3}}"],
)
def test_settings_are_read_as_snakemake_reads_them(text):
    assert setting(text) == parse_config([text])


@pytest.mark.parametrize("text", ["ab", "execution.device=cpu", "=3", "1a=3"])
def test_what_snakemake_cannot_read_is_one_line(text):
    with pytest.raises(ValueError):
        parse_config([text])
    with pytest.raises(UserError, match=rf"--config {re.escape(text)}: must be KEY=VALUE, as in"):
        setting(text)


def test_places_without_files_are_in_the_config():
    assert str(Place()) == str(Place(read_layers([PROJECT / "config.yaml"], {}))) == "config"
    assert str(Place(preset="tiny").at("a", 1).at("b")) == "config (preset tiny): a.1.b"
    assert str(Place().at("rows", "x", shown="row 'x'").at("a")) == "config: row 'x': a"
    [*_, last] = read_layers([PROJECT / "config.yaml"], {"a": 1})
    assert last.name == OPTION


def test_without_a_config_here_the_first_file_named_takes_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.yaml").write_text("seeds: [1, 2]")
    elsewhere = load("config.yaml", [PROJECT / "config.yaml", "more.yaml"])
    in_place = load(PROJECT / "config.yaml", ["more.yaml"])
    assert elsewhere == in_place
    assert planned(tmp_path, "results/fig7c.pdf", "--configfile", PROJECT / "config.yaml")["pretrain"] == 8


def test_without_any_config_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^no config\.yaml in .*: run this .* or add --configfile FOLDER/config\.yaml$"
    ):
        load()
