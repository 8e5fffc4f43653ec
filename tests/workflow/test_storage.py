"""The workflow with results behind a storage plugin: it plans the same jobs, and makes the same results."""

import base64
import json
import os
import shutil

import pytest
from project import planned, snakemake
from small_workflow import write

from issl.sharing.push import push

pytestmark = pytest.mark.slow
FS = ("--default-storage-provider", "fs")


@pytest.fixture(autouse=True)
def plugin(tmp_path_factory, monkeypatch):
    """The plugin `fs`, and the rsync that it calls, or a stand-in where there is none."""
    pytest.importorskip("snakemake_storage_plugin_fs")
    if shutil.which("rsync") is None:
        script = tmp_path_factory.mktemp("bin") / "rsync"
        script.write_text(
            '#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\nexec cp -rLT --preserve=timestamps "$1" "$2"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


def test_a_dry_run_plans_the_same_jobs(fresh):
    """Also of released weights, of probes that read images, and of the comparison."""
    for target in ("results/tiny/fig7c.pdf", "tiny", "all"):
        assert planned(fresh, target, *FS) == planned(fresh, target) != {}, target


def test_results_elsewhere_are_the_same_and_made_once(finished, config, tmp_path):
    write(tmp_path, config)
    stored, store = (*FS, "--default-storage-prefix", tmp_path / "store"), tmp_path / "store/results/tiny"
    snakemake(tmp_path, "tiny", "results/tiny/times.csv", "--cores", "2", *stored)
    for name in ("fig7c.csv", "fig7c.png", "table1_contrastive.csv", "table1_contrastive.md"):
        assert (store / name).read_bytes() == (finished / "results/tiny" / name).read_bytes()
    times = (store / "times.csv").read_text()
    assert times.count("\npretrain,runs/") == 4 and ".snakemake" not in times
    assert not (tmp_path / "results/tiny").exists()
    assert planned(tmp_path, "tiny", *stored) == {}


def test_finished_results_are_those_of_the_plugin_too(finished):
    assert planned(finished, "tiny", *FS) == {}


def test_published_runs_are_pulled_to_where_jobs_look(finished, config, tmp_path):
    push([run / "s1" for run in (finished / "results/tiny/runs").glob("cissl-*")], str(tmp_path / "published"))
    write(tmp_path, config | {"shared": [str(tmp_path / "published")]})
    stored = (*FS, "--default-storage-prefix", tmp_path / "store")
    snakemake(tmp_path, "results/tiny/fig7c.pdf", "--cores", "2", *stored)
    records = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("results/tiny/runs/*/s1/run.json")]
    assert len(records) == 2 and all("pulled" in record for record in records)


def test_snakemake_records_the_paths_of_results_as_before(finished):
    """A param that is missing in its records would make every finished probe of older results run again."""
    for score in (finished / "results/tiny/runs").glob("*/s1/probes/*/*.csv"):
        path = score.relative_to(finished)
        name = base64.b64encode(str(path).encode()).decode()
        record = json.loads((finished / ".snakemake/metadata" / name).read_text())
        encoder = path.parents[2]
        for recorded in (encoder, encoder / "features" / path.parent.name):
            assert repr(str(recorded)) in record["params"]
