"""What the real snakemake plans for every target and preset, before anything has run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import PROJECT, copy_config, planned, snakemake
from small_workflow import with_preset, write

from issl.config.plan import load
from issl.config.targets import refuse_unknown
from issl.errors import UserError


def jobs(runs, **last):
    return {"prepare": 1, "pretrain": runs, "featurize": runs, "probe": runs, "aggregate": 1} | last


TARGETS = {
    "table1_contrastive.md": jobs(5, tabulate=1),
    "table1_contrastive.tex": jobs(5, tabulate=1),
    "table1_contrastive.csv": jobs(5),
    "table1_distillation.md": jobs(6, tabulate=1),
    "table1_distillation.tex": jobs(6, tabulate=1),
    "table1_distillation.csv": jobs(6),
    "table2_mlp.md": jobs(2, tabulate=1),
    "table2_mlp.html": jobs(2, tabulate=1),
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

# The preset tiny has untrained encoders, one dimension less in figure 7c, and two seeds in one table.
OF_TINY = {
    "table1_contrastive.md": jobs(2 * 6, tabulate=1),
    "table1_distillation.md": jobs(7, tabulate=1),
    "table2_mlp.md": jobs(3, tabulate=1),
    "fig7a.pdf": jobs(3, plot=1),
    "fig7b.pdf": jobs(29, plot=1, probe=32),
    "fig7c.pdf": jobs(9, plot=1),
    "reproduction.md": jobs(29, probe=32, aggregate=6, compare=1),
    "curves": {"prepare": 1, "pretrain": 29 - 5, "curves": 1},  # untrained encoders have none
}


@pytest.mark.parametrize("root", ["results", pytest.param("results/small", marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", TARGETS)
def test_each_target_plans_its_own_runs_and_no_more(fresh, root, target):
    assert planned(fresh, f"{root}/{target}") == TARGETS[target]


@pytest.mark.parametrize("target", OF_TINY)
def test_each_target_of_the_tiny_preset_plans_its_own_runs_and_no_more(fresh, target):
    assert planned(fresh, f"results/tiny/{target}") == OF_TINY[target]


def of_weights(encodings, probes, data=1, **more):
    return {"prepare": data, "featurize": encodings, "probe": probes, **more, "aggregate": 1, "tabulate": 1}


ON_REQUEST = {
    "table_imagenet.md": of_weights(7, 14),  # half of the probes read images
    "table_transfer.md": of_weights(9, 18, data=9),
    "issue2_cifar10.md": of_weights(8, 16),
}


# Of the paper's scripts: pretrainings, and probe jobs beyond one for each of them.
OF_THE_PAPER = {
    "table1_contrastive_paper.md": jobs(8, tabulate=1),
    "table1_distillation_paper.md": jobs(8, tabulate=1),
    "table1_large_batch.md": jobs(10, tabulate=1, probe=20),
    "table2_paper.md": jobs(5, tabulate=1, probe=10),
    "fig7a_paper.pdf": jobs(4, plot=1),
    "fig7a_extended.pdf": jobs(4, plot=1),
    "fig7b_paper.pdf": jobs(17, plot=1),
    "fig7c_paper.pdf": jobs(16, plot=1),
}


# Of experiments/, with two to four probes: four methods are in the tables of the paper, and share their runs with them.
ADDED = {
    "results/baselines.md": jobs(15, tabulate=1, probe=4 * 15),
    "results/baselines_rank_me.pdf": jobs(15, plot=1),
    "results/baselines_wmse.md": jobs(8, tabulate=1, probe=2 * 8),
    "results/tiny/baselines.md": jobs(2 * 15, tabulate=1, probe=3 * 2 * 15),
}


@pytest.mark.parametrize("target", ADDED)
def test_each_result_of_other_methods_plans_its_own_jobs(fresh, target):
    assert planned(fresh, target) == ADDED[target]


def test_the_tables_of_other_methods_share_runs_with_those_of_the_paper(fresh):
    tables = ("results/baselines.md", "results/table1_contrastive.md", "results/table1_distillation.md")
    assert planned(fresh, *tables)["pretrain"] == 15 + 5 + 6 - 4


@pytest.mark.parametrize("target", OF_THE_PAPER)
def test_each_result_of_the_papers_scripts_plans_its_own_jobs(fresh, target):
    assert planned(fresh, f"results/{target}") == OF_THE_PAPER[target]


@pytest.mark.parametrize("target", ON_REQUEST)
def test_each_table_of_released_weights_plans_its_own_jobs_and_no_pretraining(fresh, target):
    assert planned(fresh, f"results/{target}") == ON_REQUEST[target]


def test_own_runs_are_pretrained_before_they_are_scored(fresh):
    assert planned(fresh, "results/imagenet/table_imagenet.md") == of_weights(7, 14, pretrain=7)


def test_tables_of_released_weights_share_their_common_jobs(fresh):
    assert planned(fresh, *(f"results/{target}" for target in ON_REQUEST)) == {
        **{"prepare": 10, "featurize": 23, "probe": 7 + 7 + 18 + 16 - 2},
        **{"aggregate": 3, "tabulate": 3},
    }


def test_a_run_is_pretrained_once_to_be_scored_on_several_data_sets(tmp_path):
    own = {
        "rows": {
            name: {"weights": "table1_contrastive/CISSL", "data": name} for name in ("synthetic", "cifar10", "dtd")
        },
        "probes": [{"weight_decay": [1e-5, 1e-6]}, {"kind": "svm"}],
        "table": {"caption": "CISSL elsewhere.", "columns": ["probe"]},
    }
    rows = {"table1_contrastive": {"seeds": None, "rows": {"untrained": None}}}
    write(tmp_path, with_preset("tiny", {"experiments": {"elsewhere": own} | rows}))
    target = "results/tiny/elsewhere.md"
    assert planned(tmp_path, target) == of_weights(3, 6, data=3, pretrain=1)
    both = planned(tmp_path, target, "results/tiny/table1_contrastive.md", "--config", "seeds=[1,2]")
    # Of the two seeds of five runs, those of CISSL are encoded on three data sets.
    assert both == {
        **{"prepare": 3, "pretrain": 10, "featurize": 10 + 2 * 2, "probe": 10 + 2 * 6},
        **{"aggregate": 2, "tabulate": 2},
    }


@pytest.mark.parametrize(
    ("preset", "runs", "probes"),
    [("all", 22, 23), ("small", 22, 23), ("tiny", 29, 32), ("mini", 3 * 28, 3 * 31)],  # tiny: two seeds in one table
)
def test_the_targets_of_a_preset_share_their_common_jobs(fresh, preset, runs, probes):
    assert planned(fresh, preset) == {
        **{"prepare": 1, "pretrain": runs, "featurize": runs, "probe": probes, "aggregate": 6},
        **{"plot": 3, "tabulate": 3, "compare": 1, "curves": 1, preset: 1},
    }


def test_three_seeds_triple_the_training_but_not_the_data(fresh):
    plan = planned(fresh, "--config", "seeds=[1,2,3]")
    assert (plan["prepare"], plan["pretrain"], plan["probe"], plan["aggregate"]) == (1, 66, 69, 6)


def test_existing_only_trains_nothing(fresh):
    assert planned(fresh, "results/reproduction.md", "--config", "existing_only=true") == {"compare": 1}


def test_the_commands_of_the_readme_plan_figure_7c(fresh):
    assert planned(PROJECT, "results/fig7c.pdf")["pretrain"] <= 8  # fewer where some of its runs are done
    assert planned(fresh, "-c", "all", "results/tiny/fig7c.pdf")["pretrain"] == 9
    profile = ["--profile", PROJECT / "profiles/slurm"]
    assert planned(fresh, "results/fig7c.pdf", *profile)["pretrain"] == 8


def test_a_dry_run_of_the_paper_needs_neither_gpu_nor_data(fresh):
    assert not (fresh / "data").exists()
    output = snakemake(fresh, "-n", "results/fig7c.pdf").stdout
    assert "gpu=1" in output
    assert not (fresh / "results").exists()


def test_a_mistake_in_the_config_is_one_line(tmp_path):
    before, after = (PROJECT / "config.yaml").read_text().split("  optim: {epochs: 300")
    (tmp_path / "config.yaml").write_text(f"{before}  optim: {{epocs: 300{after}")
    done = snakemake(tmp_path, "-n", check=False)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        f"error: config.yaml:{before.count(chr(10)) + 1}: defaults.optim.epocs: unknown key, did you mean 'epochs'?"
    )
    assert "Traceback" not in done.stderr


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


@pytest.mark.parametrize(
    ("command", "last", "instead"),
    [
        (
            ["--configfile", "mine.yaml", "tiny"],
            "No such file or directory: 'tiny'",
            ["tiny", "--configfile", "mine.yaml"],
        ),
        (["tiny", "--configfile", "nope.yaml"], "No such file or directory: 'nope.yaml'", None),
        (
            *(["tiny", "--config", "execution.device=cpu"], "must start with a valid identifier"),
            ["tiny", "--config", "execution={device: cpu}"],
        ),
        (
            *(["--config", "seeds=[1, 2]", "tiny"], "have to be defined as name=value pairs"),
            ["tiny", "--config", "seeds=[1, 2]"],
        ),
    ],
)
def test_errors_of_snakemakes_own_options_are_as_the_docs_say(tmp_path, command, last, instead):
    """Snakemake reads these before any of our code; if that changes, so should docs/extending.md."""
    copy_config(tmp_path)
    (tmp_path / "mine.yaml").write_text("seeds: [2]\n")
    page = (PROJECT / "docs/extending.md").read_text()
    command = [str(tmp_path / word) if word == "mine.yaml" else word for word in command]
    done = snakemake(tmp_path, "-n", *command, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" in said and last in said.strip().splitlines()[-1]
    assert f"`{last}`" in page
    if instead:
        assert planned(tmp_path, *(tmp_path / word if word == "mine.yaml" else word for word in instead))


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("results/fig7d.pdf", "did you mean 'results/fig7c.pdf'?"),
        ("results/tinyy/fig7c.pdf", "did you mean 'results/tiny/fig7c.pdf'?"),
        ("results/fig7c.svg", "did you mean 'results/fig7c.pdf'?"),
        ("fig7c", "did you mean 'results/fig7c.pdf'?"),
        ("results/fig9.pdf", "did you mean 'results/fig7c.pdf'?"),
        ("results/fig7c.md", "did you mean 'results/fig7c.pdf'?"),
        ("results/huge/fig7c.pdf", "did you mean 'results/fig7c.pdf'?"),
        ("tinny", "did you mean 'tiny'?"),
        ("tiny/fig7c.pdf", "did you mean 'results/tiny/fig7c.pdf'?"),
        ("results/tiny/table1.md", "did you mean 'results/"),
        ("qqqq", "README.md lists the results, and `snakemake --list` the rules"),
    ],
)
def test_a_misspelt_target_is_one_line_with_the_nearest_result(fresh, target, advice):
    done = snakemake(fresh, "-n", target, check=False)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: unknown result '{target}', {advice}") and "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--until", "--omit-from", "--forcerun", "--allowed-rules"])
def test_a_misspelt_rule_of_an_option_is_one_line_with_the_nearest_rule(fresh, option):
    """Snakemake would ignore some of them, and train what was meant to be left out."""
    done = snakemake(fresh, "-n", "results/fig7c.pdf", option, "pretrian", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {option} pretrian: unknown rule, did you mean 'pretrain'?" in done.stderr.splitlines()


@pytest.mark.parametrize(("option", "value"), [("--set-threads", "prob=3"), ("--set-resources", "prob:mem_mb=3")])
def test_resources_of_an_unknown_rule_are_warned_of(fresh, option, value):
    done = snakemake(fresh, "-n", "results/fig7c.pdf", option, value)
    assert f"{option} prob: unknown rule, did you mean 'probe'?" in done.stderr.splitlines()


def test_a_file_is_no_unknown_rule(fresh):
    assert planned(fresh, "results/fig7c.pdf", "--until", "results/fig7c.csv") == jobs(8)


def test_an_absolute_target_is_refused_with_the_path_from_here(fresh, monkeypatch):
    """Snakemake knows outputs by their relative path alone."""
    monkeypatch.chdir(fresh)
    with pytest.raises(UserError, match=r"give the path of a result from here: 'results/fig7c\.pdf'$"):
        refuse_unknown([str(Path.cwd() / "results/fig7c.pdf")], load("config.yaml"), [])


def test_every_target_that_a_plan_makes_is_known_in_any_spelling_of_its_path(fresh):
    plans = load(fresh / "config.yaml")
    for plan in plans.values():
        files = [file for name in plan.rows for file in (*plan.files(name), *plan.scores(name), *plan.histories(name))]
        targets = [*plan.targets(), *files]
        refuse_unknown([*targets, *(f"./{target}" for target in targets)], plans, [])


@pytest.mark.parametrize("knows", [True, False], ids=["called from a shell", "by a program"])
def test_with_another_directory_nothing_ends_without_a_word(fresh, knows):
    """A profile is named from the folder of the command, which Snakemake has left when it reads the Snakefile."""
    program = Path(sys.executable).with_name("snakemake")
    command = [
        program,
        "-s",
        PROJECT / "Snakefile",
        "--directory",
        fresh,
        "--profile",
        "slurm",
        "-n",
        "results/fig7d.pdf",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PWD"}
    environment |= {"SLURM_CONF": os.devnull} | ({"PWD": str(PROJECT)} if knows else {})
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: unknown result 'results/fig7d.pdf'" if knows else "error: Error: profile directory")
