"""The frame of the benchmarks: what is written and shown, with made-up measurements. No time is measured here."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
from project import PROJECT

from issl.config.plan import plans
from issl.config.presets import merge, read_config

sys.path.insert(0, str(PROJECT))  # the benchmarks are not installed with the package

bench = importlib.import_module("benchmarks.__main__")
measure = importlib.import_module("benchmarks.measure")
Row = measure.Row
MODULES = sorted({module for module, _ in bench.BENCHMARKS.values()})


def row(name, **content):
    return Row(name, "images/s", "ratio >= 1", "a peer", **content)


def measured(name, ours=2.0):
    return row(name, ours=ours, peer=1.0, ratio=ours, reached=True, n=5, spread=0.01)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with made-up benchmarks, name -> rows or an error; gives its exit, output and records."""

    def call(*names, **benchmarks):
        def function(content):
            def measure_it(rounds):
                if isinstance(content, Exception):
                    raise content
                return content

            return measure_it

        functions = {name: function(content) for name, content in benchmarks.items()}
        monkeypatch.setitem(sys.modules, "benchmarks.made_up", SimpleNamespace(**functions))
        monkeypatch.setattr(bench, "BENCHMARKS", {name: ("made_up", name) for name in benchmarks})
        out = tmp_path / "results" / "bench.json"
        monkeypatch.setattr(sys, "argv", ["benchmarks", *names, "--out", str(out)])
        error = None
        try:
            bench.main()
        except SystemExit as stopped:
            error = stopped.code
        records = json.loads(out.read_text()) if out.exists() else []
        return SimpleNamespace(error=error, records=records, folder=out.parent, **capsys.readouterr()._asdict())

    return call


def names(records):
    return [record["name"] for record in records]


# --- what a measurement is -------------------------------------------------------------------------------------------


def test_contenders_alternate_and_the_first_round_is_left_out():
    taken = []

    def turn(name):
        def take():
            taken.append(name)
            return len(taken)

        return take

    assert measure.take_turns(turn("a"), turn("b"), rounds=3) == [[3, 5, 7], [4, 6, 8]]
    assert taken == ["a", "b"] * 4


def test_spread_is_the_quartile_range_in_parts_of_the_median():
    assert measure.spread([10, 20, 30, 40, 50]) == pytest.approx((40 - 20) / 30)
    assert measure.spread([1, 2]) == pytest.approx((1.75 - 1.25) / 1.5)
    assert measure.spread([7]) is None


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "ratio"), [("s", 2.0), ("images/s", 0.5)])
def test_the_ratio_is_larger_where_ours_is_better(unit, ratio):
    row = measure.compared(Row("one", unit, "", ""), [1.0, 2.0, 3.0], [4.0, 4.0, 5.0], 1.5, images=7)
    assert (row.ours, row.peer, row.ratio, row.n) == (2.0, 4.0, ratio, 3)
    assert row.reached is (unit == "s")
    assert row.details == {"peer_spread": 0.125, "images": 7}


def test_rows_are_written_and_shown(run):
    done = run(first=[measured("first")], second=[measured("second", ours=1234.5)])
    assert done.error is None
    assert names(done.records) == ["first", "second"]
    assert done.records[0]["ours"] == 2.0
    assert done.records[0]["machine"]["cores"] >= 1
    assert done.records[0]["versions"]["torch"]
    written = (done.folder / "bench.md").read_text()
    assert written in done.out
    assert "| first | images/s | 2 | 1 (a peer) | 2.00 | ratio >= 1 | yes | 5 | 1.0% |" in written.splitlines()
    assert "1,234" in written
    assert f"torch {done.records[0]['versions']['torch']}" in written
    assert sorted(path.name for path in done.folder.iterdir()) == ["bench.json", "bench.md"]  # nothing half-written
    assert done.err.splitlines() == ["first ...", "second ..."]


def test_rows_of_other_names_stay_and_keep_their_place(run):
    fakes = {name: [measured(name)] for name in ("first", "second", "third")}
    run(**fakes)
    done = run("second", **(fakes | {"second": [measured("second", ours=9.0)]}))
    assert names(done.records) == ["first", "second", "third"]
    assert [record["ours"] for record in done.records] == [2.0, 9.0, 2.0]
    assert done.err.splitlines() == ["second ..."]
    assert all(name in done.out for name in fakes)


def test_benchmarks_with_a_common_measurement_run_once(monkeypatch):
    monkeypatch.setattr(bench, "BENCHMARKS", {"a": ("m", "f"), "b": ("m", "f"), "c": ("m", "g")})
    assert bench.groups(["b", "a"]) == {("m", "f"): ["a", "b"]}


def test_an_unknown_name_is_one_line(run):
    done = run("frist", first=[measured("first")])
    assert done.error == "error: unknown benchmark 'frist', did you mean 'first'?"
    assert done.records == []


def test_a_failing_benchmark_fails_the_command_and_the_others_are_written(run):
    done = run(first=ValueError("out of luck"), second=[measured("second")])
    assert "first" in done.error
    assert "second" not in done.error
    assert "ValueError: out of luck" in done.err
    assert names(done.records) == ["second"]


def test_a_missing_module_fails_without_the_others(run, monkeypatch):
    monkeypatch.setattr(bench, "groups", lambda names: {("nowhere", "f"): ["lost"], ("made_up", "first"): ["first"]})
    done = run(first=[measured("first")])
    assert "lost" in done.error
    assert names(done.records) == ["first"]


def test_scaling_rows_are_plotted_and_a_failed_plot_is_reported(run, monkeypatch):
    curves = SimpleNamespace(plot=lambda records, path: path.write_text(f"{path.suffix} of {names(records)}"))
    monkeypatch.setitem(sys.modules, "benchmarks.curves", curves)
    rows = {"scaling_dim": [measured("scaling_dim")]}
    done = run(**rows)
    assert done.error is None
    for kind in (".pdf", ".png"):
        drawn = (done.folder / "bench_scaling").with_suffix(kind)
        assert drawn.read_text() == f"{kind} of ['scaling_dim']"
    del curves.plot
    done = run(**rows)
    assert "the plot of scaling" in done.error
    assert "| scaling_dim |" in done.out


def test_what_was_not_measured_shows_the_reason(run):
    done = run(first=[row("first", not_measured="no CUDA device")])
    assert done.error is None
    assert done.records[0]["ours"] is None
    assert "| first | images/s | not measured: no CUDA device | a peer |" in done.out


def test_a_foreign_file_is_not_overwritten(run):
    done = run(first=[measured("first")])
    out = done.folder / "bench.json"
    out.write_text('{"mine": 1}')
    done = run(first=[measured("first")])
    assert "bench.json: not a list of measurements" in done.error
    assert out.read_text() == '{"mine": 1}'


def test_rows_of_different_machines_are_kept_apart(run):
    here, there = measured("first").record(), measured("second").record()
    there["machine"] = there["machine"] | {"cpu": "another"}
    below = bench.table([here, there]).split("\n\n")[1:]
    assert below[0].startswith("first: ")
    assert below[1].startswith("second: another, ")


def test_a_missed_target_and_extra_seconds_are_marked():
    missed = Row("plan", "s", "<= 3 s more", "a peer", 5.0, 1.0, 0.2, False, 5, 0.0, {"seconds_more": 4.0})
    assert "| 0.20 | <= 3 s more: 4.0 s | **no** |" in bench.table([missed.record()])


# --- the benchmarks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_each_module_provides_the_rows_listed_by_the_command(module):
    listed = {name for name, (its_module, _) in bench.BENCHMARKS.items() if its_module == module}
    loaded = importlib.import_module(f"benchmarks.{module}")
    assert listed == set(loaded.NAMES)
    functions = {function for its_module, function in bench.BENCHMARKS.values() if its_module == module}
    assert all(callable(getattr(loaded, function)) for function in functions)


@pytest.mark.parametrize("runs", [1, 7])
def test_planning_is_measured_on_a_table_of_so_many_runs(runs):
    workflow = importlib.import_module("benchmarks.workflow")
    raw = merge(read_config(PROJECT / "config.yaml"), {"presets": {"several": workflow.many_runs(runs)}})
    plan = plans(raw)["results/several"]
    assert len(plan.runs) == len(plan.scores("table")) == runs


def test_every_curve_has_a_panel():
    labelled = importlib.import_module("benchmarks.curves").LABELS
    assert set(labelled) == {name for name in bench.BENCHMARKS if name.startswith("scaling_")}


def test_a_peer_that_cannot_be_installed_is_reported_as_not_measured(monkeypatch):
    peers = importlib.import_module("benchmarks.peers")
    augmentation = importlib.import_module("benchmarks.augmentation")
    said = "WARNING: retrying\nERROR: No matching distribution found for kornia==0.9.0"
    monkeypatch.setattr(peers, "installed", dict)
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=said))
    given = augmentation._beside_kornia(augmentation.KORNIA, "cpu", rounds=1)
    assert given.ours is None
    assert given.not_measured.endswith("No matching distribution found for kornia==0.9.0")


def test_preparing_without_the_archive_is_reported_as_not_measured(monkeypatch):
    preparing = importlib.import_module("benchmarks.preparing")
    monkeypatch.delenv(preparing.ARCHIVE, raising=False)
    assert preparing.ARCHIVE in preparing.images(rounds=1)[0].not_measured
