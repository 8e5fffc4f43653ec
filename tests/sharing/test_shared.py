"""What plans and dry runs say of shared runs: a dry run asks nobody on the network."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from runs import finished_run

from issl.cli import issl
from issl.config import plan as catalog
from issl.planning.dryrun import total
from issl.sharing.push import push
from issl.sharing.shared import offer
from issl.spec.run import run_id


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


@pytest.mark.parametrize("text", ["shared=5", "shared={a: b}", "shared=[[a]]"])
def test_a_list_that_is_none_is_refused(text, specs):
    with pytest.raises(Exception, match="shared"):
        catalog.load(settings=[text])


def test_only_a_web_source_is_remembered(specs, published):
    offer(plans(str(published))["results/tiny"], ask=True)
    assert not Path("results").exists()
