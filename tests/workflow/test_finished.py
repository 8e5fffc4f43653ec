"""What a finished workflow leaves, from config to PDF, and what a failing one leaves."""

import pandas as pd
import pytest
from project import snakemake
from small_workflow import edited, write


def test_every_target_is_made(finished):
    found = {path.name for path in (finished / "results/tiny").iterdir() if path.is_file()}
    assert found == {
        *(f"{figure}.{ending}" for figure in ("fig7b", "fig7c") for ending in ("pdf", "png", "csv")),
        *(f"table1_contrastive.{ending}" for ending in ("md", "tex", "html", "csv")),
        *(f"reproduction.{ending}" for ending in ("md", "json", "html")),
    }
    curves = sorted(path.name for path in (finished / "results/tiny/curves").glob("*.svg"))
    runs = sorted(path.name for path in (finished / "results/tiny/runs").iterdir())
    assert curves == [f"{run}-s1.svg" for run in runs]


def test_tidy_results_have_a_row_for_each_run_seed_and_probe(finished):
    table = pd.read_csv(finished / "results/tiny/fig7c.csv")
    assert list(table) == [
        *("row", "method", "family", "dim", "epochs", "batch_size", "strength", "blur", "encoder", "released", "data"),
        *("encoding", "probe", "grid", "seed", "log_loss", "kind", "setting", "weight_decay", "fraction", "n_labels"),
        *("n_test", "metric", "test_acc", "holdout_acc"),
    ]
    assert len(table) == 2 * 2  # dimensions x weight decays
    assert table["test_acc"].between(0, 1).all() and table["holdout_acc"].between(0, 1).all()
    assert sorted(table["dim"].unique()) == [16, 64]


def test_logs_are_found_by_rule_and_features_are_gone(finished):
    assert len(list((finished / "results/tiny/logs/pretrain").glob("*-s1.log"))) == 4
    features = sorted((finished / "results/tiny/runs").glob("*/s1/features/[!.]*"))
    assert len(features) == 4 and {path.suffix for path in features} == {".json"}, "what made them stays"
    assert not list((finished / "results").rglob("*.part"))
    assert "epoch 2/2" in next((finished / "results/tiny/logs/pretrain").glob("*.log")).read_text()


def test_a_failing_job_prints_one_line_and_leaves_nothing_half_written(tmp_path, config):
    absent = edited(config, ("data", "absent"), {"kind": "tinyimagenet", "archive": "nowhere.zip"})
    write(tmp_path, edited(absent, ("defaults", "data"), "absent"))
    done = snakemake(tmp_path, "results/tiny/fig7c.pdf", "--cores", "2", check=False)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith(
        "error: nowhere.zip: no such file: put tiny-imagenet-200.zip there"
    )
    assert "Traceback" not in done.stderr
    log, attempt = sorted((tmp_path / "results/tiny/logs/prepare").iterdir(), key=lambda path: len(path.name))
    assert attempt.read_text() == log.read_text()  # this name remains when the job starts again
    assert errors[0] in log.read_text()
    assert not [path for path in (tmp_path / "results/tiny/data").rglob("*.*") if path.suffix in (".npy", ".json")]


def test_without_a_gpu_the_paper_stops_at_once_and_names_the_setting(tmp_path, config):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    write(tmp_path, edited(config, ("execution", "device"), "gpu"))
    done = snakemake(tmp_path, "results/tiny/fig7c.pdf", "--cores", "1", check=False)
    assert "error: no GPU here" in done.stderr and "execution={device: cpu}" in done.stderr
