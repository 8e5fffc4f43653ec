"""The workflow as a module of another one: its rules, its config with changes, and what a module cannot have."""

import pytest
import yaml
from project import PROJECT, planned, snakemake
from small_workflow import SMALL, small_config
from snakemake.path_modifier import PathModifier
from snakemake.sourcecache import GenericSourceFile

from issl.config.module import folder_of_module
from issl.config.plan import plans
from issl.errors import UserError

OUTER = """
configfile: "own.yaml"

module issl:
    snakefile: "{project}/Snakefile"
    config: config["issl"]
    {more}

use rule * from issl as issl_*

onstart:
    issl.onstart()

rule size:
    default_target: True
    input: "results/tiny/fig7c.csv", "results/tiny/fig7c.pdf"
    output: "size.txt"
    shell: "wc -l < {{input[0]}} > {{output}}"
"""


@pytest.fixture
def outer(tmp_path):
    """Makes the folder of another workflow, with its config for the module."""

    def make(more="", **config):
        (tmp_path / "Snakefile").write_text(OUTER.format(project=PROJECT, more=more))
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"issl": config}))
        return tmp_path

    return make


def words(folder, *more):
    return (*more, "-s", folder / "Snakefile")  # the last one counts


def test_another_workflow_plans_a_figure_with_the_papers_settings_and_its_seeds(outer):
    folder = outer(seeds=[1, 2])
    jobs = {"prepare": 1, "pretrain": 16, "featurize": 16, "probe": 16, "aggregate": 1, "plot": 1}
    assert planned(folder, *words(folder, "results/fig7c.pdf")) == {f"issl_{rule}": n for rule, n in jobs.items()}


def test_a_mistake_in_its_config_is_one_line(outer):
    folder = outer(seedz=[1])
    done = snakemake(folder, *words(folder, "-n"), check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("error: the module's config: seedz: unknown key, did you mean 'seeds'?\n")


def test_a_prefix_is_refused_in_one_line(outer):
    folder = outer('prefix: "sub"')
    done = snakemake(folder, *words(folder, "-n"), check=False)
    assert done.returncode == 1 and "error: module: prefix and replace_prefix cannot be used" in done.stderr


@pytest.mark.slow
def test_another_workflow_makes_a_figure(outer):
    folder = outer(presets={"tiny": SMALL})
    jobs = {"prepare": 1, "pretrain": 2, "featurize": 2, "probe": 2, "aggregate": 1, "plot": 1}
    expected = {f"issl_{rule}": n for rule, n in jobs.items()} | {"size": 1}
    assert planned(folder, *words(folder)) == expected
    snakemake(folder, *words(folder, "--cores", "2"))
    assert planned(folder, *words(folder)) == {}

    own = plans(small_config())["results/tiny"]
    made = {path.name for path in (folder / "results/tiny/runs").iterdir()}
    assert made == {row.name for row in own.rows["fig7c"]}  # as without the other workflow
    assert int((folder / "size.txt").read_text()) > 2

    again = ("--cores", "2", "--forcerun", "issl_pretrain")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("results/tiny/runs/*/s1/run.json")}
    snakemake(folder, *words(folder, *again))
    assert all(path.stat().st_mtime_ns > before[path] for path in before) and len(before) == 2


def test_a_source_that_is_no_folder_is_refused_in_one_line():
    source = GenericSourceFile("https://example.org/issl/Snakefile").get_basedir()
    with pytest.raises(UserError, match=r"^module: https://example\.org/issl is no folder here: clone the workflow"):
        folder_of_module(source, PathModifier(None, None, None))
