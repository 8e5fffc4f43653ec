"""Tidy results of an experiment, and the selection of settings, which leaves one number per point."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from issl.config.display import Lines, Measure, Scatter, Selection, Table, point_name
from issl.errors import UserError
from issl.jobs.records import read_record

SELECTIONS = get_args(Selection)
MEASURES: tuple[Measure, ...] = get_args(Measure)
OF_SETTINGS = ("setting", "weight_decay", "test_acc", "holdout_acc")  # columns in which the settings of a point differ
SCORES = ("kind", "setting", "weight_decay", "fraction", "n_labels", "n_test", "metric", "test_acc", "holdout_acc")


TEXT = (
    *("row", "method", "family", "encoder", "data", "encoding", "probe", "grid"),
    *("kind", "setting", "metric"),
)
NUMBERS = (
    *("dim", "epochs", "batch_size", "strength", "blur", "seed", "log_loss"),
    *("weight_decay", "fraction", "n_labels", "n_test", "test_acc", "holdout_acc"),
    *MEASURES,
)
# For pandas: words stay words, so a row or a setting may be called None, 007 or 1e3.
WORDS = {
    "dtype": dict.fromkeys(TEXT, str),
    "keep_default_na": False,
    "na_values": {name: [""] for name in NUMBERS},
}


def aggregate(
    rows: Sequence[Mapping[str, Any]],
    scores: Sequence[Path],
    histories: Sequence[Path],
    records: Sequence[Path] = (),
) -> pd.DataFrame:
    """One row per (row of the experiment, seed, probe, setting, metric).

    `rows` are the plan's facts about each of `scores`, in the same order; `histories` are those of the runs trained
    here among them; `records` are those of the features of each, whose `MEASURES` become columns, or none. `log_loss`
    is for pairs of a clean and an augmented test image after the last epoch, and empty for methods without it, for
    released weights and for untrained encoders. Raises UserError if a score file lacks a metric, or if there are no
    rows.
    """
    if not rows:
        raise UserError("this experiment has no results yet; set existing_only to false to make them")
    tables, left, of_the_file = [], iter(histories), ("metrics", "n_settings", "trained_here")
    measures = [_measures(path) for path in records] or [{}] * len(rows)
    for row, path, measured in zip(rows, scores, measures, strict=True):
        log_loss = _log_loss(next(left)) if row["trained_here"] else float("nan")
        facts = {key: value for key, value in row.items() if key not in of_the_file}
        facts |= {"log_loss": log_loss} | measured
        table = _scores(path, row["metrics"], row["n_settings"])
        tables.append(pd.DataFrame([facts] * len(table)).join(table))
    return pd.concat(tables, ignore_index=True)


def _measures(path: Path) -> dict[str, float]:
    """What a record of features says; nothing if an older version wrote it, or the encoder has no views."""
    record = read_record(path)
    return {name: record.get(name, float("nan")) for name in MEASURES}


def _scores(path: Path, metrics: Sequence[str], n_settings: int) -> pd.DataFrame:
    """The rows of a score file with these metrics, ordered by metric."""
    table = read_scores(path)
    parts = [table[table["metric"] == metric] for metric in metrics]
    for metric, part in zip(metrics, parts):
        if part.empty:
            raise UserError(f"{path}: no {metric} accuracy; delete the file and run its probe again")
        if len(part) < n_settings:
            found = f"{len(part)} of at least {n_settings} settings"
            raise UserError(f"{path}: {metric} accuracy of {found}; delete the file and run its probe again")
    return pd.concat(parts, ignore_index=True)


def read_scores(path: Path) -> pd.DataFrame:
    """A score file. Raises UserError if it cannot be read or is incomplete."""
    table = _read(path, "delete it and run its probe again", **WORDS)
    if missing := [column for column in SCORES if column not in table]:
        raise UserError(f"{path}: lacks the column '{missing[0]}'; delete it and run its probe again")
    if table.empty or table["test_acc"].isna().any():
        raise UserError(f"{path}: no test accuracy; delete the file and run its probe again")
    if (twice := table.duplicated(["setting", "fraction", "metric"])).any():
        name = table["setting"][twice].iloc[0]
        raise UserError(f"{path}: two scores of '{name}'; delete the file and run its probe again")
    return table


def _read(path: Path, remedy: str, **options: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(path, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {remedy}") from None


def read_results(path: str | Path) -> pd.DataFrame:
    """Tidy results of `aggregate`."""
    return pd.read_csv(path, **WORDS)


def _log_loss(history: Path) -> float:
    remedy = "restore it, or delete it to train again"
    epochs = _read(history, remedy)
    if epochs.empty:
        raise UserError(f"{history}: no epochs; {remedy}")
    return epochs.iloc[-1].get("test_log_loss", float("nan"))


def selected(results: pd.DataFrame) -> pd.DataFrame:
    """One row per point and metric, with the setting selected in two ways.

    `test_selected`: the best test accuracy, as in the paper's code. `val_selected`: the test accuracy of the setting
    that is best on held-out training labels; the same number if there is only one setting. A setting without a held-out
    score can only be selected by the first. The first metric selects for all metrics. Raises UserError if several
    settings compete and none has a held-out score.
    """
    keys = [column for column in results if column not in (*OF_SETTINGS, "metric")]
    found = []
    for key, group in results.groupby(keys, sort=False, dropna=False):
        point = dict(zip(keys, key))
        first = group[group["metric"] == group["metric"].iloc[0]]
        chosen = first["setting"].iloc[first["test_acc"].argmax()], _val_selected(first, point)
        for metric, part in group.groupby("metric", sort=False):
            values = part.set_index("setting")["test_acc"]
            accuracies = {name: values[one] for name, one in zip(SELECTIONS, chosen)}
            found.append(point | {"metric": metric, "n_settings": len(part)} | accuracies)
    return pd.DataFrame(found)


def _val_selected(settings: pd.DataFrame, point: Mapping[str, Any]) -> str:
    if len(settings) == 1:
        return settings["setting"].item()
    held_out = settings.dropna(subset="holdout_acc")
    if held_out.empty:
        raise UserError(f"row '{point.get('row')}': held-out accuracy is missing; run its probe again")
    return held_out["setting"].iloc[held_out["holdout_acc"].argmax()]


def points(results: pd.DataFrame, display: Lines | Scatter | Table) -> pd.DataFrame:
    """The points of a figure or table, seed by seed: `selected` with the names of each point's `line` and `column`.

    Raises UserError if a scatter lacks its x, or no probe has the weight decay to show.
    """
    if isinstance(display, Scatter):
        results = _of_the_encoder_itself(results)
    if not isinstance(display, Table) and display.weight_decay is not None:
        results = results[results["weight_decay"] == display.weight_decay]
        if results.empty:
            raise UserError(f"no probe with weight decay {display.weight_decay} in these results")
    picked, (line, columns) = selected(results), display.axes
    if isinstance(display, Scatter):
        picked = picked[picked["metric"] == "top-1"]
    names = [(point_name(facts, (line,)), point_name(facts, columns)) for facts in picked.to_dict("records")]
    return picked.assign(line=[name for name, _ in names], column=[name for _, name in names])


def _of_the_encoder_itself(results: pd.DataFrame) -> pd.DataFrame:
    """Each encoder once: probes of its method's own family on all labels, as in the first experiment that has them."""
    own = results[(results["kind"] == results["family"]) & (results["fraction"] == 1)]
    for column in ("encoding", "grid"):
        own = own[own[column] == own.groupby("encoder")[column].transform("first")]
    return own


def over_seeds(picked: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, standard error and number of seeds of both accuracies for each value of `by`, in order of appearance.

    `n_test` is the number of test images. The standard error is missing for a single seed. Raises UserError if it would
    average results that differ in more than their seed.
    """
    by = list(by)
    if picked.duplicated([*by, "seed"]).any():
        twice = picked[picked.duplicated([*by, "seed"])].iloc[0]
        raise UserError(
            f"several results share one place in the figure or table: {dict(twice[by])}; show fewer of them"
        )
    groups = picked.groupby(by, sort=False, dropna=False)
    summary = groups[list(SELECTIONS)].agg(["mean", "sem"])
    summary.columns = [name if statistic == "mean" else f"{name}_sem" for name, statistic in summary.columns]
    return summary.assign(seeds=groups["seed"].nunique(), n_test=groups["n_test"].min()).reset_index()


def measured(picked: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """`mean` and standard error `sem` of a measure over seeds, by line; missing where no seed has it, or only one."""
    return picked.drop_duplicates(["line", "seed"]).groupby("line", sort=False)[measure].agg(["mean", "sem"])
