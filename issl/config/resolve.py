"""From the words of an experiment to its runs and probes.

A row resolves as ``defaults <- method <- patches <- its own keys``: three links, no includes, no interpolation.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from issl.config.presets import merge
from issl.config.schema import Config, Experiment, Patch, Row
from issl.config.validation import validate
from issl.errors import UserError, nearest
from issl.spec.data import train_images
from issl.spec.probe import ProbeGrid, ProbeSpec, grid_id
from issl.spec.run import RunSpec, run_id

SECTIONS = tuple(Patch.model_fields)


@dataclass(frozen=True)
class PlannedRun:
    """One row of an experiment that only pretrains, resolved."""

    label: str
    run: RunSpec

    def folder(self, seed: int) -> str:
        """Where its results lie with this seed, below the results folder."""
        return f"runs/{run_id(self.run)}/s{seed}"


@dataclass(frozen=True)
class PlannedRow:
    """One row of an experiment, resolved."""

    label: str
    method: str
    run: RunSpec
    grid: ProbeGrid

    def score(self, seed: int) -> str:
        """Its score file with this seed, below the results folder."""
        return f"{self.folder(seed)}/probes/{grid_id(self.grid)}.csv"

    def record(self, seed: int) -> str:
        """What made these scores, beside them."""
        return self.score(seed).removesuffix("csv") + "json"

    def folder(self, seed: int) -> str:
        return f"runs/{run_id(self.run)}/s{seed}"


def resolved(config: Config, name: str, place: str) -> Iterator[PlannedRow]:
    """The rows of one experiment, in order. Raises UserError naming the row and what is wrong with it."""
    experiment = config.experiments[name]
    for label, method, run, where in _runs(config, name, place):
        grid = _probes(experiment, config.methods[method].probe, where)
        _refuse_too_few_images(run, grid.probes, where)
        yield PlannedRow(label, method, run, grid)


def pretrained(config: Config, name: str, place: str) -> Iterator[PlannedRun]:
    """The rows of an experiment that only pretrains, likewise."""
    for label, _, run, where in _runs(config, name, place):
        _refuse_too_few_images(run, (), where)
        yield PlannedRun(label, run)


def _runs(config: Config, name: str, place: str) -> Iterator[tuple[str, str, RunSpec, str]]:
    """Label, method and run of each row, and how to name the row to the user."""
    experiment = config.experiments[name]
    for label, row in _declared(experiment, f"{place}: experiments.{name}"):
        where = f"{place}: experiments.{name}: row '{label}'"
        method = row.method or experiment.base.method
        if method is None:
            raise UserError(f"{where}: no method, allowed: {', '.join(config.methods)}")
        known(method, config.methods, f"{where}: unknown method")
        yield label, method, _resolve(config, method, experiment.base, row, where), where


def _declared(experiment: Experiment, place: str) -> Iterator[tuple[str, Row]]:
    """The rows as written, or as a grid or zip spells them out, with their labels."""
    ways = [way for way in (experiment.rows, experiment.grid, experiment.zip) if way is not None]
    if len(ways) != 1 or not ways[0]:
        raise UserError(f"{place}: needs exactly one of rows, grid, zip, and not an empty one")
    if experiment.rows is not None:
        yield from experiment.rows.items()
        return
    axes = ways[0]
    lengths = {len(values) for values in axes.values()}
    if experiment.zip is not None and len(lengths) > 1:
        raise UserError(f"{place}.zip: the lists differ in length: {sorted(lengths)}")
    combine = zip if experiment.zip is not None else itertools.product
    seen = set()
    for values in combine(*axes.values()):
        label = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in zip(axes, values))
        if label in seen:
            raise UserError(f"{place}: two rows with one name: '{label}'")
        seen.add(label)
        content: dict[str, Any] = {}
        for key, value in zip(axes, values):
            content = merge(content, _nested(key, value))
        yield label, validate(Row, content, f"{place}: row '{label}'")


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    """``a.b, 1 -> {a: {b: 1}}``"""
    head, _, rest = dotted.partition(".")
    return {head: _nested(rest, value) if rest else value}


def _resolve(config: Config, method: str, base: Row, row: Row, where: str) -> RunSpec:
    names = (*base.patches, *row.patches)
    for name in names:
        known(name, config.patches, f"{where}: unknown patch")
    layers = [config.defaults, config.methods[method], *(config.patches[name] for name in names), base, row]
    content: dict[str, Any] = {}
    for layer in layers:
        content = merge(content, layer.model_dump(exclude_unset=True, include=set(SECTIONS)))
    if "data" not in content:
        raise UserError(f"{where}: no data set, allowed: {', '.join(config.data)}")
    known(content["data"], config.data, f"{where}: unknown data set")
    data = config.data[content["data"]]
    if data.kind == "torchvision":
        raise UserError(f"{where}: data '{content['data']}' is there to evaluate weights on, not to pretrain")
    return validate(RunSpec, content | {"data": data}, where)


def _probes(experiment: Experiment, kind: str, where: str) -> ProbeGrid:
    """Spells out lists of values; the kind is the method's probe family unless said otherwise."""
    probes = []
    for number, entry in enumerate(experiment.probes):
        choices = [value if isinstance(value, list) else [value] for value in entry.values()]
        for values in itertools.product(*choices):
            content = {"kind": kind} | dict(zip(entry, values))
            if content["kind"] == "linear":
                content.pop("hidden", None)  # said for the MLPs of the same experiment; a linear probe has none
            probes.append(validate(ProbeSpec, content, f"{where}: probes.{number}"))
    if len(set(probes)) < len(probes):
        raise UserError(f"{where}: probes: the same probe is asked for twice")
    return validate(ProbeGrid, {"probes": probes}, f"{where}: probes")


def _refuse_too_few_images(run: RunSpec, probes: Sequence[ProbeSpec], where: str) -> None:
    """What a job could say only after hours of pretraining, where the spec alone tells it."""
    images = train_images(run.data)
    if images is None:
        return
    if run.optim.batch_size > images:
        raise UserError(f"{where}: optim.batch_size {run.optim.batch_size} exceeds the {images} training images")
    for probe in probes:
        classes = getattr(run.data, "classes", 10)  # CIFAR-10 says so in its name
        labels = math.ceil(probe.fraction * images)  # as scikit-learn rounds the parts that it draws
        if labels < classes:
            raise UserError(
                f"{where}: probes: fraction {probe.fraction} of {images} training images is less than one a class"
            )
        rivals = sum(other.model_copy(update={"weight_decay": probe.weight_decay}) == probe for other in probes)
        if rivals > 1 and math.ceil(probe.holdout * labels) < classes:
            raise UserError(
                f"{where}: probes: holdout {probe.holdout} of fraction {probe.fraction} of {images} training images, "
                "on which the weight decay is chosen, is less than one a class; give one weight decay or larger parts"
            )


def known(name: str, table: Mapping[str, Any], complaint: str) -> None:
    """Raises UserError, with the nearest name, unless the table has this one."""
    if name not in table:
        raise UserError(f"{complaint} '{name}', {nearest(name, table)}")
