"""The runs on disk: what each is, what came out of it, and how two of them differ."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from issl.config.plan import OF_TRAINING
from issl.errors import UserError, nearest
from issl.jobs.records import finished_runs, read_record
from issl.report.results import MEASURES, SELECTIONS, read_scores, selected
from issl.spec.value import flat

KEYS = ("run", "seed", "spec", "seconds")  # of a record
COLUMNS = (
    *("root", "run", "seed", "method", "dim", "epochs", "loss", "test_online_acc", "hours", "started"),
    *("data", *MEASURES, "probe", "n_labels", "metric", *SELECTIONS),
)


class Run(NamedTuple):
    """A finished pretraining with one seed: its folder and its run.json."""

    folder: Path
    record: dict[str, Any]

    @property
    def root(self) -> Path:
        """The results folder that it is in."""
        return self.folder.parents[2]


def finished(roots: Iterable[Path]) -> list[Run]:
    """The finished runs below results folders. Raises UserError if there is none, or a record cannot be read."""
    roots = list(roots)
    found = [folder for root in roots for folder in finished_runs(root)]
    if not found:
        raise UserError(f"no finished run in {', '.join(map(str, roots))}")
    return [Run(folder, read_record(folder / "run.json", keys=KEYS)) for folder in found]


def results(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run, seed, data set, probe, number of labels and metric, with `COLUMNS`; accuracies in [0, 1].

    A run that no probe has scored has one row, without accuracies.
    """
    return pd.DataFrame([facts | score for run in runs for facts, score in _rows(run)], columns=list(COLUMNS))


def _rows(run: Run) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    spec, attempts = run.record["spec"], run.record.get("attempts") or [{}]
    facts = {
        "root": str(run.root),
        "run": run.record["run"],
        "seed": run.record["seed"],
        "method": spec["objective"]["name"],
        "dim": spec["encoder"]["dim"],
        "epochs": spec["optim"]["epochs"],
        "loss": run.record.get("loss"),
        "test_online_acc": run.record.get("test_online_acc"),
        "hours": run.record["seconds"] / 3600,
        "started": attempts[0].get("started"),
    }
    scores = list(_scores(run.folder))
    yield from ((facts, score) for score in scores or [{}])


def _scores(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("probes/*/*.csv")):
        points = selected(read_scores(path).assign(row=path.stem))
        about = {"data": path.parent.name, "probe": path.stem} | _measures(folder, path.parent.name)
        for point in points.to_dict("records"):
            yield about | {name: point[name] for name in ("n_labels", "metric", *SELECTIONS)}


def _measures(folder: Path, data: str) -> dict[str, float]:
    """What features are like without labels; nothing if another version encoded them, or only images were read."""
    record = folder / f"features/{data}.json"
    found = read_record(record) if record.exists() else {}
    return {name: found[name] for name in MEASURES if name in found}


def chosen(name: str, runs: Sequence[Run]) -> list[Run]:
    """The runs that a command line names: by id, every seed of it; or by the folder of a run or of one seed.

    Raises UserError if none is meant, with the nearest id.
    """
    folder = Path(name).resolve()
    found = [
        run
        for run in runs
        if name == run.record["run"] or folder in (run.folder.resolve(), run.folder.resolve().parent)
    ]
    if not found:
        raise UserError(f"no finished run '{name}', {nearest(Path(name).name, {run.record['run'] for run in runs})}")
    return found


def matching(table: pd.DataFrame, column: str, pattern: str) -> pd.DataFrame:
    """The rows whose value in a column is this text, or matches this shell pattern."""
    values = ["" if pd.isna(value) else str(value) for value in table[column]]
    return table[[value == pattern or fnmatchcase(value, pattern) for value in values]]


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """Of `results`, the first metric of each probe."""
    return table.drop_duplicates(["root", "run", "seed", "data", "probe", "n_labels"])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`results` for people: accuracies in per cent, and no columns that the names of runs and probes say already."""
    rounded = {name: (100 * table[name].astype(float)).round(1) for name in (*SELECTIONS, "test_online_acc")}
    rounded |= {name: table[name].astype(float).round(digits) for name, digits in zip(MEASURES, (1, 3, 2))}
    shown = table.assign(**rounded, hours=table["hours"].round(3), n_labels=table["n_labels"].astype("Int64"))
    return shown.drop(columns=["root", "method", "dim", "epochs", "started"])


def compared(first: Sequence[Run], second: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The settings in which two runs differ, and the accuracies (%) that both have, as means over their seeds."""
    names = [f"{runs[0].record['run']} ({_seeds(runs)})" for runs in (first, second)]
    settings = pd.DataFrame(_differences(*(_used(runs[0]) for runs in (first, second))), columns=["setting", *names])
    sides = [_means(runs) for runs in (first, second)]
    scores = pd.merge(*sides, left_index=True, right_index=True, suffixes=(" (1)", " (2)"))
    for name in SELECTIONS:
        scores[f"{name} (2) - (1)"] = scores[f"{name} (2)"] - scores[f"{name} (1)"]
    return settings, (100 * scores).round(1).reset_index()


def _seeds(runs: Sequence[Run]) -> str:
    seeds = [str(run.record["seed"]) for run in runs]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"


def _means(runs: Iterable[Run]) -> pd.DataFrame:
    """Means over seeds by data set, probe, number of labels and metric; a probe's seed is that of its run."""
    table = results(runs).dropna(subset=list(SELECTIONS))
    table["probe"] = table["probe"].astype(str).str.replace(r"-s\d+$", "", regex=True)
    return table.groupby(["data", "probe", "n_labels", "metric"], sort=False)[list(SELECTIONS)].mean()


def _used(run: Run) -> dict[str, Any]:
    """The settings of a run; of an untrained encoder, without those of a training."""
    spec = run.record["spec"]
    return spec if spec["optim"]["epochs"] else {name: spec[name] for name in spec.keys() - OF_TRAINING}


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The settings in which two specs differ, by dotted name, with both values; blank where one has no such setting."""
    one, other = flat(first), flat(second)
    names = dict.fromkeys([*one, *other])
    return [(name, one.get(name, ""), other.get(name, "")) for name in names if one.get(name) != other.get(name)]
