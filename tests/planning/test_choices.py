"""What can be chosen is what config.yaml publishes and claims, each with the runs that it is about."""

import json
from pathlib import Path

import pandas as pd
import pytest
from project import PROJECT

from issl.config import plan as catalog
from issl.planning import choices
from issl.planning.choices import epochs_left, measured, offer, with_seeds


@pytest.fixture(scope="module")
def paper():
    return catalog.load(PROJECT / "config.yaml")["results"]


@pytest.fixture(autouse=True)
def no_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def offered(plan, *experiments, seeds=2):
    plan = with_seeds(plan, seeds)
    return offer(plan, experiments, epochs_left(plan))


def runs(plan, experiment, *labels, seeds=(1,)):
    rows = [row for row in plan.rows[experiment] if row.label in labels]
    assert len(rows) == len(labels)
    return {row.encoder(seed) for row in rows for seed in seeds}


def test_a_number_needs_its_own_row_once(paper):
    found = {number.name: number for number in offered(paper, "table1_contrastive").numbers}
    assert len(found) == 5
    assert found["table1_contrastive: + dim."].needs == runs(paper, "table1_contrastive", "+ dim.")


def test_every_point_of_a_line_of_a_figure_is_of_one_run(paper):
    """Figure 7a shows each run at four numbers of labels."""
    numbers = offered(paper, "fig7a").numbers
    assert len(numbers) == 12
    assert len({number.needs for number in numbers}) == 3


def test_a_trial_needs_both_sides_of_its_claim_with_its_first_seeds(paper):
    trials = [each for each in offered(paper, "table1_contrastive").trials if each.claim.endswith("than SimCLR")]
    assert [trial.seeds for trial in trials] == [1, 2]
    for trial in trials:
        seeds = range(1, trial.seeds + 1)
        assert trial.needs == runs(paper, "table1_contrastive", "SimCLR", "CISSL", seeds=seeds)
    assert trials[0].power < trials[1].power


def test_a_line_that_a_claim_only_mentions_needs_one_seed(paper):
    name, text = "table1_distillation", "table1_distillation: DISSL is better than official DINO"
    trial = next(each for each in offered(paper, name).trials if each.claim == text and each.seeds == 2)
    assert trial.needs == runs(paper, name, "DINO") | runs(paper, name, "DISSL", "DINO (official recipe)", seeds=(1, 2))


def test_a_claim_about_a_curve_needs_all_of_it(paper):
    trials = {each.claim: each for each in offered(paper, "fig7c", seeds=1).trials}
    linear, mlp = (
        {row.encoder(1) for row in paper.rows["fig7c"] if row.method == method} for method in ("cissl", "cissl_mlp")
    )
    assert trials["fig7c: accuracy rises with the dimension, linear"].needs == linear
    assert trials["fig7c: and saturates, MLP"].needs == mlp
    ends = {row.encoder(1) for row in paper.rows["fig7c"] if row.run.encoder.dim in (128, 8192)}
    assert trials["fig7c: an MLP probe needs less dimension"].needs == ends


def test_claims_about_a_rank_correlation_are_left_out(paper):
    assert offered(paper, "fig7b") == ((), (), ())


def test_results_share_their_runs(paper):
    both = offered(paper, "table1_distillation", "table2_mlp", seeds=1)
    assert len(both.jobs) == 7  # 6 + 2, of which DISSL is one
    first = offered(paper, "table1_contrastive", "fig7c", seeds=2).jobs
    assert [job.name[-2:] for job in first] == 12 * ["s1"] + 12 * ["s2"]
    assert {job.hours for job in first} == {300, 1000}


def test_a_weight_is_that_of_a_result(paper):
    config = paper.config.model_dump(exclude_unset=True, mode="json", by_alias=True)
    config["experiments"]["fig7c"]["weight"] = 3
    plan = catalog.plans(config)["results"]
    found = offered(plan, "fig7c", "fig7a")
    for each in (*found.numbers, *found.trials):
        name = each.name if each in found.numbers else each.claim
        assert each.weight == (3 if name.startswith("fig7c") else 1)
    assert plan.runs.keys() == paper.runs.keys()
    assert plan.comparison() == paper.comparison()  # which therefore is not made again


def test_presets_that_are_not_comparable_have_claims_but_no_numbers():
    tiny = catalog.load(PROJECT / "config.yaml")["results/tiny"]
    found = offered(tiny, "table1_contrastive")
    assert not found.numbers
    assert {trial.seeds: trial.power for trial in found.trials}[1] == 0  # one seed decides nothing there
    assert all(trial.power > 0 for trial in found.trials if trial.seeds == 2)


def test_further_seeds_are_the_smallest_others(paper):
    config = paper.config.model_copy(update={"seeds": (3, 0)})
    plan = catalog.Plan(paper.preset, paper.root, paper.roots, config, paper.rows)
    assert with_seeds(plan, 5).rows["fig7c"][0].seeds == (3, 0, 1, 2, 4)
    assert with_seeds(plan, 1).rows["fig7c"][0].seeds == (3,)


def test_what_is_left_of_a_run_follows_from_its_files(paper):
    row, left = paper.rows["table1_contrastive"][0], epochs_left(paper)
    assert left(row.name, 1) == 300
    note = Path("results", row.encoder(1), "checkpoints/saved.json")
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"step": 150, "steps": 600}))
    assert left(row.name, 1) == 225
    for name in ("encoder.safetensors", "history.csv", "run.json"):
        Path("results", row.encoder(1), name).touch()
    assert (left(row.name, 1), left(row.name, 2)) == (0, 300)


def test_measured_noise_replaces_the_assumed_one(paper, monkeypatch):
    """Where runs vary more, the same claim has less power."""
    noisy = pd.DataFrame(
        {"encoder": encoder, "seed": seed, "test_selected": value, "val_selected": value}
        for encoder in "abcdef"
        for seed, value in enumerate((0.40, 0.45, 0.50))
    ).assign(encoding="e", kind="linear", data="tinyimagenet", fraction=1.0, metric="top-1", epochs=1, n_test=10_000)
    calm = measured(paper)
    assert calm.points.empty
    before = offered(paper, "table1_contrastive").trials
    monkeypatch.setattr(choices, "measured", lambda plan: type(calm).of([noisy], True, calm.rules))
    after = offered(paper, "table1_contrastive").trials
    assert all(now.power < then.power for now, then in zip(after, before))
