"""Tidy results of an evaluation, and the choice among settings that turns them into one number a row and protocol."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from issl.errors import UserError
from issl.spec.protocol import METRICS, column

KEYS = ["row", "seed", "protocol"]


def aggregate(rows: Sequence[Mapping[str, Any]], scores: Sequence[Path]) -> pd.DataFrame:
    """One row a (row of the table, seed, protocol, setting, metric), from what the plan says of each score file.

    The first metric of a row is the one that settings are chosen by. Raises UserError for a score file that lacks a
    metric, and when there is nothing to aggregate.
    """
    if not rows:
        raise UserError("no result of this evaluation is there yet; without existing_only it would be made")
    return pd.DataFrame([line for row, path in zip(rows, scores, strict=True) for line in _lines(row, path)])


def _lines(row: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    table = pd.read_csv(path)
    facts = {key: value for key, value in row.items() if key != "metrics"}
    for metric in row["metrics"]:
        test, holdout = (f"{split}_{METRICS[metric]}" for split in ("test", "holdout"))
        if table.empty or test not in table or holdout not in table or table[test].isna().any():
            raise UserError(f"{path}: no {metric} accuracy; delete the file and run its probe again")
        for score in table.to_dict("records"):
            kept = {key: score[key] for key in ("setting", "n_train", "n_test")}
            yield facts | kept | {"metric": metric, "test_acc": score[test], "holdout_acc": score[holdout]}


def points(results: pd.DataFrame) -> pd.DataFrame:
    """What a table shows, seed by seed: `line` and `column` of each point, and both accuracies.

    `published` is that of the setting with the best test score, `honest` the test score of the setting that is best on
    held-out training images; both are chosen by the first metric, and the others follow. A setting without a held-out
    score was chosen by nobody, and only `published` can fall on it. Raises UserError where none has one, and there is
    a choice.
    """
    several = results.groupby("row")["metric"].nunique().max() > 1
    found = []
    for (line, seed, protocol), part in results.groupby(KEYS, sort=False):
        first = part[part["metric"] == part["metric"].iloc[0]].set_index("setting")
        chosen = {"published": first["test_acc"].idxmax(), "honest": _honest(first, f"{line}, {protocol}")}
        for metric, of in part.groupby("metric", sort=False):
            values = of.set_index("setting")["test_acc"]
            found.append(
                {"line": line, "column": column(protocol, metric, several), "seed": seed}
                | {"run": of["weights"].iloc[0], "n_test": of["n_test"].iloc[0]}
                | {name: values[setting] for name, setting in chosen.items()}
            )
    return pd.DataFrame(found)


def _honest(settings: pd.DataFrame, place: str) -> str:
    held_out = settings["holdout_acc"].dropna()
    if len(settings) > 1 and held_out.empty:
        raise UserError(f"{place}: held-out accuracy is missing; run its probe again")
    return settings.index[0] if held_out.empty else held_out.idxmax()
