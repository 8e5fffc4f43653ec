"""The real snakemake: what it plans for every target and preset, what an edit plans again, and a whole small run."""

import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from playwright import sync_api as playwright

from issl.config import merge, read_yaml

PROJECT = Path(__file__).parent.parent


def snakemake(folder, *arguments, check=True):
    """Runs the project's workflow in a folder with a config.yaml of its own."""
    command = [sys.executable, "-m", "snakemake", "-s", PROJECT / "Snakefile", "--directory", folder, *arguments]
    environment = {**os.environ, "PYTHONPATH": "", "WANDB_MODE": "offline"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def planned(folder, *arguments):
    """Number of jobs that a dry run plans, by rule."""
    output = snakemake(folder, "-n", *arguments).stdout
    if "Nothing to be done" in output:
        return {}
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.DOTALL | re.MULTILINE)
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder with the project's own config and no results."""
    folder = tmp_path_factory.mktemp("fresh")
    shutil.copy(PROJECT / "config.yaml", folder)
    return folder


# --- what is planned -------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("root", ["results", "results/small", "results/tiny"])
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


def test_our_own_runs_are_pretrained_before_they_are_evaluated(fresh):
    assert planned(fresh, "results/imagenet/table_imagenet.md") == weights(7, 7, pretrain=7, probe_images=7)


def test_evaluations_together_share_what_is_the_same(fresh):
    assert planned(fresh, *(f"results/{target}" for target in EVALUATIONS)) == {
        **{"prepare": 10, "featurize_weights": 23, "probe_weights": 39, "probe_images": 7},
        **{"aggregate_weights": 3, "plot_table": 3},
    }


@pytest.mark.parametrize("preset", ["all", "small", "tiny"])
def test_all_targets_together_share_what_is_the_same(fresh, preset):
    assert planned(fresh, preset) == {
        **{"prepare": 1, "pretrain": 22, "featurize": 22, "probe": 23, "aggregate": 6},
        **{"plot": 3, "plot_table": 3, "compare": 1, "curves": 1, preset: 1},
    }


def test_three_seeds_triple_the_training_but_not_the_data(fresh):
    plan = planned(fresh, "--config", "seeds=[1,2,3]")
    assert (plan["prepare"], plan["pretrain"], plan["probe"], plan["aggregate"]) == (1, 66, 69, 6)


def test_showing_only_what_exists_trains_nothing(fresh):
    assert planned(fresh, "results/reproduction.md", "--config", "existing_only=true") == {"compare": 1}


def test_the_words_of_the_readme(fresh):
    assert planned(PROJECT, "results/fig7c.pdf")["pretrain"] <= 8
    assert planned(fresh, "-c", "all", "results/tiny/fig7c.pdf")["pretrain"] == 8
    profile = ["--profile", PROJECT / "profiles/slurm"]
    assert planned(fresh, "results/fig7c.pdf", *profile)["pretrain"] == 8


def test_a_dry_run_of_the_paper_needs_neither_gpu_nor_data(fresh):
    assert not (fresh / "data").exists()
    output = snakemake(fresh, "-n", "results/fig7c.pdf").stdout
    assert "gpu=1" in output
    assert not (fresh / "results").exists()


def test_a_mistake_in_the_config_is_one_line(fresh, tmp_path):
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


# --- what an edit plans again ----------------------------------------------------------------------------------------

NANO = {
    "data": {"synthetic": {"image_size": 16, "train_per_class": 8, "test_per_class": 4, "classes": 4}},
    "defaults": {"encoder": {"width": 8, "dim": 64, "bottleneck": 16}, "optim": {"epochs": 2, "batch_size": 16}},
    "patches": {"dim": {"encoder": {"dim": 64}}, "epochs": {"optim": {"epochs": 3}}},
    "methods": {name: {"objective": {"hidden": 16, "out": 8}} for name in ("simclr", "cissl")},
    "experiments": {
        "table1_contrastive": {
            "rows": {"+ epochs": None, "+ aug.": None, "+ dim.": None},
            "probes": [{"weight_decay": [1e-4, 1e-6], "epochs": 2}],
            "claims": {f"{what} helps": None for what in ("a larger dimension", "longer training")}
            | {"stronger augmentations help": None},
        },
        "table1_distillation": None,
        "table2_mlp": None,
        "fig7a": None,
        "fig7b": {"claims": {"a lower log loss goes with a higher accuracy, DISSL": None}},
        "fig7c": {
            "claims": {f"{what}, MLP": None for what in ("accuracy rises with the dimension", "and saturates")}
            | {"an MLP probe needs less dimension": None},
            "base": {"with": []},
            "grid": {"method": ["cissl"], "encoder.dim": [16, 64]},
            "probes": [{"weight_decay": [1e-4, 1e-6], "epochs": 2}],
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def config():
    """The project's config with a *tiny* of two rows and two points that trains in seconds."""
    return merge(read_yaml(PROJECT / "config.yaml"), {"presets": {"tiny": _keep_null(NANO)}})


class _Null:
    """Stands for a null that must survive the merge: a null in an overlay removes, here we want to write one."""


def _keep_null(value):
    if isinstance(value, dict):
        return {key: _keep_null(item) for key, item in value.items()}
    return _Null if value is None else value


def _write(folder, config):
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return None if value is _Null else value

    (folder / "config.yaml").write_text(yaml.safe_dump(plain(config), sort_keys=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
    """A finished run of every target of the small *tiny*."""
    folder = tmp_path_factory.mktemp("finished")
    _write(folder, config)
    snakemake(folder, "tiny", "--cores", "2")
    return folder


def edit(config, path, value):
    changed = copy.deepcopy(config)
    place = changed["presets"]["tiny"]
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return changed


def stages(n, **last):
    return {"pretrain": n, "featurize": n, "probe": n, **last, "tiny": 1}


# Every run stands in fig7b, in the comparison and among the training curves as well.
ALL_RESULTS = {"aggregate": 3, "plot": 2, "plot_table": 1, "compare": 1, "curves": 1}
ONLY_FIGURE = {"aggregate": 2, "plot": 2, "compare": 1}

EDITS = {
    "nothing": ((), None, {}),
    "a further dimension": (
        *(("experiments", "fig7c", "grid", "encoder.dim"), [16, 64, 128]),
        stages(1, **ONLY_FIGURE, curves=1),
    ),
    "another weight decay": (
        *(("experiments", "fig7c", "probes"), [{"weight_decay": [1e-4, 1e-5], "epochs": 2}]),
        {"featurize": 2, "probe": 2, **ONLY_FIGURE, "tiny": 1},
    ),
    "the style of a figure": (
        *(("experiments", "fig7c", "figure", "ylabel"), "Top-1"),
        {"plot": 1, "compare": 1, "tiny": 1},
    ),
    "the caption of a table": (
        *(("experiments", "table1_contrastive", "table", "caption"), "Another."),
        {"plot_table": 1, "compare": 1, "tiny": 1},
    ),
    "a published number": (
        *(("experiments", "table1_contrastive", "published", "values", "SimCLR"), 1.0),
        {"compare": 1, "tiny": 1},
    ),
    "a claim": (
        *(("experiments", "table1_contrastive", "claims", "no, SimCLR is"), {"better": "SimCLR", "than": "CISSL"}),
        {"compare": 1, "tiny": 1},
    ),
    "the level of a test": (("comparison",), {"significance": 0.01}, {"compare": 1, "tiny": 1}),
    "W&B": (("execution", "wandb"), {"mode": "offline"}, {}),
    "how often to look at the test split": (("execution", "validate_every"), 1, {}),
    "resources": (("hardware", "pretrain", "minutes"), 99, {}),
    "a second seed": (("seeds",), [1, 2], stages(4, **ALL_RESULTS)),
    "a setting of one method": (
        *(("methods", "simclr", "objective", "temperature"), 0.1),
        stages(1, **ALL_RESULTS | {"aggregate": 2, "plot": 1}),
    ),
    "a setting of all runs": (("defaults", "optim", "lr"), 0.001, stages(4, **ALL_RESULTS)),
    "the data": (("data", "synthetic", "seed"), 1, {"prepare": 1, **stages(4, **ALL_RESULTS)}),
    "an experiment that this preset lacks": (("patches", "aug"), {"augment": {"strength": 1.5}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_plans_what_depends_on_it_and_nothing_else(finished, config, name):
    path, value, expected = EDITS[name]
    _write(finished, edit(config, path, value) if path else config)
    assert planned(finished, "tiny") == expected
    _write(finished, config)
    assert planned(finished, "tiny") == {}, "changing back must cost nothing"


def test_everything_asked_for_is_there(finished):
    found = {path.name for path in (finished / "results/tiny").iterdir() if path.is_file()}
    assert found == {
        *(f"{figure}.{ending}" for figure in ("fig7b", "fig7c") for ending in ("pdf", "png", "csv")),
        *(f"table1_contrastive.{ending}" for ending in ("md", "tex", "html", "csv")),
        *(f"reproduction.{ending}" for ending in ("md", "json", "html")),
    }
    curves = sorted(path.name for path in (finished / "results/tiny/curves").glob("*.svg"))
    runs = sorted(path.name for path in (finished / "results/tiny/runs").iterdir())
    assert curves == [f"{run}-s1.svg" for run in runs]


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def test_the_report_is_one_file_that_a_browser_shows_without_network(finished, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is here")
    done = snakemake(finished, "tiny", "--report", tmp_path / "report.html")
    assert "ERROR/" not in done.stderr, "reStructuredText of a caption"
    errors, requests = [], []
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = launched.new_context(offline=True).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())

        def results(category):
            page.evaluate("app.setView({navbarMode: 'menu'})")
            page.get_by_role("link", name=category).click()
            return page.locator("#app tbody tr")

        def show(row):
            row.locator("td:last-child a").first.click()
            return page.frame_locator("#app iframe")

        rows = results("Reproduced beside published")
        body = show(rows.first).locator("body")
        assert body.locator("h1").inner_text() == "Reproduced beside published: preset tiny"
        assert "no number here is comparable" in body.inner_text()
        assert body.locator("td.absent").first.is_visible()
        assert "SimCLR" in show(results("Tables").first).locator("table").inner_text()
        for category, count in (("Figures", 2), ("Training curves", 4)):
            rows = results(category)
            assert rows.count() == count
            show(rows.first)
            page.wait_for_function("document.querySelector('#app .grow img')?.naturalWidth > 0")
        page.evaluate("app.setView({navbarMode: 'menu'})")
        page.get_by_role("link", name="Statistics").click()
        page.wait_for_selector("#runtimes canvas, #runtimes svg")
        launched.close()
    assert errors == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}


def test_tidy_results_have_a_row_for_each_run_seed_and_probe(finished):
    table = pd.read_csv(finished / "results/tiny/fig7c.csv")
    assert len(table) == 2 * 2  # dimensions x weight decays
    assert table["test_acc"].between(0, 1).all() and table["holdout_acc"].between(0, 1).all()
    assert sorted(table["dim"].unique()) == [16, 64]


# --- photographs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nano_imagenet(photographs):
    """The preset *imagenet* at reduced sizes: its seven rows of DISSL are trained alone, on three classes."""
    views = {
        "m2": [{"number": 2, "size": 32, "min_area": 0.08}],
        "m6": [{"number": 2, "size": 24, "min_area": 0.14}, {"number": 2, "size": 16, "min_area": 0.05}],
    }
    kept = {"dissl_resnet50_dNone_e100_m2", "dissl_resnet50_d8192_e100_m6"}
    every = read_yaml(PROJECT / "config.yaml")["evaluations"]["table_imagenet"]
    others = dict.fromkeys(set(every["rows"]) - kept)
    short = {
        "base": {"resize": 36, "crop": 32, "batch_size": 8},
        "rows": others,
        "published": {"values": others},
        "claims": dict.fromkeys(every["claims"]),
        "protocols": {
            "cached": {"probes": [{"lr": 0.1, "epochs": 5}, {"lr": 1.0, "epochs": 5}], "holdout": 0.25},
            "augmented": {"epochs": 1, "batch_size": 8, "holdout": 0.25},
        },
    }
    nano = {
        "data": {"imagenet": {"path": str(photographs), "image_size": 32}},
        "defaults": {
            "augment": {"views": views["m2"]},
            "encoder": {"arch": "resnet10", "width": 8, "dim": 64, "bottleneck": 8},
            "optim": {"epochs": 2, "batch_size": 16, "lr": 4.8, "warmup_epochs": 1},
        },
        "methods": {"dissl": {"objective": {"classes": 16, "hidden": 8, "bottleneck": 8}}},
        "patches": {
            "d8192": {"encoder": {"dim": 128}},
            "m6": {"augment": {"views": views["m6"]}},
            "m8": {"augment": {"views": views["m6"]}},
            **{f"e{epochs}": {"optim": {"epochs": 3}} for epochs in (400, 800)},
        },
        "experiments": {"imagenet_contrastive": None},
        "evaluations": {"table_imagenet": short},
        "hardware": {"pretrain": {"gpus": 0, "nodes": None, "threads": 1}, "prepare": {"threads": 1}},
        "execution": {"device": "cpu", "progress": False},
    }
    return merge(read_yaml(PROJECT / "config.yaml"), {"presets": {"imagenet": _keep_null(nano)}})


def test_imagenet_is_pretrained_alone_and_may_move(tmp_path, nano_imagenet, photographs):
    _write(tmp_path, nano_imagenet)
    assert planned(tmp_path, "imagenet") == {"prepare": 1, "pretrain": 7, "curves": 1, "imagenet": 1}
    snakemake(tmp_path, "imagenet", "--cores", "2")
    runs = sorted((tmp_path / "results/imagenet/runs").iterdir())
    assert len(runs) == 7
    for run in runs:
        assert {path.name for path in (run / "s1").iterdir() if not path.name.startswith(".")} == {
            *("encoder.safetensors", "history.csv", "run.json"),
        }
    assert len(list((tmp_path / "results/imagenet/curves").glob("*.svg"))) == 7
    assert planned(tmp_path, "imagenet") == {}

    shutil.copytree(photographs, tmp_path / "elsewhere")
    moved = copy.deepcopy(nano_imagenet)
    moved["presets"]["imagenet"]["data"]["imagenet"]["path"] = "elsewhere"
    _write(tmp_path, moved)
    assert planned(tmp_path, "imagenet") == {}
    moved["seeds"] = [1, 2]
    _write(tmp_path, moved)
    assert planned(tmp_path, "imagenet") == {"pretrain": 7, "curves": 1, "imagenet": 1}
    seed2 = f"results/imagenet/runs/{runs[0].name}/s2/run.json"
    snakemake(tmp_path, seed2, "--cores", "1")  # finds the photographs where they are now, with the list of before


def test_what_was_pretrained_on_photographs_is_evaluated_on_them(tmp_path, nano_imagenet):
    _write(tmp_path, nano_imagenet)
    table = "results/imagenet/table_imagenet.md"
    assert planned(tmp_path, table) == weights(2, 2, pretrain=2, probe_images=2)
    snakemake(tmp_path, table, "--cores", "2")
    assert planned(tmp_path, table) == {}
    tidy = pd.read_csv(tmp_path / "results/imagenet/table_imagenet.csv")
    runs = {path.name for path in (tmp_path / "results/imagenet/runs").iterdir()}
    assert {*tidy["weights"]} == {f"{run}-s1" for run in runs} and len(runs) == 2
    assert set(tidy["protocol"]) == {"cached", "augmented"} and tidy["test_acc"].between(0, 1).all()
    shown = (tmp_path / table).read_text()
    assert "66.9" in shown, "the published number stands beside it"
    about = sorted((tmp_path / "results/imagenet/weights").glob("*/*/features.json"))
    digests = {json.loads(path.read_text())["encoder"] for path in about}
    assert digests == {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "results/imagenet/runs").glob("*/s1/encoder.safetensors")
    }


def test_logs_are_found_by_rule_and_features_are_gone(finished):
    assert len(list((finished / "results/tiny/logs/pretrain").glob("*-s1.log"))) == 4
    assert not list(finished.rglob("features.npy"))
    assert "epoch 2/2" in next((finished / "results/tiny/logs/pretrain").glob("*.log")).read_text()


def test_a_failing_job_is_one_line_and_leaves_nothing_half_written(tmp_path, config):
    absent = edit(config, ("data", "absent"), {"kind": "tinyimagenet", "archive": "nowhere.zip"})
    _write(tmp_path, edit(absent, ("defaults", "data"), "absent"))
    done = snakemake(tmp_path, "results/tiny/fig7c.pdf", "--cores", "2", check=False)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith(
        "error: nowhere.zip: no such file: put tiny-imagenet-200.zip there"
    )
    assert "Traceback" not in done.stderr
    log, attempt = sorted((tmp_path / "results/tiny/logs/prepare").iterdir(), key=lambda path: len(path.name))
    assert attempt.read_text() == log.read_text()  # the name under which it stays when the job starts again
    assert errors[0] in log.read_text()
    assert not [path for path in (tmp_path / "results/tiny/data").rglob("*.*") if path.suffix in (".npy", ".json")]


def test_the_paper_without_a_gpu_stops_at_once_and_says_what_to_do(tmp_path, config):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    changed = edit(config, ("execution", "device"), "gpu")
    _write(tmp_path, changed)
    done = snakemake(tmp_path, "results/tiny/fig7c.pdf", "--cores", "2", check=False)
    assert "error: no GPU here" in done.stderr and "execution={device: cpu}" in done.stderr


def test_seeds_give_error_bars_and_share_nothing_but_data(finished, config):
    _write(finished, edit(config, ("seeds",), [1, 2]))
    snakemake(finished, "results/tiny/table1_contrastive.md", "--cores", "2")
    text = (finished / "results/tiny/table1_contrastive.md").read_text()
    assert " ± " in text and "| 2 |" in text
    assert len(list((finished / "results/tiny/data").iterdir())) == 1

    # What is there now: two seeds of the table, one of the figure.
    existing = ("results/tiny/reproduction.md", "--cores", "2", "--config", "existing_only=true")
    assert not planned(finished, *existing).keys() & {"pretrain", "probe"}
    snakemake(finished, *existing)
    report = json.loads((finished / "results/tiny/reproduction.json").read_text())
    tests = {claim["claim"]: claim["published_choice"]["tests"] for claim in report["claims"]}
    assert tests["CISSL is better than SimCLR"][0]["n"] == 2
    assert tests["accuracy rises with the dimension, linear"][0]["n"] == 1
    assert len(report["runs"]) == 6 and report["changed"] == [] and report["leftovers"] == []

    # Back to one seed: the others are results that no rule makes.
    _write(finished, config)
    snakemake(finished, "tiny", "--cores", "2")
    report = json.loads((finished / "results/tiny/reproduction.json").read_text())
    assert len(report["runs"]) == 4
    assert sorted(report["leftovers"]) == sorted(
        f"runs/{run['run']}/s2/" for run in report["runs"] if "table1" in run["experiments"][0]
    )


def test_the_workflow_passes_its_own_lint():
    done = snakemake(PROJECT, "--lint", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["slurm", "local"])
def test_profiles_are_commented_key_by_key(name):
    text = (PROJECT / f"profiles/{name}/config.yaml").read_text()
    for line in text.splitlines():
        if re.match(r"^[a-z]", line) and not line.startswith("default-resources"):
            assert "#" in line, f"{name}: {line}"
    assert yaml.safe_load(text)


def test_the_slurm_profile_is_found_under_its_short_name():
    assert (PROJECT / "slurm").resolve() == PROJECT / "profiles/slurm"
    assert not (PROJECT / "profiles/default").exists(), "snakemake would load it silently over --profile"
