"""What plans and dry runs say of shared runs: a dry run asks nobody on the network."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from runs import finished_run

from issl.cli import issl
from issl.config import plan as catalog
from issl.planning.calibration import Estimate
from issl.planning.dryrun import total
from issl.planning.listing import hours_left
from issl.sharing.push import push
from issl.sharing.shared import offer
from issl.spec.run import run_id

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4:DeprecationWarning")


def plans(*sources):
    return catalog.load(settings=[f"shared={json.dumps(sources)}"])


def listed(source):
    return CliRunner().invoke(issl, ["plan", "tiny", "--config", f"shared={source}"], standalone_mode=False)


def test_ids_and_settings_of_jobs_do_not_depend_on_sources(specs, published):
    without, given = catalog.load()["results/tiny"], plans(str(published))["results/tiny"]
    assert given.config.shared == (str(published),)
    assert [*without.runs] == [*given.runs]
    assert without.settings() == given.settings() and without.comparison() == given.comparison()
    assert all(without.place(data) == given.place(data) for data in without.data.values())


def test_the_first_source_of_a_run_counts(specs, run, published, tmp_path):
    other, name = str(tmp_path / "other"), run.parent.name
    push([run, finished_run(tmp_path / "more", specs[1], 2)], other)
    found = offer(plans(str(published), other)["results/tiny"], ask=False)
    assert found.runs == {(name, 1): str(published), (run_id(specs[1]), 2): other}


def test_a_dry_run_knows_of_the_network_what_was_last_asked(run, server):
    plan = plans(server.url)["results/tiny"]
    assert offer(plan, ask=False).unknown == {server.url: f"{server.url}: not asked yet, `issl plan` does"}
    assert server.asked == []
    assert offer(plan, ask=True).runs == {(run.parent.name, 1): server.url}
    assert server.asked == ["/index.json"]
    assert offer(plan, ask=False).runs == {(run.parent.name, 1): server.url}
    assert server.asked == ["/index.json"]


def test_a_dry_run_counts_pulled_trainings_without_their_epochs(specs, run, published):
    jobs = [("pretrain", {"root": "results/tiny", "run": name, "seed": "1"}) for name in plans()["results/tiny"].runs]
    epochs = sum(spec.epochs for spec in specs)
    assert total(jobs, plans()).startswith(f"{len(specs)} pretrain: {epochs:,} epochs")
    words = total(jobs, plans(str(published)))
    assert words.startswith(f"{len(specs)} pretrain: {epochs - specs[0].epochs:,} epochs")
    assert words.endswith(f"; to be pulled: 1 from {published}")
    assert "nowhere: no such folder" in total(jobs, plans("nowhere"))


def test_a_plan_shows_what_will_be_pulled(specs, run, published):
    output = listed(published).output
    (row,) = [line for line in output.splitlines() if run.parent.name in line]
    assert "to be pulled (1), missing (2)" in row
    assert row.split()[-1] == str(specs[0].epochs), "those of seed 2"
    assert "0 done, 1 to be pulled;" in output


def test_a_plan_goes_on_without_a_source_that_is_down(specs):
    done = listed("http://127.0.0.1:9/runs")
    assert done.exit_code == 0 and "shared: http://127.0.0.1:9/runs/index.json: cannot be reached" in done.output
    assert "to be pulled" not in done.output


def called(*arguments):
    return CliRunner().invoke(issl, [*map(str, arguments)], standalone_mode=False, catch_exceptions=False)


def budget(*arguments):
    words = (
        "plan",
        "--preset",
        "tiny",
        "table1_contrastive",
        "--budget",
        "100000epochs",
        "--seeds-up-to",
        "2",
        "--json",
    )
    return json.loads(called(*words, *arguments).stdout)


def test_what_will_be_pulled_costs_no_budget(specs, run, published):
    without, given = budget(), budget("--config", f"shared={published}")
    job = f"runs/{run.parent.name}/s1"
    assert given["cost"] == without["cost"] - specs[0].epochs
    assert (without["pulled"], given["pulled"]) == ([], [job])
    assert job not in {f"runs/{each['run']}/s{each['seed']}" for each in given["trainings"]}
    assert given["numbers"] == without["numbers"] and given["claims"] == without["claims"]
    assert f"results/tiny/{job}/probes" in given["commands"][0] and f"shared={published}" in given["commands"][0]


def test_a_budget_in_words_counts_what_will_be_pulled(specs, run, published):
    words = ("plan", "--preset", "tiny", "table1_contrastive", "--budget", "100000epochs", "--config")
    assert " trainings and 1 to be pulled, " in called(*words, f"shared={published}").output
    shutil.copytree(run, Path("results/tiny/runs", run.parent.name, "s1"))
    assert "to be pulled" not in called(*words, f"shared={published}").output, "it is here"


def test_a_budget_without_a_source_that_is_down(specs):
    words = ("plan", "--preset", "tiny", "--budget", "100000epochs", "--config", "shared=http://127.0.0.1:9/runs")
    assert "shared: http://127.0.0.1:9/runs/index.json: cannot be reached" in called(*words).stderr


def test_hours_of_what_will_be_pulled_are_those_of_its_probes(specs, run, published):
    plan, name = plans(str(published))["results/tiny"], run.parent.name
    pulled = offer(plan, ask=False).runs

    class Costs(NamedTuple):
        plan: catalog.Plan

        def pretraining(self, run, done):
            return Estimate(3600.0, 0.0)

        def featurizing(self, encoder, encoding):
            return Estimate(360.0, 0.0)

        def probing(self, encoder, encoding, grid):
            return Estimate(36.0, 0.0)

    left = hours_left(plan, ["table1_contrastive"], Costs(plan), pulled)
    assert left(name, 1) == pytest.approx(0.11) and left(name, 2) > 1


def test_status_tells_what_will_be_pulled_from_what_waits_for_training(specs, run, published):
    Path("results/tiny/runs").mkdir(parents=True)
    shared = ("--config", f"shared={published}")
    without, given = (called("status", "tiny", *more).output for more in ((), shared))
    number = int(re.search(r"trainings: (\d+) not started", without)[1])
    assert f"trainings: 1 to be pulled, {number - 1} not started" in given and run.parent.name not in given
    (row,) = [
        line for line in called("status", "tiny", "--all", *shared).output.splitlines() if "to be pulled   " in line
    ]
    assert run.parent.name in row
    log = Path(f"results/tiny/logs/pretrain/{run.parent.name}-s1.log")
    log.parent.mkdir(parents=True)
    log.write_text("error: the disk is full\n")
    assert "failed: the disk is full" in called("status", "tiny", *shared).output


def test_status_uses_no_network(run, server):
    output = called("status", "tiny", "--config", f"shared={server.url}").output
    assert output.endswith(f"shared: {server.url}: not asked yet, `issl plan` does\n") and server.asked == []


@pytest.mark.parametrize("text", ["shared=5", "shared={a: b}", "shared=[[a]]"])
def test_a_list_that_is_none_is_refused(text, specs):
    with pytest.raises(Exception, match="shared"):
        catalog.load(settings=[text])


def test_only_a_web_source_is_remembered(specs, published):
    offer(plans(str(published))["results/tiny"], ask=True)
    assert not Path("results").exists()
