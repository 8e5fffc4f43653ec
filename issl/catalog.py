"""From config.yaml to the runs, probes and paths of every preset: the plan that the rules look things up in.

A row resolves as ``defaults <- method <- patches <- its own keys``: three links, no includes, no interpolation.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from issl import config as cfg
from issl.config import Config, Experiment, Patch, Row, Table
from issl.errors import UserError, nearest
from issl.spec import DataSpec, ProbeGrid, ProbeSpec, RunSpec, data_id, grid_id, run_id, train_images

SECTIONS = tuple(Patch.model_fields)


@dataclass(frozen=True)
class PlannedRow:
    """One row of an experiment, resolved."""

    label: str
    method: str
    run: RunSpec
    grid: ProbeGrid


@dataclass(frozen=True)
class Plan:
    """Everything that one preset asks for; `root` is its results folder."""

    preset: str
    root: str
    config: Config
    rows: dict[str, list[PlannedRow]] = field(repr=False)  # experiment -> rows

    @cached_property
    def runs(self) -> dict[str, RunSpec]:
        """Every distinct pretraining, by id."""
        return {run_id(row.run): row.run for row in self._all_rows()}

    @cached_property
    def grids(self) -> dict[str, ProbeGrid]:
        """Every distinct set of probes, by id."""
        return {grid_id(row.grid): row.grid for row in self._all_rows()}

    @cached_property
    def data(self) -> dict[str, DataSpec]:
        """Every data set that a run uses, by id, with the place where it lies."""
        return {data_id(run.data): run.data for run in self.runs.values()}

    @cached_property
    def figures(self) -> list[str]:
        return [name for name, experiment in self.config.experiments.items() if experiment.figure]

    @cached_property
    def tables(self) -> list[str]:
        return [name for name, experiment in self.config.experiments.items() if experiment.table]

    def targets(self) -> list[str]:
        """The files that `all` makes: every figure as PDF and PNG, every table as Markdown and LaTeX, their CSV."""
        shown = [(name, ("pdf", "png", "csv")) for name in self.figures]
        shown += [(name, ("md", "tex", "csv")) for name in self.tables]
        return [f"{self.root}/{name}.{ending}" for name, endings in shown for ending in endings]

    def arrays(self, run: str) -> list[str]:
        """Files of the run's prepared data set, all in one folder."""
        folder = f"{self.root}/data/{data_id(self.runs[run].data)}"
        return [f"{folder}/{name}" for name in ("images.npy", "labels.npy", "meta.json")]

    def scores(self, experiment: str) -> list[str]:
        """Score files of an experiment, row by row and seed by seed: the order of `rows_for`."""
        return [
            f"{self.root}/runs/{row['run']}/s{row['seed']}/probes/{row['grid']}.csv"
            for row in self.rows_for(experiment)
        ]

    def rows_for(self, experiment: str) -> list[dict[str, Any]]:
        """What the tidy results say of each (row, seed): label, method, ids and the settings that people plot by.

        Raises UserError for an experiment that this preset lacks.
        """
        _known(experiment, self.rows, f"preset {self.preset}: unknown experiment")
        return [
            {
                "row": row.label,
                "method": self.config.methods[row.method].label,
                "dim": row.run.encoder.dim,
                "epochs": row.run.optim.epochs,
                "batch_size": row.run.optim.batch_size,
                "strength": row.run.augment.strength,
                "blur": row.run.augment.blur,
                "run": run_id(row.run),
                "seed": seed,
                "grid": grid_id(row.grid),
            }
            for row in self.rows[experiment]
            for seed in self.config.seeds
        ]

    def table(self, experiment: str) -> Table:
        """How a table is shown. Published numbers stand only beside the paper's own settings."""
        table = self.config.experiments[experiment].table
        if self.preset == cfg.PAPER:
            return table
        note = f"Preset {self.preset}: not comparable with the paper."
        return table.model_copy(update={"caption": f"{table.caption} {note}", "published": {}})

    def experiments_of(self, run: str) -> list[str]:
        """Names of the experiments that use a run."""
        return [name for name, rows in self.rows.items() if any(run_id(row.run) == run for row in rows)]

    def place(self, data: str) -> str:
        """Where a data set lies, as JSON: the fields that are not part of its identity."""
        spec = self.data[data]
        located = {name for name, field in type(spec).model_fields.items() if field.exclude}
        return json.dumps({name: getattr(spec, name) for name in sorted(located)})

    def settings(self) -> str:
        """How the preset's jobs run, as JSON."""
        return self.config.execution.canonical()

    def mem_mb(self, rule: str) -> int:
        """Memory that a job asks for, in 10^6 bytes."""
        return round(1000 * getattr(self.config.hardware, rule).mem_gb)

    def minutes(self, rule: str, run: str | None = None) -> int:
        """Run time that a job asks for."""
        table = getattr(self.config.hardware, rule)
        epochs = self.runs[run].optim.epochs if run else 0
        return round(table.minutes + table.minutes_per_epoch * epochs)

    def _all_rows(self) -> Iterator[PlannedRow]:
        return itertools.chain.from_iterable(self.rows.values())


def load(path: str | Path = "config.yaml") -> dict[str, Plan]:
    """Plans of every preset in a config file, by results folder. Raises UserError."""
    return plans(cfg.read_yaml(path))


def plans(raw: Mapping[str, Any]) -> dict[str, Plan]:
    """Plans of every preset, by results folder (`results` for *paper*, else `results/<preset>`). Raises UserError."""
    found = (_plan(preset, config) for preset, config in cfg.presets(raw).items())
    return {plan.root: plan for plan in found}


def _plan(preset: str, config: Config) -> Plan:
    root = "results" if preset == cfg.PAPER else f"results/{preset}"
    place = "config" if preset == cfg.PAPER else f"config (preset {preset})"
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"{place}: seeds: a seed stands twice in {list(config.seeds)}")
    for name, experiment in config.experiments.items():
        if (experiment.figure is None) == (experiment.table is None):
            raise UserError(f"{place}: experiments.{name}: needs either a figure or a table")
    rows = {name: list(_rows(config, name, place)) for name in config.experiments}
    for name, experiment in config.experiments.items():
        labels = [row.label for row in rows[name]]
        for label in experiment.table.published if experiment.table else ():
            if label not in labels:
                raise UserError(
                    f"{place}: experiments.{name}.table.published.{label}: no such row, {nearest(label, labels)}"
                )
    return Plan(preset, root, config, rows)


def _rows(config: Config, name: str, place: str) -> Iterator[PlannedRow]:
    experiment = config.experiments[name]
    for label, row in _declared(experiment, f"{place}: experiments.{name}"):
        where = f"{place}: experiments.{name}: row '{label}'"
        method = row.method or experiment.base.method
        if method is None:
            raise UserError(f"{where}: no method, allowed: {', '.join(config.methods)}")
        _known(method, config.methods, f"{where}: unknown method")
        run = _resolve(config, method, experiment.base, row, where)
        grid = _probes(experiment, config.methods[method].probe, where)
        _refuse_too_few_images(run, grid, where)
        yield PlannedRow(label, method, run, grid)


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
            content = cfg.merge(content, _nested(key, value))
        yield label, cfg.validate(Row, content, f"{place}: row '{label}'")


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    """``a.b, 1 -> {a: {b: 1}}``"""
    head, _, rest = dotted.partition(".")
    return {head: _nested(rest, value) if rest else value}


def _resolve(config: Config, method: str, base: Row, row: Row, where: str) -> RunSpec:
    names = (*base.patches, *row.patches)
    for name in names:
        _known(name, config.patches, f"{where}: unknown patch")
    layers = [config.defaults, config.methods[method], *(config.patches[name] for name in names), base, row]
    content: dict[str, Any] = {}
    for layer in layers:
        content = cfg.merge(content, layer.model_dump(exclude_unset=True, include=set(SECTIONS)))
    if "data" not in content:
        raise UserError(f"{where}: no data set, allowed: {', '.join(config.data)}")
    _known(content["data"], config.data, f"{where}: unknown data set")
    data = config.data[content["data"]]
    return cfg.validate(RunSpec, content | {"data": data}, where)


def _probes(experiment: Experiment, kind: str, where: str) -> ProbeGrid:
    """Spells out lists of values; the kind is the method's probe family unless said otherwise."""
    probes = []
    for number, entry in enumerate(experiment.probes):
        choices = [value if isinstance(value, list) else [value] for value in entry.values()]
        for values in itertools.product(*choices):
            content = {"kind": kind} | dict(zip(entry, values))
            if content["kind"] == "linear":
                content.pop("hidden", None)  # said for the MLPs of the same experiment; a linear probe has none
            probes.append(cfg.validate(ProbeSpec, content, f"{where}: probes.{number}"))
    if len(set(probes)) < len(probes):
        raise UserError(f"{where}: probes: the same probe is asked for twice")
    return cfg.validate(ProbeGrid, {"probes": probes}, f"{where}: probes")


def _refuse_too_few_images(run: RunSpec, grid: ProbeGrid, where: str) -> None:
    """What a job could say only after hours of pretraining, where the spec alone tells it."""
    images = train_images(run.data)
    if images is None:
        return
    if run.optim.batch_size > images:
        raise UserError(f"{where}: optim.batch_size {run.optim.batch_size} exceeds the {images} training images")
    for probe in grid.probes:
        classes = getattr(run.data, "classes", 10)  # CIFAR-10 says so in its name
        if round(probe.fraction * images) < classes:
            raise UserError(
                f"{where}: probes: fraction {probe.fraction} of {images} training images is less than one a class"
            )


def _known(name: str, table: Mapping[str, Any], complaint: str) -> None:
    if name not in table:
        raise UserError(f"{complaint} '{name}', {nearest(name, table)}")
