"""What `issl plan` says of runs: how they differ, how far they are, what they cost, what starts them."""

import json
import re

import pytest
from filelock import FileLock
from left_behind import finish, named, put, score

from issl.errors import UserError
from issl.planning import cost, listing, page, state
from issl.planning.asked import asked, by_default
from issl.planning.calibration import Estimate


def entry(plan, experiment, start, costs=None):
    (found,) = [each for each in listing.entries(plan, [experiment], costs) if each.name.startswith(start)]
    return found


# --- what was asked for ---


def test_a_target_is_an_experiment_a_path_a_preset_or_all(plans):
    paper, tiny = plans["results"], plans["results/tiny"]
    assert asked(plans, []) == asked(plans, ["all"]) == [(paper, by_default(paper))]
    assert asked(plans, ["tiny"]) == asked(plans, [], "tiny") == [(tiny, by_default(tiny))]
    assert asked(plans, ["fig7c"]) == asked(plans, ["results/fig7c.pdf"]) == [(paper, ["fig7c"])]
    assert asked(plans, ["fig7c", "results/fig7c.png", "fig7a"]) == [(paper, ["fig7c", "fig7a"])]
    assert asked(plans, ["fig7c", "./results/tiny//fig7c.pdf"]) == [(paper, ["fig7c"]), (tiny, ["fig7c"])]
    assert asked(plans, ["results/tiny/reproduction.md"]) == [(tiny, by_default(tiny))]


@pytest.mark.parametrize(
    ("targets", "preset", "message"),
    [
        (["fig7d"], "paper", "unknown result 'fig7d', did you mean 'fig7"),
        (["results/tinyy/fig7c.pdf"], "paper", "did you mean 'results/tiny/fig7c.pdf'"),
        ([], "tinny", "unknown preset 'tinny', did you mean 'tiny'"),
    ],
)
def test_an_unknown_target_is_refused_with_the_nearest(plans, targets, preset, message):
    with pytest.raises(UserError, match=re.escape(message)):
        asked(plans, targets, preset)


# --- how runs differ ---


def test_runs_are_told_apart_by_what_their_neighbours_have_otherwise(make_run):
    usual = make_run("cissl")
    runs = {
        "cissl-1": usual,
        "cissl-2": make_run("cissl", objective={"hidden": 48}),
        "cissl-3": make_run("cissl", optim={"epochs": 9}, objective={"out": 8}),
        "dissl-1": make_run("dissl"),  # the only one of its kind
    }
    found = listing.words(runs)
    assert found == {"cissl-1": "", "cissl-2": "hidden 48", "cissl-3": "out 8, epochs 9", "dissl-1": ""}


def test_every_two_runs_of_a_preset_are_told_apart(plans):
    for plan in plans.values():
        every = listing.words(plan.runs)
        told = [(run.partition("-")[0], words) for run, words in every.items()]
        assert len(set(told)) == len(told), plan.preset


# --- how far they are ---


def test_the_state_of_a_run_follows_its_files(tiny):
    run = named(tiny, "simclr-z64-e9")
    folder = f"{tiny.root}/runs/{run}/s1"
    assert entry(tiny, "table1_contrastive", "simclr").state == "missing"
    put(f"{folder}/checkpoints/saved.json", {"step": 46, "steps": 207})
    found = entry(tiny, "table1_contrastive", "simclr")
    assert found.state == "resumes at epoch 2 of 9 (1), missing (2)"
    assert found.epochs_left == pytest.approx(9 * (1 - 46 / 207) + 9)
    with FileLock(f"{folder}/.run.lock"):
        assert state.of_run(tiny, run, 1).runs
    assert not state.of_run(tiny, run, 1).runs
    finish(tiny, run)
    assert entry(tiny, "table1_contrastive", "simclr").state == "to be scored (1), missing (2)"
    score(tiny, "table1_contrastive", run)
    assert entry(tiny, "table1_contrastive", "simclr").states == {1: "done", 2: "missing"}


def test_a_run_names_every_result_that_it_serves(tiny):
    run = named(tiny, "cissl-z256-e15-23")
    assert entry(tiny, "fig7c", run).users == ("fig7c", "table1_contrastive")


def test_released_weights_are_only_scored(plans):
    (first, *_) = listing.entries(plans["results"], ["issue2_d2048"], None)
    assert (first.differs, first.epochs_left, first.state) == ("released weights", 0, "to be scored")


# --- what they cost ---


@pytest.fixture
def costs(plans, tiny):
    """Calibrated by one run of 207 steps with its probe."""
    run = named(tiny, "simclr-z64-e9")
    finish(tiny, run, seconds=20)
    score(tiny, "table1_contrastive", run, seconds=5)
    return cost.of(tiny, plans)


def test_what_is_done_costs_nothing_more(tiny, costs):
    found = entry(tiny, "table1_contrastive", "simclr", costs)
    assert found.left.median == pytest.approx(found.whole.median / 2)  # one of two seeds
    assert 0.7 * 31 < found.left.median < 1.5 * 31  # 21 s of training, and 5 s each of encoding and probing


def test_half_a_training_costs_half_its_steps(tiny, costs):
    run = named(tiny, "cissl-z64-e9")
    whole, start = costs.pretraining(run).median, costs.pretraining(run, 1.0).median
    assert costs.pretraining(run, 0.5).median == pytest.approx((whole + start) / 2)


def test_a_run_that_two_experiments_share_is_paid_once(tiny, costs):
    both = listing.entries(tiny, ["fig7c", "table1_contrastive"], costs)
    assert len({each.name for each in both}) == len(both)
    shared = named(tiny, "cissl-z256-e15-23")
    assert [each.name for each in both].count(shared) == 1


def test_hours_of_a_gpu_are_unknown_where_only_a_cpu_was_measured(plans, costs):
    assert cost.of(plans["results"], plans) is None
    assert cost.of(plans["results"], plans, "cpu").device == "CPU, 1 threads"
    with pytest.raises(UserError, match="--device H100: nothing was measured there, allowed: CPU, 1 threads"):
        cost.of(plans["results"], plans, "H100")


def test_times_that_nobody_knows_are_none(plans):
    for found in listing.entries(plans["results"], ["fig7c"], None):
        assert found.left is None and found.whole is None and found.epochs_left == 1000


def test_a_sum_of_jobs_is_late_if_all_are_late():
    assert cost.total([Estimate(10, 15), Estimate(5, 9)]) == Estimate(15, 24)
    assert cost.total([]) == Estimate(0, 0)


# --- as it is read ---


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((0, 0), "0 GPU-hours"),
        ((90, 120), "1.5 GPU-minutes (2 in one of ten cases)"),
        ((5400, 9000), "1.5 GPU-hours (2.5 in one of ten cases)"),
    ],
)
def test_a_time_is_in_minutes_or_hours(seconds, words):
    assert page.amount(Estimate(*seconds), "GPU") == words


def test_a_run_that_differs_in_much_is_described_in_short():
    assert page.shortened("") == ""
    assert page.shortened("dim 64, epochs 9, lr 1") == "dim 64, epochs 9, lr 1"
    assert page.shortened("dim 64, epochs 9, lr 1, out 3, blur True") == "dim 64, epochs 9, lr 1 and 2 more"


def test_the_last_line_says_what_is_left(plans, tiny, costs):
    runs = listing.entries(tiny, ["table1_contrastive"], costs)
    line = page.summary(tiny, runs, costs)
    assert line.startswith("6 runs, 12 with their seeds: 1 done; 4 runs serve several results. Left: ")
    assert re.search(r"[\d.]+ job-minutes \([\d.]+ in one of ten cases\) on CPU, 1 thread, \d+% is done$", line)
    paper = listing.entries(plans["results"], ["fig7c"], None)
    assert "Left: 8,000 epochs; hours are unknown" in page.summary(plans["results"], paper, None)


@pytest.mark.parametrize(
    ("experiments", "files", "settings", "command"),
    [
        (["fig7c"], [], [], "snakemake results/tiny/fig7c.pdf --cores all"),
        (["table2_mlp", "fig7a"], [], [], "snakemake results/tiny/table2_mlp.md results/tiny/fig7a.pdf --cores all"),
        (
            ["fig7c"],
            ["my file.yaml"],
            ["seeds=[1, 2]"],
            "snakemake results/tiny/fig7c.pdf --cores all --configfile 'my file.yaml' --config 'seeds=[1, 2]'",
        ),
    ],
)
def test_the_command_makes_what_was_asked_for(tiny, experiments, files, settings, command):
    assert page.start(tiny, experiments, files, settings) == command


def test_everything_is_started_by_its_name(plans):
    for root, target in (("results", "all --profile slurm"), ("results/tiny", "tiny --cores all")):
        assert page.start(plans[root], by_default(plans[root]), [], []) == f"snakemake {target}"


def test_a_path_is_started_by_itself(plans, tiny):
    """Not everything that it compares, which would be more."""
    comparison = "results/tiny/reproduction.md"
    assert page.start(tiny, by_default(tiny), [], [], [comparison]) == f"snakemake {comparison} --cores all"
    assert (
        page.start(tiny, ["fig7c"], [], [], ["results/tiny/fig7c.png"])
        == "snakemake results/tiny/fig7c.png --cores all"
    )
    both = page.start(tiny, ["fig7c", "table2_mlp"], [], [], ["results/tiny/fig7c.png", "table2_mlp"])
    assert both == "snakemake results/tiny/fig7c.pdf results/tiny/table2_mlp.md --cores all"


def test_outside_the_workflow_the_command_names_it(plans, tmp_path, monkeypatch):
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone/Snakefile").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = page.start(plans["results"], ["fig7c"], ["../clone/config.yaml"], [])
    assert command.split() == [
        *("snakemake", "results/fig7c.pdf", "-s", "../clone/Snakefile"),
        *("--profile", "../clone/profiles/slurm", "--configfile", "../clone/config.yaml"),
    ]


def test_what_needs_nothing_is_one_line(tiny):
    done = listing.Entry("results/tiny", "run", "", 9, {1: "done", 2: "done"}, ("fig7c",), 0.0, None, None, 0)
    assert page.complete([done]) and not page.complete([done._replace(states={1: "done", 2: "to be scored"})])
    line = page.nothing_left([done], "snakemake tiny")
    assert line.startswith("nothing is left: 1 run, 2 with their seeds") and line.endswith("snakemake tiny")


def test_the_json_has_every_number(tiny, costs):
    runs = listing.entries(tiny, ["table1_contrastive"], costs)
    found = json.loads(json.dumps(page.as_json(tiny, runs, costs, "snakemake")))
    assert found["device"] == "CPU, 1 threads" and found["start"] == "snakemake"
    (simclr,) = [each for each in found["runs"] if each["run"].startswith("simclr")]
    assert simclr["states"] == {"1": "done", "2": "missing"}
    assert simclr["seconds_left"]["median"] == pytest.approx(simclr["seconds"]["median"] / 2)
    assert simclr["seconds_left"]["ninety"] > simclr["seconds_left"]["median"]
