"""Tidy results of an experiment, and the choice among weight decays that turns them into one number a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from issl.config.display import EvaluationTable, Lines, Scatter, Table, word
from issl.errors import UserError
from issl.report import evaluations as evaluation

METRICS = ("published", "honest")


def aggregate(rows: Sequence[Mapping[str, Any]], scores: Sequence[Path], histories: Sequence[Path]) -> pd.DataFrame:
    """One row a (run, seed, probe): what `Plan.rows_for` says of the run, its log loss, and its score file.

    `log_loss` is that of pairs of a clean and an augmented test image after the last epoch; empty for a method that
    has none. Raises UserError for a score file that is missing a metric, and when there is nothing to aggregate.
    """
    if not rows:
        raise UserError("no result of this experiment is there yet; without existing_only it would be made")
    tables = []
    for row, path, history in zip(rows, scores, histories, strict=True):
        table = pd.read_csv(path)
        if "test_acc" not in table or table.empty or table["test_acc"].isna().any():
            raise UserError(f"{path}: no test accuracy; delete the file and run its probe again")
        facts = {**row, "log_loss": _log_loss(history)}
        tables.append(pd.DataFrame([facts] * len(table)).join(table))
    return pd.concat(tables, ignore_index=True)


def _log_loss(history: Path) -> float:
    last = pd.read_csv(history).iloc[-1]
    return last.get("test_log_loss", float("nan"))


def chosen(results: pd.DataFrame, weight_decay: float | None = None) -> pd.DataFrame:
    """One row a (run, seed, kind of probe, subset), with the weight decay chosen in two ways.

    `published`: the best test accuracy, as the paper's code chooses. `honest`: the test accuracy of the weight decay
    that is best on held-out training labels; the same number where there is nothing to choose. With `weight_decay`
    only the probes that have it count. Raises UserError when none has.
    """
    if weight_decay is not None:
        results = results[results["weight_decay"] == weight_decay]
        if results.empty:
            raise UserError(f"no probe with weight decay {weight_decay} in these results")
    runs = [column for column in results if column not in ("weight_decay", "test_acc", "holdout_acc")]
    return pd.DataFrame(
        [
            dict(zip(runs, key)) | {"published": group["test_acc"].max(), "honest": _honest(group)}
            for key, group in results.groupby(runs, sort=False, dropna=False)
        ]
    )


def points(results: pd.DataFrame, shown: Lines | Scatter | Table | EvaluationTable) -> pd.DataFrame:
    """What a figure or table shows, seed by seed: `chosen` with the name of each point's `line` and `column`.

    Raises UserError where a scatter lacks its x.
    """
    if isinstance(shown, EvaluationTable):
        return evaluation.points(results)
    if isinstance(shown, Scatter):
        results = _of_the_run_itself(results, shown.x)
    picked = chosen(results, shown.weight_decay if isinstance(shown, Lines) else None)
    line, column = shown.axes
    return picked.assign(line=picked[line].map(word), column=picked[column].map(word) if column else "")


def _of_the_run_itself(results: pd.DataFrame, x: str) -> pd.DataFrame:
    """Each run once: the probes of its method's own family on all labels, as the first experiment has them."""
    own = results[(results["probe"] == results["family"]) & (results["fraction"] == 1)]
    own = own[own["grid"] == own.groupby("run")["grid"].transform("first")]
    if own[x].isna().any():
        run = own.loc[own[x].isna(), "run"].iloc[0]
        raise UserError(f"run {run}: its history.csv has no test_{x} to show it against; does its objective log {x}?")
    return own


def _honest(group: pd.DataFrame) -> float:
    if len(group) == 1:
        return group["test_acc"].item()
    if group["holdout_acc"].isna().any():
        raise UserError(f"row '{group['row'].iloc[0]}': held-out accuracy is missing; run its probe again")
    return group["test_acc"].iloc[group["holdout_acc"].argmax()]


def over_seeds(choices: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, standard error and number of seeds of both accuracies for each value of `by`, in order of appearance.

    `n_test` is the number of test images.

    The standard error is missing for a single seed. Raises UserError when results that differ in more than their seed
    would be averaged.
    """
    by = list(by)
    if choices.duplicated([*by, "seed"]).any():
        twice = choices[choices.duplicated([*by, "seed"])].iloc[0]
        raise UserError(
            f"several results share one place in the figure or table: {dict(twice[by])}; show fewer of them"
        )
    groups = choices.groupby(by, sort=False, dropna=False)
    summary = groups[list(METRICS)].agg(["mean", "sem"])
    summary.columns = [metric if kind == "mean" else f"{metric}_sem" for metric, kind in summary.columns]
    return summary.assign(seeds=groups["seed"].nunique(), n_test=groups["n_test"].min()).reset_index()
