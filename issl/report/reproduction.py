"""The comparison: for every published number and every claim, what was published, what came out, and a verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd

from issl.config.display import Scatter
from issl.config.evidence import Claim, Comparison
from issl.config.schema import Evaluation, Experiment
from issl.jobs import fingerprint, provenance
from issl.report.claims import contrasts, in_order, outcomes, published_value
from issl.report.published import numbers, reproduced
from issl.report.results import over_seeds, points
from issl.spec.value import Value


class Asked(Value):
    """What is compared: a preset, its experiments without their settings, and the rules of judging."""

    preset: str
    comparable: bool  # whether the settings are the paper's own
    experiments: dict[str, Experiment]
    evaluations: dict[str, Evaluation] = {}
    comparison: Comparison

    @property
    def everything(self) -> dict[str, Experiment | Evaluation]:
        """Experiments first."""
        return {**self.experiments, **self.evaluations}


class Made(NamedTuple):
    """What stands beside a result: the stage that made it, its path below the results folder, and its provenance."""

    stage: str
    path: str
    about: Mapping[str, Any]


def compare(
    asked: Asked, results: Mapping[str, pd.DataFrame], made: Sequence[Made], leftovers: Sequence[str]
) -> dict[str, Any]:
    """Everything that reproduction.json says, ready to be written.

    `results` are the tidy results by experiment; one that is missing has not been run. `leftovers` are results on disk
    that no rule makes. Raises UserError for results that contradict themselves.
    """
    judged, claims = [], []
    for name, experiment in asked.everything.items():
        found = points(results[name], experiment.shown) if name in results else None
        if experiment.published:
            averaged = {} if found is None else reproduced(over_seeds(found, ["line", "column"]))
            judged += numbers(name, experiment.published, averaged, asked.comparison, asked.comparable)
        claims += [_claim(name, text, claim, found, asked) for text, claim in experiment.claims.items()]
    own = {
        name: table
        for name, table in results.items()
        if name in asked.experiments and not isinstance(asked.experiments[name].shown, Scatter)
    }
    runs = [_run(result, own) for result in made if result.stage == "pretrain"]
    return {
        "preset": asked.preset,
        "comparable": asked.comparable,
        "rules": asked.comparison.model_dump(mode="json"),
        "counts": {
            "numbers": Counter(number.verdict for number in judged),
            "claims": Counter(claim["verdict"] for claim in claims),
        },
        "axes": {name: e.shown.axes for name, e in asked.everything.items() if e.shown},
        "numbers": [asdict(number) for number in judged],
        "claims": claims,
        "without_numbers": {
            name: experiment.published.source
            for name, experiment in asked.everything.items()
            if experiment.published and not experiment.published.values
        },
        "not_run": {name: e.not_run for name, e in asked.experiments.items() if e.not_run is not None},
        "runs": runs,
        "changed": [
            {"path": result.path, "stage": result.stage, "modules": modules}
            for result in made
            if (modules := fingerprint.changed(result.about.get("code"), result.stage)) != []
        ],
        "leftovers": list(leftovers),
        "compared_at": provenance.git_here(),
    }


def _claim(name: str, text: str, claim: Claim, found: pd.DataFrame | None, asked: Asked) -> dict[str, Any]:
    experiment = asked.everything[name]
    about = {"experiment": name, "claim": text, "published": _published(claim, experiment)}
    if found is None:
        return about | {"verdict": "not run", "published_choice": None, "honest_choice": None}
    both = outcomes(claim, found, asked.comparison)
    return about | {
        "verdict": both["published"].verdict,
        "published_choice": asdict(both["published"]),
        "honest_choice": asdict(both["honest"]),
    }


def _published(claim: Claim, experiment: Experiment | Evaluation) -> dict[str, float]:
    """The contrasts of a claim in the published numbers, in points, by what each is about."""
    if experiment.published is None or isinstance(experiment.shown, Scatter):
        return {}
    known = experiment.published.points
    columns = in_order(column for line, column in known if line == claim.line)
    values = {c.what: published_value(c, known) for c in contrasts(claim, columns)}
    return {what: round(value, 3) for what, value in values.items() if value is not None}


def _run(result: Made, results: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """A run's provenance, and the experiments that use it; a scatter uses them all."""
    about = dict(result.about)
    used_by = [name for name, table in results.items() if (table["run"] == about["run"]).any()]
    return {"path": result.path, "experiments": used_by, **about}
