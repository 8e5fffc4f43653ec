"""Resolves experiments to encoders, encodings of the data, and the probes that score them.

A row resolves as ``defaults <- method <- patches <- its own keys``: three links, no includes, no interpolation. A row
with `weights` uses an existing encoder.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_origin

from issl.config.layers import Place
from issl.config.presets import merge
from issl.config.schema import Config, Experiment, Patch, Row
from issl.config.validation import Where, validate
from issl.errors import UserError, nearest, quoted
from issl.jobs import packages
from issl.spec.augment import Augment
from issl.spec.data import DataSpec, HuggingFace, ImageFolder, ImageNet, data_id
from issl.spec.encoder import ENCODERS, arch
from issl.spec.encoding import Encoding, encoding_id
from issl.spec.objective import Untrained
from issl.spec.optim import Optim
from issl.spec.probe import KINDS, KNN, Metric, ProbeGrid, grid_id, label_count, label_fraction
from issl.spec.released import MODELS
from issl.spec.run import RunSpec, run_id
from issl.spec.value import Value

SECTIONS = tuple(Patch.model_fields)
PRETRAINING = ("augment", "encoder", "objective", "optim", "patches")  # keys about the pretraining of an encoder


@dataclass(frozen=True)
class PlannedRow:
    """One row of an experiment, resolved: an encoder on a data set, and the probes that score it.

    The encoder is one of our runs, or `released` names its weights. Without probes it is only pretrained.
    """

    label: str
    method: str | None
    run: RunSpec | None
    released: str | None
    encoding: Encoding
    probes: Mapping[str, ProbeGrid]
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]

    @cached_property
    def name(self) -> str:
        """Name of the encoder: the id of its run, or of the release."""
        return self.released or run_id(self.run)

    @property
    def trained_here(self) -> bool:
        """Whether the encoder has a training history: released weights and untrained encoders have none."""
        return self.run is not None and self.run.epochs > 0

    @cached_property
    def encoding_id(self) -> str:
        return encoding_id(self.encoding)

    def encoder(self, seed: int) -> str:
        """The folder of the encoder with this seed, below the results folder; released weights have no seed."""
        return f"weights/{self.released}" if self.released else f"runs/{self.name}/s{seed}"

    def features(self, seed: int) -> str:
        """The folder of its features, below the results folder."""
        return f"{self.encoder(seed)}/features/{self.encoding_id}"

    def score(self, probe: str, seed: int) -> str:
        """The score file of the probe with this name, below the results folder."""
        return f"{self.encoder(seed)}/probes/{self.encoding_id}/{grid_id(self.probes[probe])}-s{seed}.csv"


def resolve(config: Config, place: Place) -> dict[str, list[PlannedRow]]:
    """The rows of every experiment that runs, in order. Raises UserError for an inconsistent one."""
    _refuse_duplicate_seeds(config.seeds, place)
    _refuse_data_with_one_identity(config, place)
    for name, experiment in config.experiments.items():
        _refuse_contradictions(experiment, place.at("experiments", name))
    running = {name: e for name, e in config.experiments.items() if e.not_run is None and e.of is None}
    declared = {name: list(_declared(e, place.at("experiments", name))) for name, e in running.items()}
    runs = {
        f"{name}/{label}": found
        for name, rows in declared.items()
        for label, row in rows
        if (found := _run(config, name, label, row, place))
    }
    rows = {name: [_row(config, name, label, row, runs, place) for label, row in own] for name, own in declared.items()}
    borrowed = _every_row(config, {name: own for name, own in rows.items() if not config.experiments[name].on_request})
    return {
        name: borrowed if experiment.of else rows[name]
        for name, experiment in config.experiments.items()
        if experiment.not_run is None
    }


OWN = ("base", "rows", "grid", "zip", "probes", "seeds", "hardware")  # keys about rows and their probes
DISPLAYED = ("published", "claims")


def _refuse_contradictions(experiment: Experiment, where: Place) -> None:
    def refuse(keys: Sequence[str], complaint: str) -> None:
        if found := [key for key in keys if key in experiment.model_fields_set]:
            raise UserError(f"{where.at(found[0], shown='')}: {complaint} '{found[0]}'")

    if experiment.not_run is not None:
        refuse((*OWN, "of", "figure", "table", "claims", "on_request"), "has 'not_run', and so cannot have")
        return
    if not {"figure", "table", "probes", "of"} & experiment.model_fields_set:
        refuse(DISPLAYED, "has no probes and only pretrains, so it cannot have")
        return
    if (experiment.figure is None) == (experiment.table is None):
        raise UserError(f"{where}: needs either a figure or a table")
    if experiment.of is not None:
        refuse(OWN, "shows rows of other experiments, so it cannot have")
    elif not experiment.probes:
        raise UserError(f"{where}: probes: needs at least one")
    _refuse_duplicate_seeds(experiment.seeds or (), where)


def _refuse_data_with_one_identity(config: Config, place: Place) -> None:
    """One would silently be used for the other: an id leaves out where the data are."""
    seen: dict[str, str] = {}
    for name, data in config.data.items():
        other = seen.setdefault(data_id(data), name)
        named = isinstance(data, ImageFolder | ImageNet) or (isinstance(data, HuggingFace) and data.repo is None)
        if named and config.data[other] != data:  # the others have one content
            where = place.at("data").at(name, shown="")
            raise UserError(
                f"{where}: '{other}' and '{name}' are one data set to the workflow, but in different places: give one "
                "of them a `name` of its own"
            )


def _refuse_duplicate_seeds(seeds: Sequence[int], where: Place) -> None:
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{where.at('seeds')}: duplicate seed in {list(seeds)}")


def _every_row(config: Config, rows: Mapping[str, Sequence[PlannedRow]]) -> list[PlannedRow]:
    """Each encoder on the default data with each of its probes once, under its first name."""
    default = config.data.get(config.defaults.data)
    named = [
        replace(row, label=f"{name}: {row.label}", probes={probe: grid})
        for name, part in rows.items()
        for row in part
        for probe, grid in row.probes.items()
        if default is None or row.encoding.data == default
    ]
    every: dict[Any, PlannedRow] = {}
    for row in named:
        first = every.setdefault((row.name, row.encoding, *row.probes.values()), row)
        seeds = tuple(dict.fromkeys((*first.seeds, *row.seeds)))
        every[first.name, first.encoding, *first.probes.values()] = replace(first, seeds=seeds)
    return list(every.values())


# --- rows ------------------------------------------------------------------------------------------------------------


def _declared(experiment: Experiment, place: Place) -> Iterator[tuple[str, Row]]:
    """The rows with their labels, as written or expanded from a grid or zip."""
    ways = [way for way in (experiment.rows, experiment.grid, experiment.zip) if way is not None]
    if len(ways) != 1 or not ways[0]:
        raise UserError(f"{place}: needs exactly one of rows, grid, zip, not empty")
    if experiment.rows is not None:
        yield from experiment.rows.items()
        return
    axes, way = ways[0], place.at("grid" if experiment.grid is not None else "zip", shown="")
    if empty := [key for key, values in axes.items() if not values]:
        raise UserError(f"{way.at(empty[0])}: an empty list gives no rows")
    lengths = {len(values) for values in axes.values()}
    if experiment.zip is not None and len(lengths) > 1:
        raise UserError(f"{place.at('zip')}: the lists differ in length: {sorted(lengths)}")
    combine = zip if experiment.zip is not None else itertools.product
    seen = set()
    for values in combine(*axes.values()):
        names = [f"{key.rpartition('.')[2]} {value}" for key, value in zip(axes, values)]
        label = ", ".join(names) if len(axes) > 1 else str(values[0])
        if label in seen:
            raise UserError(f"{way}: two rows have the same name '{label}'")
        seen.add(label)
        content: dict[str, Any] = {}
        for key, value in zip(axes, values):
            content = merge(content, _nested(key, value))
        yield label, validate(Row, content, _of_row(experiment, label, place))


def _of_row(experiment: Experiment, label: str, place: Place) -> Place:
    """The place of a row, or of the grid or zip that makes it."""
    shown = f"row '{label}'"
    if experiment.rows is not None:
        return place.at("rows", label, shown=shown)
    return place.at("grid" if experiment.grid is not None else "zip", shown=shown)


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    """``a.b, 1 -> {a: {b: 1}}``"""
    head, _, rest = dotted.partition(".")
    return {head: _nested(rest, value) if rest else value}


def _run(config: Config, name: str, label: str, row: Row, place: Place) -> tuple[str, RunSpec] | None:
    """Method and pretraining of a row; None if it uses existing weights."""
    base, experiment = config.experiments[name].base, place.at("experiments", name)
    where = _of_row(config.experiments[name], label, experiment)
    own = [(place.at("experiments", name, "base"), base), (where, row)]
    method, weights = row.method or base.method, row.weights or base.weights
    if method is None and weights is None:
        raise UserError(f"{where}: needs a method ({', '.join(config.methods)}) or weights")
    if method and weights:
        raise UserError(f"{where}: has both a method and weights")
    if weights:
        if needless := [key for key in PRETRAINING if key in base.model_fields_set | row.model_fields_set]:
            key = "with" if needless[0] == "patches" else needless[0]
            raise UserError(f"{where.at(key, shown='')}: '{key}' needs a method, not weights")
        return None
    known(method, config.methods, (where if row.method else own[0][0]).at("method", shown=""), "unknown method")
    for there, layer in own:
        for patch in layer.patches:
            known(patch, config.patches, there.at("with", shown=""), "unknown patch")
    layers = [(place.at("defaults"), config.defaults), (place.at("methods", method), config.methods[method])]
    layers += [(place.at("patches", patch), config.patches[patch]) for _, layer in own for patch in layer.patches]
    settings = [(at, layer.model_dump(exclude_unset=True, include=set(SECTIONS))) for at, layer in (*layers, *own)]
    content: dict[str, Any] = {}
    for _, layer in settings:
        content = _over(content, layer)

    def origin(path: Sequence[str]) -> Place:
        """The last layer that has this setting; a combination of settings belongs to the row."""
        having = [at for at, layer in settings if _has(layer, path)]
        return having[-1] if having and path[1:] else where

    data = _data(config, content.get("data"), next((at for at, layer in settings[::-1] if "data" in layer), where))
    if data.image_size is None:
        raise UserError(
            f"{where}: data '{content['data']}' is only for evaluation, not for pretraining, without an `image_size`"
        )
    run = validate(RunSpec, content | {"data": data}, origin)
    if isinstance(run.objective, Untrained):
        run = _without_training(run)
    images = data.n_train
    if images is not None and run.epochs and run.optim.batch_size > images:
        path = ("optim", "batch_size")
        raise UserError(f"{origin(path).at(*path)}: {run.optim.batch_size} exceeds the {images} training images")
    return method, run


def _over(content: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer on top of others; if its encoder is of another class, settings that only the one below has are left out.

    So a row can say `encoder: {arch: timm/...}` whatever the defaults say of a ResNet's width.
    """
    merged, below, above = merge(content, layer), content.get("encoder", {}), layer.get("encoder", {})
    old, new = ENCODERS.get(arch(below)), ENCODERS.get(arch(above))
    if "arch" in above and old and new and old is not new:
        foreign = old.model_fields.keys() - new.model_fields.keys() - above.keys()
        merged["encoder"] = {key: value for key, value in merged["encoder"].items() if key not in foreign}
    return merged


def _without_training(run: RunSpec) -> RunSpec:
    """One run for all untrained rows with the same encoder, whatever the others are trained with.

    The views stay, because photographs are not described without them.
    """
    return run.model_copy(update={"optim": Optim(), "augment": Augment(views=run.augment.views)})


def _has(layer: Any, path: Sequence[str]) -> bool:
    """Whether a nested mapping has a value at this path; lists count as one value."""
    for step in path:
        if not isinstance(layer, Mapping):
            return True
        if step not in layer:
            return False
        layer = layer[step]
    return True


def _data(config: Config, name: str | None, where: Place) -> DataSpec:
    if name is None:
        raise UserError(f"{where}: no data set, allowed: {', '.join(config.data)}")
    known(name, config.data, where.at("data", shown=""), "unknown data set")
    if isinstance(config.data[name], HuggingFace) and not packages.installed("datasets"):
        raise UserError(f"{where}: data '{name}' needs a package: {packages.install('huggingface')}")
    return config.data[name]


def _row(
    config: Config, name: str, label: str, row: Row, runs: Mapping[str, tuple[str, RunSpec]], place: Place
) -> PlannedRow:
    experiment, place = config.experiments[name], place.at("experiments", name)
    where = _of_row(experiment, label, place)
    weights = row.weights or experiment.base.weights
    if weights:
        known(weights, {**MODELS, **runs}, where.at("weights", shown=""), "unknown weights")
    method, run = (None, None) if weights in MODELS else runs[weights or f"{name}/{label}"]
    if run and not weights:
        data = run.data
    else:
        data_name = row.data or experiment.base.data
        data = run.data if run and not data_name else _data(config, data_name or config.defaults.data, where)

    def features_at(path: Sequence[str]) -> Place:
        in_base = path and path[0] in experiment.base.features and path[0] not in row.features
        return (place.at("base") if in_base else where).at("features")

    features = merge(experiment.base.features, row.features)
    if "data" in features:
        where = features_at(["data"]).at("data")
        raise UserError(f"{where}: unknown key: the row's own `data` names the data set")
    encoding = _encoding(run, data, features, features_at)
    family = config.methods[method].probe if method else "linear"
    probes = _probes(experiment, family, label, place)
    for grid in probes.values():
        _refuse_impossible_probes(grid, encoding, place.at("probes", shown=f"row '{label}'"))
    metrics = row.metrics or experiment.base.metrics or ("top-1",)
    if "top-5" in metrics and data.n_classes is not None and data.n_classes <= 5:
        raise UserError(
            f"{where}: metrics: top-5 is 100 % of any classifier, for the data have {data.n_classes} classes"
        )
    return PlannedRow(
        *(label, method, run, None if run else weights, encoding, probes),
        *(metrics, experiment.seeds or config.seeds),
    )


def _encoding(run: RunSpec | None, data: DataSpec, own: Mapping[str, Any], where: Where) -> Encoding:
    """The encoding: for our runs in the image size of pretraining, otherwise that of the released models."""
    content: dict[str, Any] = {"data": data}
    if run and isinstance(run.data, ImageNet):
        content |= {"resize": run.data.resize, "crop": run.data.image_size}
    elif run:  # as the released code of TinyImageNet does
        content |= {"resize": run.data.image_size, "crop": run.data.image_size, "batch_size": 512}
    return validate(Encoding, content | own, where)


def _probes(experiment: Experiment, family: str, row: str, place: Place) -> dict[str, ProbeGrid]:
    """Expands lists of values, and groups probes by name: their label, or else their kind.

    The default kind is the method's probe family.
    """
    named: dict[str, list[Value]] = {}
    for number, entry in enumerate(experiment.probes):
        here = place.at(shown=f"row '{row}'").at("probes", number)
        choices = [_choices(entry.get("kind", family), key, value) for key, value in entry.items()]
        if empty := [key for key, values in zip(entry, choices) if not values]:
            raise UserError(f"{here.at(empty[0])}: an empty list gives no probes")
        for values in itertools.product(*choices):
            content = {"kind": family} | dict(zip(entry, values))
            name = content.pop("label", None) or content["kind"]
            if content["kind"] == "linear":
                content.pop("hidden", None)  # meant for the MLPs of the same experiment; a linear probe has none
            known(str(content["kind"]), KINDS, here.at("kind", shown=""), "unknown kind")
            named.setdefault(str(name), []).append(validate(KINDS[content["kind"]], content, here))
    grids = {name: {"probes": probes} for name, probes in named.items()}
    where = place.at(shown=f"row '{row}'").at("probes")
    return {name: validate(ProbeGrid, grid, where.at(shown=f"'{name}'")) for name, grid in grids.items()}


def _choices(kind: Any, key: str, value: Any) -> list[Any]:
    """The values of a probe's entry; for a setting that is itself a list, several values are a list of lists."""
    fields = KINDS[kind].model_fields if isinstance(kind, str) and kind in KINDS else {}
    if key in fields and get_origin(fields[key].annotation) is tuple:
        return value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    return value if isinstance(value, list) else [value]


def _refuse_impossible_probes(grid: ProbeGrid, encoding: Encoding, where: Place) -> None:
    """Rejects probes that would fail only after hours of pretraining, if the spec alone tells."""
    if grid.kind == "augmented":
        if encoding.data.kind != "imagenet":
            raise UserError(f"{where}: the augmented protocol crops photographs: it needs data of kind imagenet")
        if encoding.layer != "output" or encoding.batch_norm != "eval":
            raise UserError(f"{where}: the augmented protocol needs 'layer: output' and 'batch_norm: eval'")
    if grid.kind == "fine_tuned" and encoding.batch_norm != "eval":
        raise UserError(f"{where}: a fine-tuned encoder is scored in eval mode: it needs 'batch_norm: eval'")
    images, classes = encoding.data.n_train, encoding.data.n_classes
    if images is None or classes is None:
        return
    fractions = [label_fraction(probe) for probe in grid.probes]
    for probe, fraction in zip(grid.probes, fractions):
        labels = label_count(fraction, images)
        if labels < classes:
            raise UserError(
                f"{where}: probes: fraction {fraction} of {images} training images is less than one per class"
            )
        if isinstance(probe, KNN) and probe.k > (bank := labels - label_count(probe.holdout, labels)):
            raise UserError(f"{where}: probes: k {probe.k} exceeds the {bank} training images that are not held out")
        if fractions.count(fraction) > 1 and label_count(probe.holdout, labels) < classes:
            raise UserError(
                f"{where}: probes: holdout {probe.holdout} of fraction {fraction} of {images} training images, on "
                "which a setting is selected, is less than one per class; give only one setting, or larger fractions"
            )


def known(name: str, table: Mapping[str, Any], where: Place | str, complaint: str) -> None:
    """Raises UserError, with the nearest name, unless the table has this name."""
    if name not in table:
        raise UserError(f"{where}: {complaint} {quoted(name)}, {nearest(name, table)}")
