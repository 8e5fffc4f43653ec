"""From config.yaml to the runs, probes and paths of every preset: the plan that the rules look things up in."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from issl.config.display import Scatter, word
from issl.config.evaluations import Evaluations, evaluations, prepared, whereabouts
from issl.config.presets import PAPER, presets, read_config
from issl.config.resolve import PlannedRow, PlannedRun, known, pretrained, resolved
from issl.config.schema import Config, Evaluation, Experiment
from issl.errors import UserError
from issl.jobs.leftovers import leftovers
from issl.spec.data import DataSpec, data_id, train_images
from issl.spec.probe import ProbeGrid, grid_id
from issl.spec.run import RunSpec, run_id

RUN_FILES = (
    "encoder.safetensors",
    "history.csv",
    "run.json",
    "features.npy",
    "features.json",
    "checkpoints/",
    "wandb/",
)


@dataclass(frozen=True)
class Plan:
    """Everything that one preset asks for; `root` is its results folder."""

    preset: str
    root: str
    roots: tuple[str, ...]  # results folders of every preset
    config: Config
    rows: dict[str, list[PlannedRow]] = field(repr=False)  # experiment -> rows
    pretrained: dict[str, list[PlannedRun]] = field(repr=False)  # experiment that only pretrains -> rows
    evaluations: Evaluations = field(repr=False)  # of published weights

    @cached_property
    def runs(self) -> dict[str, RunSpec]:
        """Every distinct pretraining, by id."""
        return {run_id(row.run): row.run for row in (*self._all_rows(), *self._all_pretrained())}

    @cached_property
    def grids(self) -> dict[str, ProbeGrid]:
        """Every distinct set of probes, by id."""
        return {grid_id(row.grid): row.grid for row in self._all_rows()}

    @cached_property
    def data(self) -> dict[str, DataSpec]:
        """Every data set that a run uses, by id, with the place where it lies."""
        return {data_id(run.data): run.data for run in self.runs.values()}

    @cached_property
    def prepared(self) -> dict[str, DataSpec]:
        """Every data set that is prepared, by id: for runs, and for evaluations."""
        return self.data | self.evaluations.data

    @cached_property
    def figures(self) -> list[str]:
        return [name for name, experiment in self.config.experiments.items() if experiment.figure]

    @cached_property
    def tables(self) -> list[str]:
        return [name for name, experiment in self.config.experiments.items() if experiment.table]

    def targets(self) -> list[str]:
        """The files that `all` makes: each figure and table in every form, the comparison, the training curves.

        Of experiments that only pretrain, the record of each run; the encoder and its history lie beside it.
        Evaluations are not among them: they need ImageNet and other data sets that few have; see `Evaluations.targets`.
        """
        shown = [(name, ("pdf", "png", "csv")) for name in self.figures]
        shown += [(name, ("md", "tex", "html", "csv")) for name in self.tables]
        shown += [("reproduction", ("md", "json", "html"))] if self.rows else []
        files = [f"{self.root}/{name}.{ending}" for name, endings in shown for ending in endings]
        return [*files, *self._pretrainings(), f"{self.root}/curves"]

    def _pretrainings(self) -> list[str]:
        """Records of the runs that are only pretrained: all of them, or those that are there already."""
        every = itertools.product(self._all_pretrained(), self.config.seeds)
        records = dict.fromkeys(f"{self.root}/{row.folder(seed)}/run.json" for row, seed in every)
        return [record for record in records if not self.config.existing_only or Path(record).exists()]

    def made(self) -> set[str]:
        """Every file that the rules make below the results folder, and every folder that is theirs alone."""
        results = {target.removeprefix(f"{self.root}/") for target in self.targets()}
        arrays = {path.removeprefix(f"{self.root}/") for run in self.runs for path in self.arrays(run)}
        runs = set()
        for row, seed in itertools.product(self._all_rows(), self.config.seeds):
            own = {f"{row.folder(seed)}/{name}" for name in RUN_FILES}
            runs |= own | {row.score(seed), row.record(seed)}
        for row, seed in itertools.product(self._all_pretrained(), self.config.seeds):
            runs |= {f"{row.folder(seed)}/{name}" for name in RUN_FILES}
        return results | arrays | runs | self.evaluations.made() | {"curves/", "logs/", "benchmarks/"}

    def arrays(self, run: str) -> list[str]:
        """Files of the run's prepared data set, all in one folder."""
        return prepared(self.root, self.runs[run].data)

    def scores(self, experiment: str) -> list[str]:
        """Score files of an experiment, row by row and seed by seed: the order of `rows_for`."""
        return [f"{self.root}/{row.score(seed)}" for row, seed in self._shown(experiment)]

    def histories(self, experiment: str) -> list[str]:
        """What the pretraining of each of `rows_for` wrote down, in the same order."""
        return [f"{self.root}/{row.folder(seed)}/history.csv" for row, seed in self._shown(experiment)]

    def rows_for(self, experiment: str) -> list[dict[str, Any]]:
        """What the tidy results say of each (row, seed): label, method, ids and the settings that people plot by.

        Raises UserError for an experiment that this preset lacks.
        """
        return [self._facts(row) | {"seed": seed} for row, seed in self._shown(experiment)]

    def _facts(self, row: PlannedRow) -> dict[str, Any]:
        return {
            "row": row.label,
            "method": self.config.methods[row.method].label,
            "family": self.config.methods[row.method].probe,
            "dim": row.run.encoder.dim,
            "epochs": row.run.optim.epochs,
            "batch_size": row.run.optim.batch_size,
            "strength": row.run.augment.strength,
            "blur": row.run.augment.blur,
            "run": run_id(row.run),
            "grid": grid_id(row.grid),
        }

    def outline(self, experiment: str) -> dict[str, set[str]]:
        """The lines of a figure or table, and the columns of each, as far as the specs tell them."""
        shown = self.config.experiments[experiment].shown
        lines: dict[str, set[str]] = {}
        for row in self.rows[experiment]:
            images = train_images(row.run.data)
            for probe in row.grid.probes:
                labels = math.ceil(probe.fraction * images) if images else ANY
                point = self._facts(row) | {"probe": probe.kind, "fraction": probe.fraction, "n_labels": labels}
                line, column = shown.axes
                lines.setdefault(word(point[line]), set()).add(word(point.get(column, "")))
        return lines

    def _shown(self, experiment: str) -> list[tuple[PlannedRow, int]]:
        """Rows and seeds of an experiment: all of them, or those that have their scores already."""
        known(experiment, self.rows, f"preset {self.preset}: unknown experiment")
        every = itertools.product(self.rows[experiment], self.config.seeds)
        if not self.config.existing_only:
            return list(every)
        return [(row, seed) for row, seed in every if Path(self.root, row.score(seed)).exists()]

    def shown(self, experiment: str) -> str:
        """How a figure or table is shown, as JSON."""
        return self._asked(experiment).shown.canonical()

    def _asked(self, name: str) -> Experiment | Evaluation:
        return self.config.evaluations[name] if name in self.evaluations.rows else self.config.experiments[name]

    def caption(self, experiment: str) -> str:
        """What stands below a figure or above a table; where the settings are not the paper's, it says so."""
        caption = self._asked(experiment).shown.caption
        note = "" if self.config.comparable else f" Preset {self.preset}: not comparable with the paper."
        return (caption + note).strip()

    def published(self, experiment: str) -> str:
        """Published numbers of an experiment, as JSON: only beside settings that are comparable."""
        published = self._asked(experiment).published
        return published.canonical() if published and self.config.comparable else "null"

    @cached_property
    def compared(self) -> list[str]:
        """The experiments and evaluations whose results the comparison reads."""
        return [*(name for name in self.rows if self._shown(name)), *self.evaluations.compared]

    def records(self, stage: str) -> list[str]:
        """The files in which a stage says what made its results, for everything that the comparison is about."""
        if stage in ("featurize_weights", "probe_weights"):
            return self.evaluations.records(stage)
        rows = [(row, seed) for name in self.rows for row, seed in self._shown(name)]
        paths = {
            "prepare": lambda row, seed: f"data/{data_id(row.run.data)}/meta.json",
            "pretrain": lambda row, seed: f"{row.folder(seed)}/run.json",
            "featurize": lambda row, seed: f"{row.folder(seed)}/features.json",
            "probe": lambda row, seed: row.record(seed),
        }
        found = [f"{self.root}/{paths[stage](row, seed)}" for row, seed in rows]
        return list(dict.fromkeys([*found, *(self.evaluations.records(stage) if stage == "prepare" else ())]))

    def trained(self) -> list[str]:
        """The history of each run and seed, once each."""
        records = dict.fromkeys([*self.records("pretrain"), *self._pretrainings()])
        return [str(Path(record).with_name("history.csv")) for record in records]

    def comparison(self) -> str:
        """What the comparison asks: the preset, its experiments without their settings, and the rules of judging."""
        asked = {"preset": self.preset, "comparable": self.config.comparable, "experiments": {}}
        asked["comparison"] = self.config.comparison.model_dump(mode="json")
        for name, experiment in self.config.experiments.items():
            if name in self.pretrained:
                continue
            parts = {"figure", "table", "published", "claims", "not_run"}
            asked["experiments"][name] = experiment.model_dump(mode="json", include=parts, exclude_defaults=True)
        return json.dumps(asked | {"evaluations": self.evaluations.comparison()})

    def leftovers(self) -> list[str]:
        """What lies below the results folder and no rule makes: results of settings that are gone."""
        inside = (Path(root) for root in self.roots if root != self.root)
        others = {path.relative_to(self.root).as_posix() for path in inside if path.is_relative_to(self.root)}
        return leftovers(Path(self.root), self.made(), others)

    def experiments_of(self, run: str) -> list[str]:
        """Names of the experiments that ask for a run; those that show what others ask for do not count."""
        asking = {name: rows for name, rows in self.rows.items() if self.config.experiments[name].of is None}
        asking |= self.pretrained
        return [name for name, rows in asking.items() if any(run_id(row.run) == run for row in rows)]

    def place(self, data: str) -> str:
        """Where a data set lies, as JSON: the fields that are not part of its identity."""
        return json.dumps(whereabouts(self.prepared[data]))

    def place_of(self, run: str) -> str:
        """Where the data set of a run lies."""
        return self.place(data_id(self.runs[run].data))

    def settings(self) -> str:
        """How the preset's jobs run, as JSON."""
        return self.config.execution.canonical()

    def world(self) -> str:
        """The processes of a pretraining, as options of its command."""
        asked = self.config.hardware.pretrain
        return f"--per-node {max(asked.gpus, 1)}" + (f" --nodes {asked.nodes}" if asked.nodes else "")

    def launcher(self) -> str:
        """What starts the processes of a pretraining: srun, or nothing, for Lightning starts those of one machine."""
        asked = self.config.hardware.pretrain
        if not asked.nodes:
            return ""
        tasks = f"--nodes={asked.nodes} --ntasks-per-node={max(asked.gpus, 1)} --cpus-per-task={asked.threads}"
        return f"srun {tasks} --kill-on-bad-exit=1 --wait=120 "

    def asks(self, resource: str) -> int | str | None:
        """A resource of pretraining as the Slurm plugin wants it, by whoever starts the processes; None for not."""
        asked = self.config.hardware.pretrain
        if not asked.nodes:
            return {"gpu": asked.gpus}.get(resource)
        gres = {"gres": f"gpu:{asked.gpus}"} if asked.gpus else {}
        # The plugin takes the tasks of each node only above 1, and GPUs must not multiply those of all nodes.
        tasks = {"tasks_per_node": asked.gpus} if asked.gpus > 1 else {"tasks": asked.nodes, "tasks_per_gpu": 0}
        return ({"mpi": "srun", "nodes": asked.nodes} | gres | tasks).get(resource)

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

    def _all_pretrained(self) -> Iterator[PlannedRun]:
        return itertools.chain.from_iterable(self.pretrained.values())


def load(path: str | Path = "config.yaml") -> dict[str, Plan]:
    """Plans of every preset of a config file, by results folder. Raises UserError."""
    return plans(read_config(path))


def plans(raw: Mapping[str, Any]) -> dict[str, Plan]:
    """Plans of every preset, by results folder (`results` for *paper*, else `results/<preset>`). Raises UserError."""
    configs = presets(raw)
    roots = tuple(_root(preset) for preset in configs)
    found = [_plan(preset, config, roots) for preset, config in configs.items()]
    for plan in found:
        _refuse_unknown_points(plan, found[0])
    return {plan.root: plan for plan in found}


def _plan(preset: str, config: Config, roots: tuple[str, ...]) -> Plan:
    rows, pretrained = _rows(preset, config)
    own = {f"{name}/{row.label}": row for name, part in {**rows, **pretrained}.items() for row in part}
    asked = evaluations(config, _root(preset), _place(preset), own)
    return Plan(preset, _root(preset), roots, config, rows, pretrained, asked)


def _root(preset: str) -> str:
    return "results" if preset == PAPER else f"results/{preset}"


def _place(preset: str) -> str:
    return "config" if preset == PAPER else f"config (preset {preset})"


def _rows(preset: str, config: Config) -> tuple[dict[str, list[PlannedRow]], dict[str, list[PlannedRun]]]:
    """The rows of every experiment that runs, and of every one that only pretrains: it has no probes.

    Raises UserError for an experiment that contradicts itself.
    """
    place = _place(preset)
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"{place}: seeds: a seed stands twice in {list(config.seeds)}")
    rows: dict[str, list[PlannedRow]] = {}
    alone: dict[str, list[PlannedRun]] = {}
    for name, experiment in config.experiments.items():
        where = f"{place}: experiments.{name}"
        if experiment.not_run is not None:
            _refuse_keys(experiment, NOT_RUN, f"{where}: says why it is not run, and so cannot have")
            continue
        if not {"figure", "table", "probes", "of"} & experiment.model_fields_set:
            _refuse_keys(experiment, SHOWN, f"{where}: only pretrains, for it has no probes, and so cannot have")
            alone[name] = list(pretrained(config, name, place))
            continue
        if (experiment.figure is None) == (experiment.table is None):
            raise UserError(f"{where}: needs either a figure or a table")
        if experiment.of is not None:
            _refuse_keys(experiment, BORROWED, f"{where}: shows runs of other experiments, and so cannot have")
            continue
        if not experiment.probes:
            raise UserError(f"{where}: probes: needs at least one")
        rows[name] = list(resolved(config, name, place))
    borrowing = {name: _every_run(rows) for name, experiment in config.experiments.items() if experiment.of}
    return {name: (rows | borrowing)[name] for name in config.experiments if name in rows | borrowing}, alone


NOT_RUN = ("base", "rows", "grid", "zip", "of", "probes", "figure", "table", "claims")
SHOWN = ("published", "claims")
BORROWED = ("base", "rows", "grid", "zip", "probes")


def _refuse_keys(experiment: Experiment, keys: Sequence[str], complaint: str) -> None:
    if said := [key for key in keys if key in experiment.model_fields_set]:
        raise UserError(f"{complaint} '{said[0]}'")


def _every_run(rows: Mapping[str, Sequence[PlannedRow]]) -> list[PlannedRow]:
    """Each run with each of its grids once, under the first of its names."""
    named = (replace(row, label=f"{name}: {row.label}") for name, part in rows.items() for row in part)
    every = {(run_id(row.run), grid_id(row.grid)): row for row in reversed(list(named))}
    return list(reversed(every.values()))


# --- lines and columns -----------------------------------------------------------------------------------------------

ANY = "any number"  # of labels: only the data themselves tell it


def _refuse_unknown_points(plan: Plan, paper: Plan) -> None:
    """Published numbers and claims must speak of what is there.

    A preset that changes the paper's points keeps the published numbers of the paper: they are shown as not comparable.
    """
    for name, experiment in plan.config.experiments.items():
        if experiment.not_run is not None or name in plan.pretrained:
            continue
        where = f"{_place(plan.preset)}: experiments.{name}"
        here = plan.outline(name)
        for text, claim in experiment.claims.items():
            for line in claim.lines:
                known(line, here, f"{where}: claim '{text}': unknown row")
            if (claim.verb == "falls") != isinstance(experiment.figure, Scatter):
                raise UserError(f"{where}: claim '{text}': '{claim.verb}' does not go with this kind of figure")
        published = experiment.published.points if experiment.published else {}
        there = paper.outline(name) if name in paper.rows else {}
        for line, column in published:
            known(line, {**there, **here}, f"{where}.published: unknown row")
            columns = here.get(line, set()) | there.get(line, set())
            if ANY not in columns:
                known(column, dict.fromkeys(columns), f"{where}.published: row '{line}': unknown column")
