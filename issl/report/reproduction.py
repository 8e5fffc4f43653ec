"""The comparison: the published value, the reproduced value and a verdict for every number and claim."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

import pandas as pd

from issl.config.display import Lines, Scatter, Table
from issl.config.evidence import Claim, Comparison
from issl.config.schema import Experiment
from issl.jobs import fingerprint, provenance
from issl.jobs.records import read_record
from issl.report.claims import Outcome, contrasts, corrected, in_order, outcomes, published_value
from issl.report.noise import Noise
from issl.report.published import Number, numbers, reproduced
from issl.report.results import SELECTIONS, over_seeds, points
from issl.spec.value import Value


class Request(Value):
    """The request: a preset, its experiments without their settings, and the rules of comparison."""

    preset: str
    comparable: bool  # whether the settings are the paper's own
    experiments: dict[str, Experiment]
    comparison: Comparison


class Record(NamedTuple):
    """The record beside a result: its stage, its path below the results folder, and its provenance."""

    stage: str
    path: str
    about: Mapping[str, Any]

    @classmethod
    def read(cls, stage: str, path: Path, root: Path) -> Self:
        """The record in a file. Raises UserError if it cannot be read, or lacks what the page shows of a run."""
        keys = OF_RUN if stage == "pretrain" else ()
        return cls(stage, path.relative_to(root).as_posix(), read_record(path, "delete it to make it again", keys))


OF_RUN = (
    *("run", "seed", "data", "device", "precision", "seconds", "images_per_second", "peak_memory_gb"),
    *("test_online_acc", "git", "versions"),
)


def compare(
    request: Request, results: Mapping[str, pd.DataFrame], records: Sequence[Record], leftovers: Sequence[str]
) -> dict[str, Any]:
    """The content of reproduction.json.

    `results` are the tidy results by experiment; a missing one has not been run. `leftovers` are results on disk that
    no rule makes. Raises UserError for inconsistent results.
    """
    found = {name: points(table, request.experiments[name].display) for name, table in results.items()}
    scatters = {name for name, experiment in request.experiments.items() if isinstance(experiment.display, Scatter)}
    shown = (table for name, table in found.items() if name not in scatters)  # a scatter repeats the others' points
    noise = Noise.of(shown, request.comparable, request.comparison)
    judged = [number for name in request.experiments for number in _numbers(name, request, found.get(name), noise)]
    claims = _claims(request, found, noise)
    own = {name: table for name, table in results.items() if name not in scatters}
    runs = [_run(result, own) for result in records if result.stage == "pretrain"]
    return {
        "preset": request.preset,
        "comparable": request.comparable,
        "rules": request.comparison.model_dump(mode="json"),
        "counts": {
            "numbers": Counter(each.verdict for each in judged if request.experiments[each.experiment].not_run is None),
            "claims": Counter(claim["verdict"] for claim in claims),
            "claims_corrected": Counter(claim["corrected"] for claim in claims),
        },
        "noise": noise.summary("test_selected"),
        "published_deviation": noise.published_deviation(),
        "axes": {name: _axes(e.display) for name, e in request.experiments.items() if e.display},
        "numbers": [asdict(number) for number in judged],
        "claims": claims,
        "without_numbers": {
            name: experiment.published.source
            for name, experiment in request.experiments.items()
            if experiment.published and not experiment.published.values
        },
        "also": {
            name: {other.label: {"source": other.source, "precision": other.precision} for other in published.also}
            for name, experiment in request.experiments.items()
            if (published := experiment.published) and published.also
        },
        "not_run": {name: e.not_run for name, e in request.experiments.items() if e.not_run is not None},
        "runs": runs,
        "changed": [
            {"path": result.path, "stage": result.stage, "modules": modules}
            for result in records
            if (modules := fingerprint.changed(result.about.get("code"), result.stage)) != []
        ],
        "leftovers": list(leftovers),
        "compared_at": provenance.git_here(),
    }


def _axes(display: Lines | Scatter | Table) -> tuple[str, str]:
    line, columns = display.axes
    return line, ", ".join(columns)


def _numbers(name: str, request: Request, found: pd.DataFrame | None, noise: Noise) -> list[Number]:
    published = request.experiments[name].published
    if published is None:
        return []
    if found is None:
        return numbers(name, published, {}, None, request.comparison)
    averaged = reproduced(over_seeds(found, ["line", "column"]))
    at_points = found.groupby(["line", "column"])
    priors = {point: noise.prior(here, "test_selected") for point, here in at_points} if request.comparable else None
    return numbers(name, published, averaged, priors, request.comparison)


def _claims(request: Request, found: Mapping[str, pd.DataFrame], noise: Noise) -> list[dict[str, Any]]:
    """Every claim with its outcomes; Holm's correction is over all claims of the page, for each accuracy."""
    every = [(name, *claim) for name, experiment in request.experiments.items() for claim in experiment.claims.items()]
    tested = {(name, text): outcomes(claim, found[name], noise) for name, text, claim in every if name in found}
    for which in SELECTIONS:
        after = corrected([both[which] for both in tested.values()], request.comparison.significance)
        for both, outcome in zip(tested.values(), after):
            both[which] = outcome
    return [_claim(name, text, claim, request, tested.get((name, text))) for name, text, claim in every]


def _claim(name: str, text: str, claim: Claim, request: Request, found: Mapping[str, Outcome] | None) -> dict[str, Any]:
    about = {"experiment": name, "claim": text, "published": _published(claim, request.experiments[name])}
    if found is None:
        return about | dict.fromkeys(("verdict", "corrected"), "not run") | dict.fromkeys(SELECTIONS)
    first = found[SELECTIONS[0]]
    about |= {"verdict": first.verdict, "corrected": first.corrected}
    return about | {which: asdict(outcome) for which, outcome in found.items()}


def _published(claim: Claim, experiment: Experiment) -> dict[str, float]:
    """The contrasts of a claim in the published numbers, in points, by name."""
    if experiment.published is None or isinstance(experiment.display, Scatter):
        return {}
    known = experiment.published.points
    columns = in_order(column for line, column in known if line == claim.line)
    values = {c.what: published_value(c, known) for c in contrasts(claim, columns)}
    return {what: round(value, 3) for what, value in values.items() if value is not None}


def _run(result: Record, results: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """A run's provenance, and the experiments that use it, without scatters, which use all runs."""
    about = dict(result.about)
    used_by = [name for name, table in results.items() if (table["encoder"] == about["run"]).any()]
    return {"path": result.path, "experiments": used_by, **about}
