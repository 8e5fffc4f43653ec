"""What is kept of a replication: its files as they are, each run's record, and a README that adds them up."""

import importlib
import json
import sys

import pytest
from click.testing import CliRunner
from project import PROJECT

from issl.errors import UserError

sys.path.insert(0, str(PROJECT))  # the benchmarks are not installed with the package

replication = importlib.import_module("benchmarks.replication")


def record(run, seed, seconds, commit="0123456789abcdef", dirty=False):
    versions = {"python": "3.11", "torch": "2.15.0", "torchvision": None}
    return {
        "run": run,
        "spec": {},
        "seed": seed,
        "seconds": seconds,
        "device": "CPU, 1 threads",
        "precision": "bf16",
        "attempts": [{"versions": versions}],
        "git": {"commit": commit, "dirty": dirty},
    }


@pytest.fixture
def results(tmp_path):
    root = tmp_path / "results" / "mini"
    for run, seed, seconds in (("simclr", 2, 3600), ("simclr", 1, 1800), ("dissl", 1, 1800)):
        folder = root / "runs" / run / f"s{seed}"
        (folder / "probes" / "data").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(record(run, seed, seconds, dirty=run == "dissl")))
        (folder / "probes" / "data" / "linear-s1.json").write_text("{}")
    for name in ("reproduction.md", "fig7a.png", "fig7a.csv", "fig7a.pdf", "table1.tex"):
        (root / name).write_bytes(name.encode())
    return root


def keep(*arguments):
    return CliRunner().invoke(
        replication.keep, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False
    )


def test_the_results_and_the_record_of_each_run_are_kept(results, tmp_path):
    out = tmp_path / "docs"
    out.mkdir()
    for name in ("of_an_earlier_one.md", "runs.jsonl"):
        (out / name).touch()
    keep(results, "--out", out)
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "reproduction.md",
        "fig7a.png",
        "fig7a.csv",
        "runs.jsonl",
    }
    assert (out / "fig7a.png").read_bytes() == b"fig7a.png"
    records = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert [(each["run"], each["seed"]) for each in records] == [("dissl", 1), ("simclr", 1), ("simclr", 2)]


def test_the_readme_adds_up_runs_seeds_and_hours(results, tmp_path):
    keep(results, "--out", tmp_path / "docs")
    text = (tmp_path / "docs" / "README.md").read_text()
    assert "| runs | 3: 2 settings, seeds 1, 2 |" in text
    assert "| probe jobs | 3 |" in text
    assert "2.0 hours" in text
    assert "python 3.11, torch 2.15.0 |" in text, "a package that was not there has no version"
    assert "`01234567` with edits, `01234567` |" in text
    assert "![fig7a](fig7a.png)" in text


def test_results_that_are_not_finished_are_refused(results, tmp_path):
    (results / "reproduction.md").unlink()
    with pytest.raises(UserError, match="snakemake mini"):
        keep(results, "--out", tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_a_folder_of_something_else_is_not_replaced(results, tmp_path):
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("by hand")
    with pytest.raises(UserError, match="choose another --out"):
        keep(results, "--out", page.parent)
    assert page.read_text() == "by hand"
