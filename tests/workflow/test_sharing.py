"""A workflow whose config names sources pulls what they have, before anything trains, and trains the rest."""

import json
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler

import pytest
from project import planned, snakemake
from small_workflow import write
from web import serving

from issl.config import plan as catalog
from issl.sharing.push import push

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    """A folder to which three of the four runs of the finished workflow were pushed, and the ids of all."""
    folder = tmp_path_factory.mktemp("published") / "runs"
    runs = sorted((finished / "results/tiny/runs").iterdir())
    push([run / "s1" for run in runs if run.name.startswith("cissl")], str(folder))
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


def figure_of(folder):
    return (folder / "results/tiny/fig7c.csv").read_text(), (folder / "results/tiny/fig7c.png").read_bytes()


def trained(folder):
    """The runs that were trained in a folder's results: those that a training says it began."""
    logs = (folder / "results/tiny/logs/pretrain").glob("*-s1.log")
    return {path.name.removesuffix("-s1.log") for path in logs if "epoch 2/2" in path.read_text()}


def test_what_a_source_has_is_not_trained_and_the_figure_is_equal(finished, published, config, tmp_path):
    write(tmp_path, config | {"shared": [str(published)]})
    figure = "results/tiny/fig7c.pdf"
    dry = snakemake(tmp_path, "-n", figure)
    assert f"; to be pulled: 2 from {published}" in dry.stderr
    done = snakemake(tmp_path, figure, "--cores", "2")
    assert f"shared: pulled 2 from {published}; 0 to train here" in done.stderr
    assert trained(tmp_path) == set() and len(trained(finished)) == 4
    assert figure_of(tmp_path) == figure_of(finished)
    for record in (tmp_path / "results/tiny/runs").glob("*/s1/run.json"):
        assert json.loads(record.read_text())["pulled"]["from"] == str(published)
    assert planned(tmp_path, figure) == {}
    write(tmp_path, config)
    assert planned(tmp_path, figure) == {}, "without sources nothing is made again"


def test_the_rest_is_trained_here(finished, published, config, tmp_path):
    with serving(partial(Quiet, directory=published)) as server:
        write(tmp_path, config)
        target, shared = "results/tiny/table1_contrastive.md", f"shared={server.url}"
        dry = snakemake(tmp_path, "-n", target, "--config", shared)
        assert "not asked yet, `issl plan` does" in dry.stderr and not server.asked, "a dry run uses no network"
        done = snakemake(tmp_path, target, "--cores", "2", "--config", shared)
        assert f"shared: pulled 1 from {server.url}; 1 to train here" in done.stderr
        assert {run.split("-")[0] for run in trained(tmp_path)} == {"simclr"}
        plans = catalog.load(tmp_path / "config.yaml")
        wanted = {
            name for name in plans["results/tiny"].runs if name in {path.name for path in published.glob("runs/*")}
        }
        asked = {path.split("/")[2] for path in server.asked if path.startswith("/runs/")}
        assert asked < wanted, "only what is needed"


def test_a_source_that_is_down_stops_it_before_any_job_and_says_how_to_go_on(published, config, tmp_path):
    write(tmp_path, config)
    target = "results/tiny/fig7c.pdf"
    done = snakemake(tmp_path, target, "--cores", "2", "--config", "shared=http://127.0.0.1:9/runs", check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(errors) == 1
    assert errors[0].startswith("error: shared: http://127.0.0.1:9/runs/index.json: cannot be reached (")
    assert errors[0].endswith("to train here instead: --config 'shared=[]'")
    assert "Traceback" not in done.stderr and not (tmp_path / "results/tiny/data").exists()
    write(tmp_path, config | {"shared": ["http://127.0.0.1:9/runs"]})
    assert planned(tmp_path, target, "--config", "shared=[]")["pretrain"] == 2
    dry = snakemake(tmp_path, "-n", target)
    assert "http://127.0.0.1:9/runs: not asked yet" in dry.stderr


def test_a_damaged_file_stops_it_before_any_job(published, config, tmp_path):
    shutil.copytree(published, tmp_path / "damaged")
    for path in (tmp_path / "damaged/runs").glob("*/s1/encoder.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    write(tmp_path, config | {"shared": [str(tmp_path / "damaged")]})
    done = snakemake(tmp_path, "results/tiny/fig7c.pdf", "--cores", "2", check=False)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "encoder.safetensors: has not the SHA-256 of the index" in error and error.endswith("'shared=[]'")
    assert not (tmp_path / "results/tiny").exists()


def test_runs_of_other_images_are_not_taken(published, config, tmp_path):
    """A set of images with the same settings and another content, such as a folder that somebody edited."""
    write(tmp_path, config | {"shared": str(published)})
    plan = catalog.load(tmp_path / "config.yaml")["results/tiny"]
    (data,) = plan.data.values()
    *_, about = plan.arrays(data)
    snakemake(tmp_path, about, "--cores", "1")
    meta = json.loads((tmp_path / about).read_text())
    (tmp_path / about).write_text(json.dumps(meta | {"sha256": meta["sha256"] | {"images": "0" * 64}}))
    done = snakemake(tmp_path, "results/tiny/fig7c.pdf", "--cores", "2", "--until", "pretrain")
    assert done.stderr.count(f"of {published} was trained on other images") == 2
    assert "shared: pulled none; 2 to train here" in done.stderr
    assert len(trained(tmp_path)) == 2


def test_a_forced_training_trains(published, config, tmp_path):
    write(tmp_path, config | {"shared": str(published)})
    target = "results/tiny/fig7c.pdf"
    snakemake(tmp_path, target, "--cores", "2", "--until", "pretrain")
    assert trained(tmp_path) == set()
    snakemake(tmp_path, target, "--cores", "2", "--until", "pretrain", "--forcerun", "pretrain")
    assert len(trained(tmp_path)) == 2
