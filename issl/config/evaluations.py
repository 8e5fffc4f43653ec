"""From the `evaluations` of config.yaml to encodings, protocols and paths: what the rules look up."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from issl.config.resolve import PlannedRow, PlannedRun, known
from issl.config.schema import Config, Part
from issl.config.validation import validate
from issl.errors import UserError
from issl.spec.data import DataSpec, data_id
from issl.spec.protocol import Augmented, Cached, Encoding, Metric, Protocol, column, encoding_id, protocol_id
from issl.spec.released import MODELS
from issl.spec.run import run_id
from issl.spec.value import Value


class _Protocol(Value):
    """Holds a protocol, whose model depends on its kind."""

    protocol: Protocol


@dataclass(frozen=True)
class PlannedEvaluation:
    """One row of an evaluation, resolved."""

    label: str
    encodings: Mapping[int, Encoding]  # by seed; that of our own runs has weights of its own for each
    protocols: Mapping[str, Protocol]
    metrics: tuple[Metric, ...]

    @property
    def encoding(self) -> Encoding:
        """How its images are encoded, with the weights of the first seed."""
        return next(iter(self.encodings.values()))

    def folder(self, seed: int) -> str:
        """Where everything of its encoding lies, below the results folder."""
        encoding = self.encodings[seed]
        return f"weights/{encoding.weights}/{encoding_id(encoding)}"

    def score(self, protocol: str, seed: int) -> str:
        """The score file of a protocol, by its name, below the results folder."""
        return f"{self.folder(seed)}/s{seed}/{protocol_id(self.protocols[protocol])}.csv"


@dataclass(frozen=True)
class Evaluations:
    """Every evaluation of one preset; `root` is its results folder."""

    root: str
    config: Config = field(repr=False)
    rows: dict[str, list[PlannedEvaluation]]  # evaluation -> rows

    @cached_property
    def encodings(self) -> dict[tuple[str, str], Encoding]:
        """Every distinct encoding, by the name of its weights and its id."""
        every = (encoding for row in self._every_row() for encoding in row.encodings.values())
        return {(encoding.weights, encoding_id(encoding)): encoding for encoding in every}

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """Every distinct protocol, by id."""
        return {protocol_id(protocol): protocol for row in self._every_row() for protocol in row.protocols.values()}

    @cached_property
    def data(self) -> dict[str, DataSpec]:
        """Every data set that is encoded, by id, with the place where it lies."""
        return {data_id(encoding.data): encoding.data for encoding in self.encodings.values()}

    def arrays(self, weights: str, encoding: str) -> list[str]:
        """Files of the prepared data set of an encoding, all in one folder."""
        return prepared(self.root, self.encodings[weights, encoding].data)

    def pretrained(self, weights: str, encoding: str) -> list[str]:
        """The encoder of one of our runs, where this is one: what must be there before images are encoded."""
        run = self.encodings[weights, encoding].run
        return [f"{run}/encoder.safetensors"] if run else []

    def encoding(self, weights: str, encoding: str) -> str:
        """What is encoded and how, as JSON."""
        return self.encodings[weights, encoding].canonical()

    def place(self, weights: str, encoding: str) -> str:
        """Where its data set and its run lie, as JSON."""
        asked = self.encodings[weights, encoding]
        return json.dumps({"data": whereabouts(asked.data), "run": asked.run})

    def gpus(self, protocol: str) -> int:
        """How many GPUs a probe asks for: scikit-learn's classifiers need none."""
        return self.config.hardware.probe_weights.gpus if isinstance(self.protocols[protocol], Cached) else 0

    def scores(self, name: str) -> list[str]:
        """Score files of an evaluation: the order of `rows_for`."""
        return [f"{self.root}/{row.score(protocol, seed)}" for row, protocol, seed in self._shown(name)]

    def rows_for(self, name: str) -> list[dict[str, Any]]:
        """What the tidy results say of each (row, protocol, seed), and by what metrics it is judged."""
        return [
            {
                "row": row.label,
                "weights": row.encodings[seed].weights,
                "data": row.encoding.data.name,
                "encoding": encoding_id(row.encodings[seed]),
                "protocol": protocol,
                "seed": seed,
                "metrics": list(row.metrics),
            }
            for row, protocol, seed in self._shown(name)
        ]

    def targets(self) -> list[str]:
        """The files that can be asked for by name, beside those that `all` makes."""
        return [f"{self.root}/{name}.{ending}" for name in self.rows for ending in ("md", "tex", "html", "csv")]

    @cached_property
    def compared(self) -> list[str]:
        """The evaluations that the comparison reads: those whose scores are on disk, for it never asks for more."""
        return [
            name for name in self.rows if (paths := self.scores(name)) and all(Path(path).exists() for path in paths)
        ]

    def records(self, stage: str) -> list[str]:
        """The files in which a stage says what made the results that the comparison reads."""
        shown = [each for name in self.compared for each in self._shown(name)]
        paths = {
            "prepare": lambda row, protocol, seed: f"data/{data_id(row.encoding.data)}/meta.json",
            "featurize_weights": lambda row, protocol, seed: f"{row.folder(seed)}/features.json",
            "probe_weights": lambda row, protocol, seed: row.score(protocol, seed).removesuffix("csv") + "json",
        }
        if stage == "featurize_weights":  # the augmented protocol reads images
            shown = [each for each in shown if not isinstance(each[0].protocols[each[1]], Augmented)]
        return list(dict.fromkeys(f"{self.root}/{paths[stage](*each)}" for each in shown))

    def comparison(self) -> dict[str, Any]:
        """What the comparison asks of each evaluation."""
        parts = {"caption", "published", "claims"}
        every = self.config.evaluations.items()
        return {name: each.model_dump(mode="json", include=parts, exclude_defaults=True) for name, each in every}

    def made(self) -> set[str]:
        """Every file that the rules make below the results folder, and every folder that is theirs alone."""
        found = {target.removeprefix(f"{self.root}/") for target in self.targets()}
        for data in self.data.values():
            found |= {path.removeprefix(f"{self.root}/") for path in prepared(self.root, data)}
        for row in self._every_row():
            for seed in row.encodings:
                found |= {f"{row.folder(seed)}/{own}" for own in ("features/", "features.part/", "features.json")}
            for protocol, seed in itertools.product(row.protocols, row.encodings):
                found |= {row.score(protocol, seed).removesuffix("csv") + end for end in ("csv", "json", "part/")}
        return found

    def outline(self, name: str) -> dict[str, set[str]]:
        """The lines of the table, and the columns of each."""
        several = any(len(row.metrics) > 1 for row in self.rows[name])
        return {
            row.label: {column(protocol, metric, several) for protocol in row.protocols for metric in row.metrics}
            for row in self.rows[name]
        }

    def _shown(self, name: str) -> list[tuple[PlannedEvaluation, str, int]]:
        """Rows, protocols and seeds of an evaluation: all of them, or those that have their scores already."""
        every = [(row, *each) for row in self.rows[name] for each in itertools.product(row.protocols, row.encodings)]
        if not self.config.existing_only:
            return every
        return [each for each in every if Path(self.root, each[0].score(*each[1:])).exists()]

    def _every_row(self) -> Iterator[PlannedEvaluation]:
        return itertools.chain.from_iterable(self.rows.values())


def prepared(root: str, data: DataSpec) -> list[str]:
    """Files of a prepared data set, all in one folder."""
    return [f"{root}/data/{data_id(data)}/{name}" for name in ("images.npy", "labels.npy", "meta.json")]


def whereabouts(data: DataSpec) -> dict[str, Any]:
    """Where a data set lies: the fields that are not part of its identity."""
    names = {name for name, field in type(data).model_fields.items() if field.exclude}
    return {name: getattr(data, name) for name in sorted(names)}


# --- from words to values --------------------------------------------------------------------------------------------


Own = Mapping[str, PlannedRow | PlannedRun]  # <experiment>/<row> -> the run of ours that these words mean


def evaluations(config: Config, root: str, place: str, own: Own) -> Evaluations:
    """The evaluations of one preset, whose rows may name released weights and its own runs.

    Raises UserError naming the row and what is wrong with it.
    """
    rows = {name: list(_rows(config, name, place, root, own)) for name in config.evaluations}
    found = Evaluations(root, config, rows)
    for name in found.rows:
        if name in config.experiments:
            raise UserError(f"{place}: evaluations.{name}: an experiment has this name already")
        _refuse_unknown_points(found, name, f"{place}: evaluations.{name}")
    return found


def _rows(config: Config, name: str, place: str, root: str, own: Own) -> Iterator[PlannedEvaluation]:
    evaluation, where = config.evaluations[name], f"{place}: evaluations.{name}"
    for part in ("rows", "protocols"):
        if not getattr(evaluation, part):
            raise UserError(f"{where}: {part}: needs at least one")
    if len(set(evaluation.seeds)) < len(evaluation.seeds):
        raise UserError(f"{where}: seeds: a seed stands twice in {list(evaluation.seeds)}")
    protocols = {label: _protocol(part, f"{where}: protocols.{label}") for label, part in evaluation.protocols.items()}
    for label, row in evaluation.rows.items():
        here = f"{where}: row '{label}'"
        said = {k: v for part in (evaluation.base, row) for k, v in part.model_dump(exclude_none=True).items()}
        for key in ("weights", "data"):
            if key not in said:
                raise UserError(f"{here}: says no {key}")
        known(said["weights"], {**MODELS, **own}, f"{here}: unknown weights")
        known(said["data"], config.data, f"{here}: unknown data set")
        metrics = tuple(said.pop("metrics", ("top-1",)))
        said["data"] = config.data[said["data"]]
        if run := own.get(said["weights"]):
            by_seed = {seed: said | _weights(run, root, seed) for seed in config.seeds}
        else:
            by_seed = dict.fromkeys(evaluation.seeds, said)
        encodings = {seed: validate(Encoding, content, here) for seed, content in by_seed.items()}
        for protocol in protocols.values():
            if isinstance(protocol, Augmented):
                _refuse_augmented(next(iter(encodings.values())), here)
        yield PlannedEvaluation(label, encodings, protocols, metrics)


def _weights(run: PlannedRow | PlannedRun, root: str, seed: int) -> dict[str, str]:
    """What an encoding says of the weights of one of our runs."""
    return {"weights": f"{run_id(run.run)}-s{seed}", "run": f"{root}/{run.folder(seed)}"}


def _refuse_augmented(encoding: Encoding, where: str) -> None:
    if encoding.data.kind != "imagenet":
        raise UserError(f"{where}: the augmented protocol crops photographs: it needs data of kind imagenet")
    if encoding.layer != "output" or encoding.batch_norm != "eval":
        raise UserError(f"{where}: the augmented protocol goes with 'layer: output' and 'batch_norm: eval' alone")


def _protocol(part: Part, where: str) -> Protocol:
    """A protocol; in the probes of a grid, a list of values stands for each of them."""
    content = dict(part)
    if isinstance(content.get("probes"), list):
        content["probes"] = [probe for entry in content["probes"] for probe in _spelled_out(entry)]
    return validate(_Protocol, {"protocol": content}, where).protocol


def _spelled_out(entry: Any) -> Iterator[Any]:
    if not isinstance(entry, Mapping):
        yield entry
        return
    choices = [value if isinstance(value, list) else [value] for value in entry.values()]
    yield from (dict(zip(entry, values)) for values in itertools.product(*choices))


def _refuse_unknown_points(found: Evaluations, name: str, where: str) -> None:
    """Published numbers and claims must speak of what is there."""
    evaluation, here = found.config.evaluations[name], found.outline(name)
    for text, claim in evaluation.claims.items():
        for line in claim.lines:
            known(line, here, f"{where}: claim '{text}': unknown row")
        if claim.verb != "better":
            raise UserError(f"{where}: claim '{text}': '{claim.verb}' needs columns in an order; allowed: better")
    for line, point in evaluation.published.points if evaluation.published else ():
        known(line, here, f"{where}.published: unknown row")
        known(point, dict.fromkeys(here[line]), f"{where}.published: row '{line}': unknown column")
