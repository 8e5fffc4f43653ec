"""What the real snakemake plans for every target and preset, before anything has run."""

import re

import pytest
import yaml
from project import PROJECT, planned, snakemake


def jobs(runs, **last):
    return {"prepare": 1, "pretrain": runs, "featurize": runs, "probe": runs, "aggregate": 1} | last


TARGETS = {
    "table1_contrastive.md": jobs(5, plot_table=1),
    "table1_contrastive.tex": jobs(5, plot_table=1),
    "table1_contrastive.csv": jobs(5),
    "table1_distillation.md": jobs(6, plot_table=1),
    "table1_distillation.tex": jobs(6, plot_table=1),
    "table1_distillation.csv": jobs(6),
    "table2_mlp.md": jobs(2, plot_table=1),
    "table2_mlp.html": jobs(2, plot_table=1),
    "fig7b.pdf": jobs(22, plot=1, probe=23),
    "reproduction.md": jobs(22, probe=23, aggregate=6, compare=1),
    "reproduction.json": jobs(22, probe=23, aggregate=6, compare=1),
    "curves": {"prepare": 1, "pretrain": 22, "curves": 1},
    "fig7a.pdf": jobs(3, plot=1),
    "fig7a.png": jobs(3, plot=1),
    "fig7a.csv": jobs(3),
    "fig7c.pdf": jobs(8, plot=1),
    "fig7c.png": jobs(8, plot=1),
    "fig7c.csv": jobs(8),
}


@pytest.mark.parametrize("root", ["results", pytest.param("results/small", marks=pytest.mark.slow), "results/tiny"])
@pytest.mark.parametrize("target", TARGETS)
def test_each_target_plans_its_own_runs_and_no_more(fresh, root, target):
    assert planned(fresh, f"{root}/{target}") == TARGETS[target]


def weights(encodings, probes, data=1, **more):
    last = {"aggregate_weights": 1, "plot_table": 1}
    return {"prepare": data, "featurize_weights": encodings, "probe_weights": probes} | more | last


EVALUATIONS = {
    "table_imagenet.md": weights(7, 7, probe_images=7),
    "table_transfer.md": weights(9, 18, data=9),
    "issue2_cifar10.md": weights(8, 16),
}


@pytest.mark.parametrize("target", EVALUATIONS)
def test_each_evaluation_plans_its_own_jobs_and_no_pretraining(fresh, target):
    assert planned(fresh, f"results/{target}") == EVALUATIONS[target]


def test_own_runs_are_pretrained_before_they_are_evaluated(fresh):
    assert planned(fresh, "results/imagenet/table_imagenet.md") == weights(7, 7, pretrain=7, probe_images=7)


def test_evaluations_share_their_common_jobs(fresh):
    assert planned(fresh, *(f"results/{target}" for target in EVALUATIONS)) == {
        **{"prepare": 10, "featurize_weights": 23, "probe_weights": 39, "probe_images": 7},
        **{"aggregate_weights": 3, "plot_table": 3},
    }


@pytest.mark.parametrize("preset", ["all", "small", "tiny"])
def test_the_targets_of_a_preset_share_their_common_jobs(fresh, preset):
    assert planned(fresh, preset) == {
        **{"prepare": 1, "pretrain": 22, "featurize": 22, "probe": 23, "aggregate": 6},
        **{"plot": 3, "plot_table": 3, "compare": 1, "curves": 1, preset: 1},
    }


def test_three_seeds_triple_the_training_but_not_the_data(fresh):
    plan = planned(fresh, "--config", "seeds=[1,2,3]")
    assert (plan["prepare"], plan["pretrain"], plan["probe"], plan["aggregate"]) == (1, 66, 69, 6)


def test_existing_only_trains_nothing(fresh):
    assert planned(fresh, "results/reproduction.md", "--config", "existing_only=true") == {"compare": 1}


def test_the_commands_of_the_readme_plan_figure_7c(fresh):
    assert planned(PROJECT, "results/fig7c.pdf")["pretrain"] <= 8  # fewer where some of its runs are done
    assert planned(fresh, "-c", "all", "results/tiny/fig7c.pdf")["pretrain"] == 8
    profile = ["--profile", PROJECT / "profiles/slurm"]
    assert planned(fresh, "results/fig7c.pdf", *profile)["pretrain"] == 8


def test_a_dry_run_of_the_paper_needs_neither_gpu_nor_data(fresh):
    assert not (fresh / "data").exists()
    output = snakemake(fresh, "-n", "results/fig7c.pdf").stdout
    assert "gpu=1" in output
    assert not (fresh / "results").exists()


def test_a_mistake_in_the_config_is_one_line(tmp_path):
    text = (PROJECT / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("  optim: {epochs: 300", "  optim: {epocs: 300"))
    done = snakemake(tmp_path, "-n", check=False)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        "error: config: experiments.table1_contrastive: row 'SimCLR': optim.epocs: unknown key, did you mean 'epochs'?"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["results/fig9.pdf", "results/fig7c.md", "results/huge/fig7c.pdf"])
def test_an_unknown_target_is_refused(fresh, target):
    done = snakemake(fresh, "-n", target, check=False)
    assert done.returncode != 0
    assert f"No rule to produce {target}" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["slurm", "local"])
def test_every_key_of_a_profile_has_a_comment(name):
    text = (PROJECT / f"profiles/{name}/config.yaml").read_text()
    for line in text.splitlines():
        if re.match(r"^[a-z]", line) and not line.startswith("default-resources"):
            assert "#" in line, f"{name}: {line}"
    assert yaml.safe_load(text)


def test_snakemake_finds_the_slurm_profile_under_its_short_name():
    assert (PROJECT / "slurm").resolve() == PROJECT / "profiles/slurm"
    assert not (PROJECT / "profiles/default").exists(), "snakemake would load it silently over --profile"
