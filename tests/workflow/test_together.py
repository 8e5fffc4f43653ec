"""Two workflows in one results tree at the same time, each in a clone of its own; jobs of one that share GPUs."""

import json
import os
import re
import subprocess
import sys

import pytest
from miniature import MINIATURE, without_references
from project import PROJECT, snakemake
from watching import logs, wait_for

from issl.config.plan import plans
from issl.config.presets import merge
from issl.jobs.locks import locked
from issl.spec.data import data_id
from issl.spec.run import run_id

pytestmark = pytest.mark.slow

TARGETS = ("results/tiny/table2_mlp.md", "results/tiny/table1_distillation.md")  # one run and the data in common
# Two rows of each table: the row DISSL is in both.
REMOVED = ("DINO (official recipe)", "+ dim.", "+ epochs", "+ aug.")
CLAIMS = (
    "DISSL is better than official DINO",
    "a larger dimension helps",
    "longer training helps",
    "stronger augmentations help",
)
TWO_ROWS = {"table1_distillation": {"rows": dict.fromkeys(REMOVED), "claims": dict.fromkeys(CLAIMS)}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A results tree that is a link in two clones, after a workflow in each of them at the same time.

    Both reach the data, and later the run in common, while another process has them.
    """
    root = tmp_path_factory.mktemp("elsewhere") / "results"
    root.mkdir()
    tiny = merge(MINIATURE, {"experiments": TWO_ROWS})
    config = merge(without_references(), {"presets": {"tiny": tiny}})
    plan = plans(config)["results/tiny"]
    common = plan.rows["table2_mlp"][0]
    with locked(root / f"tiny/{common.encoder(1)}/.run.lock"):
        with locked(root / f"tiny/data/{data_id(common.run.data)}/.meta.lock"):
            workflows = [start(tmp_path_factory.mktemp("clone"), config, root, target) for target in TARGETS]
            both_wait(workflows, lambda: logs(root / "tiny", "prepare"))
        both_wait(workflows, lambda: logs(root / "tiny", "pretrain", f"{run_id(common.run)}-*"))
    for workflow, clone in workflows:
        assert workflow.wait(400) == 0, (clone / "snakemake.log").read_text()[-3000:]
        assert (clone / "results").is_symlink()
    return root / "tiny"


def both_wait(workflows, said):
    def happened():
        assert all(workflow.poll() is None for workflow, _ in workflows), explain()
        return said().count(WAITS) == 2

    def explain():
        texts = ((clone / "snakemake.log").read_text()[-3000:] for _, clone in workflows)
        return "\n".join([said(), *texts])

    wait_for(happened, explain=explain)


WAITS, TAKES = "waiting: another process is making this", "made meanwhile by another process"


def start(clone, config, results, target):
    (clone / "config.yaml").write_text(json.dumps(config))
    (clone / "results").symlink_to(results)
    command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", target, "--notemp"]
    command += ["--profile", PROJECT / "profiles/local", "--cores", "1"]
    environment = {**os.environ, "PYTHONPATH": ""}
    with (clone / "snakemake.log").open("w") as log:
        return subprocess.Popen(map(str, command), cwd=clone, stdout=log, stderr=log, env=environment), clone


def test_two_workflows_in_one_tree_both_make_their_targets(shared):
    assert (shared / "table2_mlp.md").exists() and (shared / "table1_distillation.md").exists()
    assert not list(shared.rglob(".*.ckpt"))


def test_no_run_is_trained_twice(shared):
    runs = [path.name for path in (shared / "runs").iterdir()]
    assert len(runs) == 3  # two of each workflow, one in common
    said = [logs(shared, "pretrain", f"{run}-*") for run in runs]
    assert [text.count("epoch 1/") for text in said] == [1, 1, 1]
    assert sorted(text.count(TAKES) for text in said) == [0, 0, 1]


def test_the_data_are_prepared_once(shared):
    assert logs(shared, "prepare").count(TAKES) == 1


def test_the_group_can_read_and_write_what_is_made(shared):
    mask = os.umask(0)
    os.umask(mask)
    for path in shared.rglob("*"):
        if path.is_file() and path.suffix != ".lock" and not path.is_symlink():
            assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path


def test_no_link_in_a_shared_results_tree_is_broken(shared):
    done = subprocess.run(["find", "-L", str(shared), "-type", "l"], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_jobs_of_one_machine_compute_on_gpus_of_their_own(tmp_path):
    """Pretended GPUs: the names are given, and torch, which finds none, computes on the CPU."""
    config = merge(without_references(), {"presets": {"tiny": {"execution": {"device": "auto"}}}})
    config["presets"]["tiny"]["hardware"]["pretrain"]["gpus"] = 1
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    local = ("--profile", PROJECT / "profiles/local", "--cores", "2", "--resources", "gpu=2", "--until", "pretrain")
    snakemake(tmp_path, TARGETS[0], *local, CUDA_VISIBLE_DEVICES="3,5")
    texts = [path.read_text() for path in (tmp_path / "results/tiny/logs/pretrain").iterdir()]
    cards = [re.search(r"GPU (\d)$", text, re.MULTILINE)[1] for text in texts]
    assert sorted(cards) == ["3", "5"]
    begun, ended = zip(*((lines[0][:19], lines[-1][:19]) for lines in map(str.splitlines, texts)))
    assert max(begun) < min(ended)  # side by side
