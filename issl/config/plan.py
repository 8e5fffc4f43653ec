"""The plan of a preset: everything that config.yaml asks for, and its path below the results folder."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, get_args

from issl.config.display import Measure, Scatter
from issl.config.layers import PAPER, Layer, Place, combined, read_layers, setting
from issl.config.points import facts, refuse_unknown_points
from issl.config.presets import presets
from issl.config.resolve import PlannedRow, known, resolve
from issl.config.schema import Config
from issl.jobs.leftovers import leftovers
from issl.spec.data import DataSpec, data_id
from issl.spec.encoding import Encoding
from issl.spec.probe import READS_IMAGES, ProbeGrid, grid_id
from issl.spec.run import RunSpec

RUN_FILES = ("encoder.safetensors", "history.csv", "run.json", "checkpoints/", "wandb/", "tensorboard/", "csv/")
OF_TRAINING = frozenset({"optim", "augment"})  # settings of a run that an untrained encoder does not use


class Scored(NamedTuple):
    """One score file that an experiment shows: a row, one of its probes, and a seed."""

    row: PlannedRow
    probe: str
    seed: int

    @property
    def path(self) -> str:
        return self.row.score(self.probe, self.seed)

    @property
    def record(self) -> str:
        """The JSON beside it, with its provenance."""
        return self.path.removesuffix("csv") + "json"


@dataclass(frozen=True)
class Plan:
    """Everything that one preset asks for; `root` is its results folder."""

    preset: str
    root: str
    roots: tuple[str, ...]  # results folders of every preset
    config: Config
    rows: dict[str, list[PlannedRow]] = field(repr=False)  # experiment -> rows

    # --- values by id ---

    @cached_property
    def runs(self) -> dict[str, RunSpec]:
        """Every distinct pretraining."""
        return {row.name: row.run for row in self._every_row() if row.run}

    @cached_property
    def encodings(self) -> dict[str, Encoding]:
        """Every distinct encoding of images."""
        return {row.encoding_id: row.encoding for row in self._every_row() if row.probes}

    @cached_property
    def grids(self) -> dict[str, ProbeGrid]:
        """Every distinct set of probes."""
        return {grid_id(grid): grid for row in self._every_row() for grid in row.probes.values()}

    @cached_property
    def data(self) -> dict[str, DataSpec]:
        """Every data set to prepare, for pretraining or for probes."""
        every = [each.data for each in (*self.runs.values(), *self.encodings.values())]
        return {data_id(data): data for data in every}

    # --- experiments ---

    @cached_property
    def figures(self) -> list[str]:
        return [name for name in self.rows if self.config.experiments[name].figure]

    @cached_property
    def tables(self) -> list[str]:
        return [name for name in self.rows if self.config.experiments[name].table]

    def scored(self, experiment: str) -> list[Scored]:
        """The score files of an experiment in order: all, or with `existing_only` those that exist.

        Raises UserError for an experiment that this preset lacks.
        """
        known(experiment, self.rows, f"preset {self.preset}", "unknown experiment")
        every = [
            Scored(row, probe, seed) for row in self.rows[experiment] for probe in row.probes for seed in row.seeds
        ]
        if not self.config.existing_only:
            return every
        return [each for each in every if all(Path(self.root, path).exists() for path in self._shown(experiment, each))]

    def scores(self, experiment: str) -> list[str]:
        """Paths of the score files of an experiment, in the order of `rows_for`."""
        return [f"{self.root}/{each.path}" for each in self.scored(experiment)]

    def histories(self, experiment: str) -> list[str]:
        """The training history of those of `rows_for` that have one, in the same order."""
        ours = [each for each in self.scored(experiment) if each.row.trained_here]
        return [f"{self.root}/{row.encoder(seed)}/history.csv" for row, _, seed in ours]

    def measured(self, experiment: str) -> list[str]:
        """The record of the features of each of `rows_for`, in the same order, if the table shows what is in it."""
        scored = self.scored(experiment) if self._measures(experiment) else []
        return [f"{self.root}/{row.features(seed)}.json" for row, _, seed in scored]

    def _shown(self, experiment: str, scored: Scored) -> list[str]:
        """Everything that showing a score file in this experiment takes, below the results folder."""
        record = [f"{scored.row.features(scored.seed)}.json"] if self._measures(experiment) else []
        return [*needed(scored), *record]

    def _measures(self, experiment: str) -> tuple[str, ...]:
        table, figure = self.config.experiments[experiment].table, self.config.experiments[experiment].figure
        if isinstance(figure, Scatter):
            return (figure.x,) if figure.x in get_args(Measure) else ()
        return table.measures if table else ()

    def rows_for(self, experiment: str) -> list[dict[str, Any]]:
        """Columns of the tidy results for each score file, before the file's own."""
        return [
            facts(self.config, row)
            | {"encoding": row.encoding_id, "probe": probe, "grid": grid_id(row.probes[probe])}
            | {"metrics": list(row.metrics), "n_settings": len(row.probes[probe].probes), "seed": seed}
            | {"trained_here": row.trained_here}
            for row, probe, seed in self.scored(experiment)
        ]

    def experiments_of(self, run: str) -> list[str]:
        """Names of the experiments that need a run, except those that only show others' rows."""
        return self._asking.get(run, [])

    @cached_property
    def _asking(self) -> dict[str, list[str]]:
        """Run -> names of the experiments that need it; made once, for every job of pretraining asks."""
        found: dict[str, list[str]] = {}
        for name, rows in self.rows.items():
            if self.config.experiments[name].of is None:
                for run in dict.fromkeys(row.name for row in rows if row.run):
                    found.setdefault(run, []).append(name)
        return found

    # --- what the rules look up ---

    def arrays(self, data: DataSpec) -> list[str]:
        """Files of a prepared data set, all in one folder."""
        return [f"{self.root}/data/{data_id(data)}/{name}" for name in ("images.npy", "labels.npy", "meta.json")]

    def weights(self, encoder: str) -> list[str]:
        """The weights file of an encoder, by its folder; none for released weights, which are downloaded."""
        return [f"{self.root}/{encoder}/encoder.safetensors"] if encoder.startswith("runs/") else []

    def encoder(self, encoder: str, root: str | Path = "") -> str:
        """An encoder as commands take it: the folder of a run, below another `root` if given, or the name of a released
        model."""
        return f"{root or self.root}/{encoder}" if encoder.startswith("runs/") else encoder.removeprefix("weights/")

    def read_by(self, encoder: str, encoding: str, grid: str) -> list[str]:
        """Inputs of probes besides the arrays: features, or the weights if they encode images themselves."""
        if self.grids[grid].kind in READS_IMAGES:
            return self.weights(encoder)
        return [f"{self.root}/{encoder}/features/{encoding}"]

    @cached_property
    def users(self) -> dict[tuple[str, str], list[tuple[str, str, int]]]:
        """Experiment, grid and seed of everything that is scored, by the folder of its encoder and its encoding."""
        found: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
        for name, rows in self.rows.items():
            for row in rows:
                for seed in row.seeds:
                    users = found.setdefault((row.encoder(seed), row.encoding_id), [])
                    users += [(name, grid_id(grid), seed) for grid in row.probes.values()]
        return found

    def group(self, encoder: str, encoding: str, grid: str = "") -> str | None:
        """If only one probe job of `all` reads the features, the name under which both are one job; else None.

        Jobs that only experiments on request have are not counted, unless there are no others.
        """
        readers = [
            (self.config.experiments[experiment].on_request, (name, seed))
            for experiment, name, seed in self.users[encoder, encoding]
            if self.grids[name].kind not in READS_IMAGES
        ]
        counted = {each for on_request, each in readers if not on_request} or {each for _, each in readers}
        joins = not grid or grid in {name for name, _ in counted}
        return f"{encoder}/{encoding}".replace("/", "-") if len(counted) == 1 and joins else None

    def place(self, data: DataSpec) -> str:
        """Location of a data set, as JSON: the fields that are not part of its identity."""
        names = sorted(name for name, field in type(data).model_fields.items() if field.exclude)
        return json.dumps({name: getattr(data, name) for name in names})

    def settings(self) -> str:
        """Execution settings of the preset's jobs, as JSON."""
        return self.config.execution.canonical()

    # --- targets and files ---

    def targets(self) -> list[str]:
        """The files that `all` makes: each figure and table in every format, the comparison, the training curves.

        For experiments that only pretrain, the record of each run, which is beside its encoder and history. Those
        `on_request` are excluded: they need data sets that few users have.
        """
        wanted = [name for name in self.rows if not self.config.experiments[name].on_request]
        files = [file for name in wanted for file in self.files(name)]
        if any(self.config.experiments[name].display for name in wanted):
            files += self.reproduction
        return [*files, *self._pretrainings(), f"{self.root}/curves"]

    @property
    def reproduction(self) -> list[str]:
        """The comparison in every form."""
        return [f"{self.root}/reproduction.{ending}" for ending in ("md", "json", "html")]

    @property
    def times(self) -> list[str]:
        """How long each job took; made only if it is named."""
        return [f"{self.root}/times.{ending}" for ending in ("csv", "html")]

    def files(self, experiment: str) -> list[str]:
        """The files of an experiment's figure or table."""
        endings = ("pdf", "png", "csv") if experiment in self.figures else ("md", "tex", "html", "csv")
        shown = experiment in self.figures or experiment in self.tables
        return [f"{self.root}/{experiment}.{ending}" for ending in endings] if shown else []

    def _pretrainings(self) -> list[str]:
        """Records of the runs that are only pretrained: all, or with `existing_only` those that exist."""
        every = [(row, seed) for row in self._every_row() if not row.probes for seed in row.seeds]
        records = dict.fromkeys(f"{self.root}/{row.encoder(seed)}/run.json" for row, seed in every)
        return [record for record in records if not self.config.existing_only or Path(record).exists()]

    def made(self) -> set[str]:
        """Every file that rules make below the results folder, and every folder that only they use."""
        results = [
            *self.targets(),
            *self.reproduction,
            *self.times,
            *(file for name in self.rows for file in self.files(name)),
        ]
        results += [path for data in self.data.values() for path in self.arrays(data)]
        found = {path.removeprefix(f"{self.root}/") for path in results} | {"curves/", "logs/", "benchmarks/"}
        for row in self._every_row():
            for seed in row.seeds:
                if row.run:
                    found |= {f"{row.encoder(seed)}/{name}" for name in RUN_FILES}
                if row.probes:
                    found |= {f"{row.features(seed)}{ending}" for ending in ("/", ".part/", ".json")}
                for probe in row.probes:
                    score = row.score(probe, seed).removesuffix(".csv")
                    found |= {f"{score}{ending}" for ending in (".csv", ".json", ".part/")}
        return found

    def leftovers(self) -> list[str]:
        """Paths below the results folder that no rule makes, such as results of removed settings."""
        inside = (Path(root) for root in self.roots if root != self.root)
        others = {path.relative_to(self.root).as_posix() for path in inside if path.is_relative_to(self.root)}
        return leftovers(Path(self.root), self.made(), others)

    # --- display and comparison ---

    def display(self, experiment: str) -> str:
        """Settings of a figure or table, as JSON."""
        return self.config.experiments[experiment].display.canonical()

    def caption(self, experiment: str) -> str:
        """Caption of a figure or table, with the data set if there is one; it says so if the settings are not the
        paper's."""
        data = {row.encoding.data.name for row in self.rows[experiment] if row.encoding}
        parts = (
            self.config.experiments[experiment].display.caption,
            f"Data: {data.pop()}." if len(data) == 1 else "",
            "" if self.config.comparable else f"Preset {self.preset}: not comparable with the paper.",
        )
        return " ".join(filter(None, parts))

    def published(self, experiment: str) -> str:
        """Published numbers of an experiment, as JSON; null if the settings are not comparable."""
        published = self.config.experiments[experiment].published
        return published.canonical() if published and self.config.comparable else "null"

    @cached_property
    def compared(self) -> list[str]:
        """The experiments in the comparison; those on request only once all their scores exist."""
        return [name for name in self.rows if self.files(name) and self._is_compared(name)]

    def _is_compared(self, name: str) -> bool:
        found = self.scored(name)
        if self.config.experiments[name].on_request:
            return bool(found) and all(Path(self.root, path).exists() for each in found for path in needed(each))
        return bool(found)

    def records(self, stage: str) -> list[str]:
        """The provenance files of a stage for all results in the comparison."""
        found = [path for name in self.compared for each in self.scored(name) for path in _records(stage, each)]
        return list(dict.fromkeys(f"{self.root}/{path}" for path in found))

    def trained(self) -> list[str]:
        """The history of each run and seed, each once."""
        records = dict.fromkeys([*self.records("pretrain"), *self._pretrainings()])
        paths = [Path(record) for record in records]
        return [str(path.with_name("history.csv")) for path in paths if self.runs[path.parts[-3]].epochs]

    def comparison(self) -> str:
        """Request for the comparison, as JSON: preset, experiments without their settings, and rules of comparison.

        An experiment on request has claims only once it is compared; what is published is always included.
        """
        parts = {"figure", "table", "published", "claims", "not_run"}
        unseen = {name for name, each in self.config.experiments.items() if each.on_request} - {*self.compared}
        experiments = {
            name: experiment.model_dump(
                mode="json", include=parts - {"claims"} if name in unseen else parts, exclude_defaults=True
            )
            for name, experiment in self.config.experiments.items()
            if experiment.display or experiment.not_run is not None
        }
        rules = self.config.comparison.model_dump(mode="json")
        about = {"preset": self.preset, "comparable": self.config.comparable}
        return json.dumps(about | {"comparison": rules, "experiments": experiments})

    def _every_row(self) -> Iterator[PlannedRow]:
        for rows in self.rows.values():
            yield from rows


def needed(scored: Scored) -> list[str]:
    """Everything that showing and comparing a score file takes, below the results folder."""
    records = [path for stage in ("prepare", "pretrain", "featurize", "probe") for path in _records(stage, scored)]
    history = [f"{scored.row.encoder(scored.seed)}/history.csv"] if scored.row.trained_here else []
    return [scored.path, *records, *history]


def _records(stage: str, scored: Scored) -> list[str]:
    """Provenance files of a stage for one score file, below the results folder."""
    row, probe, seed = scored
    if stage == "prepare":
        used = [row.encoding.data, *([row.run.data] if row.run else [])]
        return [f"data/{data_id(data)}/meta.json" for data in used]
    if stage == "pretrain":
        return [f"{row.encoder(seed)}/run.json"] if row.run else []
    if stage == "featurize":
        return [] if row.probes[probe].kind in READS_IMAGES else [f"{row.features(seed)}.json"]
    return [scored.record]


def run_in(path: str) -> str:
    """The id of a run in the path of its folder, of one seed's or of a file there; an id is returned as it is."""
    parts = reversed(Path(path).parts)
    return next((part for part in parts if not re.fullmatch(r"s\d+|[\w-]*\.\w+", part)), path)


def load(
    path: str | Path = "config.yaml", overlays: Iterable[str | Path] = (), settings: Iterable[str] = ()
) -> dict[str, Plan]:
    """Plans of every preset of a config file, with overlays and KEY=VALUE settings on top as Snakemake adds them.

    Raises UserError.
    """
    layers = read_layers([path, *overlays], combined(map(setting, settings)))
    return plans(combined(layer.content for layer in layers), layers)


def plans(raw: Mapping[str, Any], layers: Sequence[Layer] = ()) -> dict[str, Plan]:
    """Plans of every preset, by results folder (`results` for *paper*, else `results/<preset>`).

    `layers` are what `raw` is stacked from. Raises UserError, which names the layer of a mistake.
    """
    configs = presets(raw, layers)
    places = {preset: Place(tuple(layers), preset) for preset in configs}
    roots = tuple(_root(preset) for preset in configs)
    rows = {preset: resolve(config, places[preset]) for preset, config in configs.items()}
    for preset, config in configs.items():
        refuse_unknown_points(config, rows[preset], places[preset], configs[PAPER], rows[PAPER])
    found = [Plan(preset, _root(preset), roots, config, rows[preset]) for preset, config in configs.items()]
    return {plan.root: plan for plan in found}


def _root(preset: str) -> str:
    return "results" if preset == PAPER else f"results/{preset}"
