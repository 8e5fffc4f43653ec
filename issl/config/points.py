"""The points of figures and tables that are known from the config, to check published numbers and claims."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from issl.config.display import Lines, Scatter, Table, point_name, printed
from issl.config.layers import Place
from issl.config.resolve import PlannedRow, known
from issl.config.schema import Config, Experiment
from issl.errors import UserError
from issl.spec.probe import ProbeGrid, label_count, label_fraction
from issl.spec.released import MODELS

ANY = "any number"  # of labels, if only the data tell it

Rows = Mapping[str, Sequence[PlannedRow]]


class Point(NamedTuple):
    """A place in a figure or table: its line and column, the row that fills it, and the facts that name it."""

    line: str
    column: str
    row: PlannedRow
    facts: dict[str, Any]


def shown(config: Config, rows: Iterable[PlannedRow], display: Lines | Scatter | Table) -> Iterator[Point]:
    """Every point of a figure or table, in the order of the rows."""
    line, columns = display.axes
    for row in rows:
        for named in _points(config, row, display):
            yield Point(point_name(named, (line,)), point_name(named, columns), row, named)


def outline(config: Config, experiment: str, rows: Sequence[PlannedRow], place: Place) -> dict[str, set[str]]:
    """The lines of a figure or table, and the columns of each. Raises UserError if two results share one place."""
    display, place = config.experiments[experiment].display, place.at("experiments", experiment)
    lines: dict[str, set[str]] = {}
    for line, column, _, _ in shown(config, rows, display):
        columns = lines.setdefault(line, set())
        if column in columns and ANY not in column and not isinstance(display, Scatter):
            raise UserError(
                f"{place}: two results share the place '{line}'"
                + (f", '{column}'" if column else "")
                + "; show fewer of them, or more columns"
            )
        columns.add(column)
    for names in (lines, dict.fromkeys(column for columns in lines.values() for column in columns)):
        _refuse_alike(names, place)
    if isinstance(display, Scatter):
        for name in display.highlight:
            labels = dict.fromkeys(row.label for row in rows)
            known(name, labels, place.at("figure", "highlight"), "unknown row")
    if rows and not lines:
        raise UserError(f"{place}: no probe has what this figure shows")
    metrics = {metric for row in rows for metric in row.metrics}
    if isinstance(display, Lines) and len(metrics) > 1:
        several = " and ".join(sorted(metrics))
        raise UserError(f"{place}: a figure shows one metric, not {several}")
    return lines


def _refuse_alike(names: Iterable[str], place: Place) -> None:
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(printed(name), name)) != name:
            raise UserError(f"{place}: {other!r} and {name!r} would print alike: rename one of them")


def facts(config: Config, row: PlannedRow) -> dict[str, Any]:
    """Facts about an encoder on a data set, the columns to plot by; None if unknown, or if it is not trained."""
    method, model = config.methods.get(row.method), MODELS.get(row.released)
    return {
        "row": row.label,
        "method": method.label if method else row.released,
        "family": method.probe if method else "linear",
        "dim": row.run.encoder.dim if row.run else model.encoder.dim,
        "epochs": row.run.epochs if row.run else model.epochs,
        "batch_size": row.run.optim.batch_size if row.trained_here else None,
        "strength": row.run.augment.strength if row.trained_here else None,
        "blur": row.run.augment.blur if row.trained_here else None,
        "encoder": row.name,
        "released": row.released is not None,
        "data": row.encoding.data.name,
    }


def _points(config: Config, row: PlannedRow, display: Lines | Scatter | Table) -> Iterator[dict[str, Any]]:
    """The facts that name the points of a row."""
    of_row = facts(config, row)
    images = row.encoding.data.n_train
    for probe, grid in row.probes.items():
        if isinstance(display, Scatter) and grid.kind != of_row["family"]:
            continue
        for fraction in _fractions(grid, display):
            labels = label_count(fraction, images) if images else ANY
            for metric in row.metrics:
                yield of_row | {"probe": probe, "fraction": fraction, "n_labels": labels, "metric": metric}


def _fractions(grid: ProbeGrid, display: Lines | Scatter | Table) -> list[float]:
    """The fractions of the labels of a grid's probes that are shown."""
    decay = None if isinstance(display, Table) else display.weight_decay
    shown = [probe for probe in grid.probes if decay is None or getattr(probe, "weight_decay", None) == decay]
    fractions = dict.fromkeys(label_fraction(probe) for probe in shown)
    return [fraction for fraction in fractions if fraction == 1 or not isinstance(display, Scatter)]


def refuse_unknown_points(config: Config, rows: Rows, place: Place, paper: Config, of_paper: Rows) -> None:
    """Raises UserError, with the nearest name, for published numbers or claims about unknown points.

    A preset that changes the paper's points keeps the paper's published numbers, which are shown as not comparable.
    """
    for name, experiment in config.experiments.items():
        display = experiment.display
        if display is None or name not in rows:
            continue
        where = place.at("experiments", name)
        here = outline(config, name, rows[name], place)
        _refuse_impossible_claims(config, experiment, rows[name], here, where)
        for line in getattr(experiment.figure, "reference", ()):
            known(line, here, where.at("figure", "reference"), "unknown line")
        in_paper = name in of_paper and paper.experiments[name].display
        there = outline(paper, name, of_paper[name], place) if in_paper else {}
        for line, column in experiment.published.points if experiment.published else ():
            published = where.at("published").at("values", line, shown="")
            known(line, {**there, **here}, published, "unknown row")
            columns = here.get(line, set()) | there.get(line, set())
            if ANY not in columns:
                known(column, dict.fromkeys(columns), published.at(column, shown=f"row '{line}'"), "unknown column")


def _refuse_impossible_claims(
    config: Config, experiment: Experiment, rows: Sequence[PlannedRow], here: Mapping[str, set[str]], place: Place
) -> None:
    """Claims about the lines `here`. The log loss of a line is known where one of its rows is trained and logs it."""
    trained = [row for row in rows if row.trained_here]
    with_loss = _lines(config, [row for row in trained if row.run.objective.has_log_loss], experiment)
    for text, claim in experiment.claims.items():
        where = place.at("claims", text, shown=f"claim '{text}'")
        for line in claim.lines:
            known(line, here, where, "unknown row")
        if (claim.verb == "falls") != isinstance(experiment.figure, Scatter):
            raise UserError(f"{where}: '{claim.verb}' does not go with this kind of figure")
        if claim.verb == "falls" and experiment.figure.x != "log_loss":
            raise UserError(f"{where}: 'falls' is about the log loss, and this figure has {experiment.figure.x}")
        if claim.verb == "falls" and claim.line not in with_loss:
            is_trained = claim.line in _lines(config, trained, experiment)
            why = "its method logs none" if is_trained else "it is not trained here"
            raise UserError(f"{where}: '{claim.line}' has no log loss, because {why}")
        if claim.verb not in ("better", "falls") and experiment.table and experiment.table.columns != ("fraction",):
            raise UserError(f"{where}: '{claim.verb}' needs columns in an order; allowed: better")


def _lines(config: Config, rows: Sequence[PlannedRow], experiment: Experiment) -> set[str]:
    """The names of the lines that show one of these rows."""
    return {point.line for point in shown(config, rows, experiment.display)}
