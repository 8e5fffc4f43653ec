"""The last line of a dry run, and the minutes that jobs request of a cluster."""

import re

import pytest
from left_behind import finish, named, put, score

from issl.config import resources
from issl.config.plan import load
from issl.planning import cost, dryrun, runtime
from issl.planning.calibration import Estimate


def jobs(plan, experiment):
    """The jobs of an experiment as Snakemake has them: the name of a rule, and wildcards."""
    for row, probe, seed in plan.scored(experiment):
        ids = {"root": plan.root, "encoder": row.encoder(seed), "encoding": row.encoding_id}
        yield "pretrain", {"root": plan.root, "run": row.name, "seed": str(seed)}
        yield "featurize", ids
        grid = row.score(probe, seed).rpartition("/")[2].partition("-s")[0]
        yield "probe", ids | {"grid": grid, "seed": str(seed)}
    yield "plot", {"root": plan.root, "figure": experiment}


@pytest.fixture
def measured(tiny):
    """One training and its probe were measured."""
    run = named(tiny, "simclr-z64-e9")
    finish(tiny, run, seconds=20, whole=25)
    score(tiny, "table1_contrastive", run)
    return run


def test_the_total_is_the_sum_of_the_jobs(plans, tiny, measured):
    costs = cost.of(tiny, plans)
    every = [(rule, ids) for rule, ids in jobs(tiny, "table1_contrastive") if rule != "plot"]
    minutes = sum(costs.of_job(rule, ids).median for rule, ids in every) / 60
    line = dryrun.total(jobs(tiny, "table1_contrastive"), plans)
    counts, _, time = line.partition(": ")
    assert counts == "12 pretrain, 12 featurize, 12 probe"
    assert float(re.match(r"([\d.]+) job-minutes", time)[1]) == pytest.approx(minutes, rel=0.01)


def test_jobs_of_a_kind_that_was_not_measured_are_counted(plans, measured):
    """Figure 7c scores CISSL-MLP, of three dimensions, with MLPs; only linear probes were measured."""
    assert dryrun.total(jobs(plans["results/tiny"], "fig7c"), plans).endswith(
        ", without 3 jobs of which none was measured"
    )


def test_without_a_measured_gpu_the_total_is_in_epochs(plans, measured):
    line = dryrun.total(jobs(plans["results"], "fig7c"), plans)
    assert line.startswith("8 pretrain, 8 featurize, 8 probe: 8,000 epochs; nothing was measured on such a device")


def test_what_a_checkpoint_has_is_not_paid_again(plans, tiny, measured):
    run = named(tiny, "cissl-z256-e15-23")
    before = dryrun._estimate(cost.of(tiny, plans), "pretrain", {"run": run, "seed": "1"})
    put(f"{tiny.root}/runs/{run}/s1/checkpoints/saved.json", {"step": 172, "steps": 345})
    after = dryrun._estimate(cost.of(tiny, plans), "pretrain", {"run": run, "seed": "1"})
    assert after.median < 0.8 * before.median


def test_nothing_slow_is_said_to_be_nothing(plans):
    assert dryrun.total([("plot", {"root": "results"})], plans) == "nothing to pretrain, featurize or probe"


# --- minutes ---


def test_minutes_are_those_of_the_config_where_no_device_is_named(plans, tiny, measured):
    minutes = runtime.requests(plans)
    for rule, ids in jobs(tiny, "fig7c"):
        if rule == "pretrain":
            assert minutes(tiny, rule, ids) == resources.pretraining_minutes(tiny, ids["run"])
        elif rule == "probe":
            assert minutes(tiny, rule, ids) == tiny.config.hardware.probe.minutes


def test_minutes_are_measured_where_a_device_is_named(measured, monkeypatch):
    monkeypatch.setattr(cost.Costs, "of_job", lambda self, rule, ids: Estimate(3000.0, 3600.0))
    plans = load(settings=["hardware={device: CPU, margin: 2}"])
    (ids, *_) = (ids for rule, ids in jobs(plans["results/tiny"], "fig7c") if rule == "pretrain")
    assert runtime.requests(plans)(plans["results/tiny"], "pretrain", ids) == 120


def test_a_device_that_nothing_was_measured_on_changes_nothing(measured):
    plans = load(settings=["hardware={device: H100}"])
    paper, run = plans["results"], named(plans["results"], "simclr-z512-e300")
    found = runtime.requests(plans)(paper, "pretrain", {"run": run, "seed": "1"})
    assert found == resources.pretraining_minutes(paper, run)


def test_a_short_job_still_gets_ten_minutes(measured):
    plans = load(settings=["hardware={device: CPU}"])
    ids = {"run": measured, "seed": "2"}
    assert runtime.requests(plans)(plans["results/tiny"], "pretrain", ids) == runtime.SHORTEST
