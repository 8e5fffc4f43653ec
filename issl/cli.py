"""Command line of the rules, usable without Snakemake: ``python -m issl <command> --help``."""

import json
import sys
from collections.abc import Callable, Collection, Container, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from issl import __version__
from issl.config import plan as catalog
from issl.config.layers import PAPER
from issl.config.presets import merge
from issl.config.schema import json_schema
from issl.config.validation import validate
from issl.errors import UserError, exiting, nearest
from issl.jobs.execution import Execution
from issl.jobs.logs import to_file
from issl.spec.data import DataSpec
from issl.spec.encoding import Encoding
from issl.spec.probe import ON_CPU, ProbeGrid
from issl.spec.run import RunSpec
from issl.spec.value import Value

# Commands import torch, Lightning and the rest themselves, so that `issl plan` answers at once. Commands of rules parse
# their JSON themselves, so that mistakes in it reach the log file.

M = TypeVar("M", bound=BaseModel)
Plans = dict[str, catalog.Plan]  # by results folder
Wanted = Sequence[tuple[catalog.Plan, Sequence[str]]]  # plans, each with the experiments asked for

_folder = click.Path(file_okay=False, path_type=Path)
_existing = click.Path(exists=True, file_okay=False, path_type=Path)
_file = click.Path(dir_okay=False, path_type=Path)
_spec = click.option("--spec", required=True, help="Spec of the job, as JSON.")
_seed = click.option("--seed", type=click.IntRange(min=0), required=True)
_place = click.option("--place", default="{}", help="Location of the data set, as JSON.")
_encoder = click.option("--encoder", required=True, help="Folder of a run, or name of a released model.")
_threads = click.option("--threads", type=click.IntRange(min=1), default=1)
_data = click.option("--data", type=_folder, required=True, help="Folder of a prepared data set.")


def _config(command: Callable[..., None]) -> Callable[..., None]:
    """A command that reads the config as snakemake does, and gets `plans`."""

    @wraps(command)
    def planned(configfiles: tuple[Path, ...], settings: tuple[str, ...], **options: Any) -> None:
        from issl.planning.possible import refuse_impossible

        plans = catalog.load(overlays=configfiles, settings=settings)
        refuse_impossible(plans)
        command(plans=plans, **options)

    files = click.option(
        "--configfile",
        "configfiles",
        type=_file,
        multiple=True,
        help="On top of config.yaml, or instead if none is here.",
    )
    keys = click.option("--config", "settings", multiple=True, metavar="KEY=VALUE", help="On top of both.")
    return files(keys(planned))


def _job(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command that a rule calls: it gets `execution`, and its messages go to the rule's log file."""

    @wraps(command)
    def logged(settings: str, log_file: Path | None, **options: Any) -> None:
        with to_file(log_file):
            command(execution=_read(Execution, settings, "--settings"), **options)

    log = click.option("--log", "log_file", type=_file, help="Write messages to this file; errors also go to stderr.")
    return click.option("--settings", default="{}", help="The config's `execution`, as JSON.")(log(logged))


class _Data(Value):
    """Holds a data set, whose model depends on its kind."""

    data: DataSpec


def _object(text: str, option: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{option}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{option}: must be a JSON object, not {text[:80]}")
    return content


def _read(model: type[M], text: str, option: str = "--spec") -> M:
    return validate(model, _object(text, option), option)


def _read_run(spec: str, place: str) -> RunSpec:
    """A run with the location of its data set, which photographs decoded during training need."""
    run = _read(RunSpec, spec)
    located = run.data.model_dump() | _object(place, "--place")
    return run.model_copy(update={"data": validate(type(run.data), located, "--place")})


def _read_encoding(spec: str, place: str) -> Encoding:
    """An encoding with the location of its data set."""
    content = merge(_object(spec, "--spec"), {"data": _object(place, "--place")})
    return validate(Encoding, content, "--spec")


def _own_gpus(execution: Execution, number: int = 1) -> AbstractContextManager[list[str]]:
    from issl.jobs import gpus

    return gpus.reserved(0 if execution.device == "cpu" else number)


@click.group()
@click.version_option(__version__, prog_name="issl", message="%(prog)s %(version)s")
def issl() -> None:
    """Self-supervised learning by characterising idealized representations."""


@issl.command()
@_spec
@_place
@click.option("--out", type=_folder, required=True)
@_threads
@_job
def prepare(spec: str, place: str, out: Path, threads: int, execution: Execution) -> None:
    """Decode a data set once into memory-mapped arrays."""
    from issl import data

    content = _object(spec, "--spec") | _object(place, "--place")
    data.prepare(validate(_Data, {"data": content}, "--spec").data, out, threads, execution.progress)


@issl.command()
@_spec
@_place
@_seed
@_data
@click.option("--out", type=_folder, required=True)
@click.option("--experiments", default="", help="Names for W&B, separated by commas.")
@click.option("--per-node", type=click.IntRange(min=1), default=1, help="Processes per machine, each with its own GPU.")
@click.option("--nodes", type=click.IntRange(min=1), help="Machines, if srun starts the processes.")
@_job
def pretrain(
    spec: str,
    place: str,
    seed: int,
    data: Path,
    out: Path,
    experiments: str,
    per_node: int,
    nodes: int | None,
    execution: Execution,
) -> None:
    """Pretrain an encoder, continuing where an interrupted attempt stopped."""
    run = _read_run(spec, place)
    with _own_gpus(execution, per_node):
        from issl.training.launcher import Launcher
        from issl.training.pretrain import pretrain

        names = [name for name in experiments.split(",") if name]
        pretrain(run, seed, data, out, execution, names, Launcher(per_node, nodes))


@issl.command()
@_encoder
@_spec
@_place
@_data
@click.option("--out", type=_folder, required=True)
@_threads
@_job
def featurize(encoder: str, spec: str, place: str, data: Path, out: Path, threads: int, execution: Execution) -> None:
    """Encode every image of a data set once, continuing where an interrupted attempt stopped."""
    encoding = _read_encoding(spec, place)
    with _own_gpus(execution):
        from issl.probing.featurize import featurize

        featurize(encoder, encoding, data, out, threads, execution)


@issl.command()
@_encoder
@_spec
@_place
@click.option("--probes", required=True, help="The probes, as JSON.")
@_seed
@click.option("--features", type=_folder, required=True, help="Output of featurize; some probes read images instead.")
@_data
@click.option("--out", type=_file, required=True)
@_threads
@_job
def probe(encoder: str, spec: str, place: str, probes: str, seed: int, **job: Any) -> None:
    """Train and score probes of one kind on a frozen encoder."""
    grid, encoding = _read(ProbeGrid, probes, "--probes"), _read_encoding(spec, place)
    with _own_gpus(job["execution"], 0 if grid.kind in ON_CPU else 1):
        from issl.probing.job import Job, probe

        probe(grid, seed, Job(encoder, encoding, **job))


@issl.command()
@click.argument("run", type=_folder)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder, or NAME.safetensors.")
def export(run: Path, out: Path) -> None:
    """Write a run's encoder and a model card, to share. RUN is its folder, results/runs/<run>/s<seed>."""
    from issl.report.export import export

    for path in export(run, out):
        click.echo(path)


@issl.command()
@click.argument("targets", nargs=-1)
@click.option("--preset", default=PAPER, show_default=True, help="Preset of the experiments that you name.")
@click.option("--device", help="Plan for this measured device: a part of its name.")
@click.option("--json", "as_json", is_flag=True, help="For programs, with times in seconds.")
@click.option("--measure", is_flag=True, help="First train each kind of run for --steps steps here, to calibrate.")
@click.option("--steps", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--budget", metavar="TIME", help="Choose the runs that show most within it: 40h, 2d, or 6000epochs.")
@click.option("--decide", multiple=True, metavar="CLAIM", help="Choose the cheapest runs that decide this claim.")
@click.option("--seeds-up-to", type=click.IntRange(1, 100), help="Most seeds of a run.  [default: 5]")
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs that share the runs.  [default: 1]")
@click.option("--slot", metavar="TIME", help="A job's time limit, at which longer runs stop and continue in another.")
@click.option("--chart", type=_folder, help="Draw the schedule, and what other budgets would show, into this folder.")
@_config
def plan(
    plans: Plans,
    targets: tuple[str, ...],
    preset: str,
    device: str | None,
    as_json: bool,
    measure: bool,
    steps: int,
    **choice: Any,
) -> None:
    """Show the runs that results need: how they differ, how far they are, and how long the rest takes.

    A TARGET is an experiment, the path of a result, or a preset; without any, everything that `all` makes. With
    --budget or --decide, show which runs and seeds to do first, and the command that runs them.
    """
    from issl.planning.asked import asked

    given = {name: value for name, value in choice.items() if value}
    chooses = "budget" in given or "decide" in given
    if given and not chooses:
        raise UserError(f"--{next(iter(given)).replace('_', '-')}: needs --budget or --decide")
    wanted = asked(plans, targets, preset)
    if measure:
        _measure(wanted, steps)
    if chooses:
        _advise(plans, wanted, device, as_json, **given)
    else:
        _list(plans, wanted, device, as_json)


def _measure(wanted: Wanted, steps: int) -> None:
    """Calibrates the costs of the runs of these experiments."""
    from issl.planning import trial
    from issl.planning.listing import needed

    for one, experiments in wanted:
        with _own_gpus(one.config.execution):
            for line in trial.measure(one, list(needed(one, experiments)), steps):
                click.echo(line, err=True)


def _list(plans: Plans, wanted: Wanted, device: str | None, as_json: bool) -> None:
    """Shows a table of runs, their total and the command that starts them, or the same as JSON."""
    from issl.planning import cost, page
    from issl.planning.listing import entries
    from issl.sharing import shared
    from issl.upkeep import terminal

    given, found = click.get_current_context().params, []
    for one, experiments in wanted:
        costs, offer = cost.of(one, plans, device), shared.offer(one, ask=True)
        for reason in offer.unknown.values():
            click.echo(f"shared: {reason}", err=True)
        runs = entries(one, experiments, costs, offer.runs)
        command = page.start(one, experiments, given["configfiles"], given["settings"], given["targets"])
        if as_json:
            found.append(page.as_json(one, runs, costs, command))
        elif page.complete(runs):
            click.echo(page.nothing_left(runs, command))
        else:
            terminal.show_rows(page.columns(costs), page.rows(runs, costs))
            click.echo(f"{page.summary(one, runs, costs)}\nstart: {command}")
    if as_json:
        click.echo(json.dumps(found, indent=2))


def _advise(
    plans: Plans, wanted: Wanted, device: str | None, as_json: bool, chart: Path | None = None, **given: Any
) -> None:
    """Shows the best choice within a budget, or the cheapest one that decides claims."""
    from issl.planning import cost
    from issl.planning.advice import IN_EPOCHS, UNMEASURED, Limits, advise, outlook
    from issl.planning.start import commands
    from issl.sharing import shared
    from issl.upkeep import terminal

    if len(wanted) > 1:
        raise UserError(
            f"--budget and --decide plan for one preset, not for {' and '.join(p.preset for p, _ in wanted)}"
        )
    ((one, experiments),) = wanted
    limits, config, offer = Limits(**given), click.get_current_context().params, shared.offer(one, ask=True)
    for reason in offer.unknown.values():
        click.echo(f"shared: {reason}", err=True)
    advice = advise(one, experiments, limits, cost.of(one, plans, device), offer.runs)
    if advice is None and as_json:
        raise UserError(f"--budget: must be in epochs, as in 6000epochs. {UNMEASURED}")
    if advice is None:
        click.echo(f"{UNMEASURED} Choose one of these budgets instead, as in --budget 6000epochs:")
        terminal.show(outlook(one, experiments, limits, offer.runs))
        return
    lines = commands(advice.plan, advice.experiments, advice.choice, config["configfiles"], config["settings"])
    drawn: Sequence[Path] = ()
    if chart:
        from issl.planning import pictures

        drawn = pictures.draw(chart, advice)
    if as_json:
        click.echo(json.dumps(advice.as_json(lines), indent=2))
        return
    if advice.unit == "epochs":
        click.echo(IN_EPOCHS)
    terminal.show(advice.runs())
    terminal.show(advice.claims())
    click.echo(advice.summary())
    for line in [*map(str, drawn), *(f"\n{line}" for line in lines)]:
        click.echo(line)


@issl.command()
@click.argument("targets", nargs=-1)
@click.option("--preset", help="Preset of the experiments that you name; otherwise paper.")
@click.option("--all", "every", is_flag=True, help="Also list trainings that are done, to be pulled or not started.")
@click.option("--watch", type=click.FloatRange(min=0.1), is_flag=False, flag_value=5, metavar="SECONDS")
@_config
def status(plans: Plans, targets: tuple[str, ...], preset: str | None, every: bool, watch: float | None) -> None:
    """Show what a workflow that runs, here or in Slurm, or that was left, has done: each training, and its log.

    A TARGET is as of `plan`; without any, every preset that has begun. --watch shows it again every 5 SECONDS, until
    Ctrl-C.
    """
    from issl.planning import status as progress
    from issl.planning.asked import asked, begun
    from issl.sharing import shared
    from issl.upkeep import terminal

    wanted = asked(plans, targets or ([preset] if preset else begun(plans)), preset or PAPER)

    def now() -> tuple[Sequence[str], Sequence[progress.Training], str]:
        rows, lines = [], []
        for plan, experiments in wanted:
            offer = shared.offer(plan, ask=False)  # --watch would ask again and again
            found = progress.trainings(plan, experiments, offer.runs)
            rows += [each for each in found if every or each.state not in ("done", *progress.TO_COME)]
            lines.append(f"{plan.preset}: {progress.summary(plan, experiments, found)}")
            lines += [f"shared: {reason}" for reason in offer.unknown.values()]
        return progress.COLUMNS, rows, "\n".join(lines)

    if watch:
        terminal.watch(now, watch)
        return
    names, rows, line = now()
    if rows:
        terminal.show_rows(names, rows)
    click.echo(line)


@issl.command()
@click.argument("roots", nargs=-1, type=_existing)
@click.option("--all", "every", is_flag=True, help="Also list every job.")
@_config
def times(roots: tuple[Path, ...], every: bool, plans: Plans) -> None:
    """Compare the time of each finished job with what all others predict, of every preset or of the folders ROOTS."""
    from issl.planning import actual, observed
    from issl.upkeep import terminal

    found = list(actual.outcomes(observed.measured(roots or map(Path, plans))))
    if not found:
        raise UserError("fewer than two finished jobs of one kind: nothing to compare")
    if every:
        terminal.show_rows(actual.COLUMNS, found)
    click.echo("\n".join(actual.summary(found)))


@issl.command()
@click.argument("run")
@_config
def show(run: str, plans: Plans) -> None:
    """Show every setting that a run uses, defaults included. RUN is its id, or the path of its folder."""
    run = catalog.run_in(run)
    runs = {run: spec for plan in plans.values() for run, spec in plan.runs.items()}
    if run not in runs:
        raise UserError(f"unknown run '{run}', {nearest(run, runs)}")
    unused = set() if runs[run].epochs else set(catalog.OF_TRAINING)
    click.echo(runs[run].model_dump_json(indent=2, exclude=unused))


@issl.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--from", "source", metavar="SOURCE", help="A folder, http(s)://... or hf:ORG/NAME; else `shared`.")
@click.option("--seed", type=click.IntRange(min=0), help="Only this one; otherwise every seed that the source has.")
@click.option("--preset", help="Preset whose results it joins; otherwise the one that has this run.")
@_config
def pull(plans: Plans, runs: tuple[str, ...], source: str | None, seed: int | None, preset: str | None) -> None:
    """Bring published runs here instead of training them: encoder, history, record and scores, checked.

    Each of RUNS is an id, or the path of a run's folder or of one seed's. What is here already is never replaced.
    """
    from issl.sharing.pull import pull
    from issl.sharing.shared import find

    chosen = _of_preset(plans, preset) if preset else None
    for job, origin, files in [each for run in runs for each in find(plans, run, source, seed, chosen)]:
        names = pull(origin, job.run, job.seed, files, job.folder)
        size = sum(files[name].size for name in names) / 1e6
        brought = f"pulled {len(names)} files, {size:.1f} MB, from {origin}" if names else "nothing to do, it is here"
        click.echo(f"{job.folder}: {brought}")


@issl.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--to", required=True, metavar="PLACE", help="A folder, NAME.zip or hf:ORG/NAME.")
@_config
def push(plans: Plans, runs: tuple[str, ...], to: str) -> None:
    """Publish finished runs, so that others can pull them: beside what is there, which is never replaced.

    Each of RUNS is an id, which stands for all its seeds, or the path of a run's folder or of one seed's.
    """
    from issl.sharing.push import push
    from issl.upkeep import runs as on_disk

    known = on_disk.finished(map(Path, plans))
    folders = dict.fromkeys(run.folder for name in runs for run in on_disk.chosen(name, known))
    number = push(list(folders), to)
    click.echo(f"{to}: {f'{number} new files' if number else 'nothing to do, it has them all'}")


@issl.command()
@click.argument("roots", nargs=-1, type=_existing)
@click.option("--where", multiple=True, metavar="COLUMN=TEXT", help="Only rows with this text; linear* is a pattern.")
@click.option("--sort", metavar="COLUMN", help="Largest first; accuracy stands for val_selected.")
@click.option("--csv", is_flag=True, help="Tidy CSV with every column, instead of a table.")
@_config
def runs(roots: tuple[Path, ...], where: tuple[str, ...], sort: str | None, csv: bool, plans: Plans) -> None:
    """List the finished runs on disk with their accuracies (%), of every preset or of the results folders ROOTS."""
    from issl.upkeep import runs as on_disk
    from issl.upkeep import terminal

    table = on_disk.results(on_disk.finished(roots or map(Path, plans)))
    for condition in where:
        name, given, text = condition.partition("=")
        if not given:
            raise UserError(f"--where {condition}: must be COLUMN=TEXT")
        table = on_disk.matching(table, _column(name, table), text)
    if not csv:
        table = on_disk.headlines(table)
    if sort:
        column = _column("val_selected" if sort == "accuracy" else sort, table)
        table = table.sort_values(column, ascending=False, kind="stable")
    if csv:
        click.echo(table.to_csv(index=False), nl=False)
    else:
        terminal.show(on_disk.readable(table))


def _column(name: str, table: Collection[str]) -> str:
    if name not in table:
        raise UserError(f"unknown column '{name}', {nearest(name, table)}")
    return name


@issl.command()
@click.argument("first")
@click.argument("second")
@_config
def compare(first: str, second: str, plans: Plans) -> None:
    """Show in which settings two finished runs differ, and what came out.

    Each is an id, which stands for the mean over its seeds, or the path of a run's folder or of one seed's.
    """
    from issl.upkeep import runs as on_disk
    from issl.upkeep import terminal

    known = on_disk.finished(map(Path, plans))
    sides = [on_disk.chosen(name, known) for name in (first, second)]
    settings, scores = on_disk.compared(*sides)
    if settings.empty:
        click.echo("both have the same settings")
    else:
        terminal.show(settings)
    terminal.show(scores)


@issl.command()
@click.argument("preset", default=PAPER)
@click.option("--out", type=_file, help="The file to write; by default report-PRESET.html, here.")
@_config
def report(preset: str, out: Path | None, plans: Plans) -> None:
    """Put the results of a preset on one page, in one file to send: verdicts, figures, tables, curves, runs, costs."""
    from issl.jobs.files import write_text
    from issl.upkeep.overview import overview

    out = out or Path(f"report-{preset}.html")
    write_text(out, overview(_of_preset(plans, preset)))
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@issl.command()
@click.option("--profile", help="Snakemake profile; if it submits to Slurm, the cluster is checked too.")
@click.option("--preset", default=PAPER, show_default=True, help="Preset whose jobs would run.")
@_config
@click.option("--job/--no-job", default=True, show_default=True, help="Also check from inside a one-minute job.")
def doctor(profile: str | None, preset: str, plans: Plans, job: bool) -> None:
    """Check that jobs can run here before you submit any; exit status 1 if something is missing."""
    from issl.upkeep.doctor import findings

    complete = True
    for finding in findings(_of_preset(plans, preset), profile, job):
        complete &= finding.verdict != "missing"
        click.echo(f"{finding.verdict:8}{finding.what:16}{finding.says}")
    if not complete:
        sys.exit(1)


@issl.command()
@click.argument("unused", nargs=-1)
@click.option("--delete", is_flag=True, help="Remove what nobody needs, and the unused results that you name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--preset", multiple=True, help="Only look at this preset's results; may be repeated.")
@_config
def gc(unused: tuple[str, ...], delete: bool, yes: bool, preset: tuple[str, ...], plans: Plans) -> None:
    """List what nobody needs, such as checkpoints of finished runs, and apart from it unused results.

    Unused results may belong to another config: give the same --configfile as to snakemake. They are removed only if
    you name them.
    """
    from issl.upkeep.cleanup import remove, rubbish

    chosen = [_of_preset(plans, name) for name in preset] or list(plans.values())
    found = {f"{plan.root}/{entry.path}": (plan, entry) for plan in chosen for entry in rubbish(plan)}
    named = {_listed(path, found) for path in unused}
    going = {path: each for path, each in found.items() if each[1].spent or path in named}
    staying = {path: each for path, each in found.items() if path not in going}
    for title, entries in (("", going), ("unused, and removed only if you name it:\n", staying)):
        lines = [f"{entry.bytes / 1e6:10.1f} MB  {path}  {entry.why}\n" for path, (_, entry) in entries.items()]
        click.echo(title * bool(lines) + "".join(lines), nl=False)
    total = f"{sum(entry.bytes for _, entry in going.values()) / 1e6:10.1f} MB"
    if not delete:
        click.echo(f"{total}  can be removed: issl gc --delete")
        return
    if going and not yes:
        click.confirm(f"{total}: remove?", abort=True)
    kept = [path for path, (plan, entry) in going.items() if not remove(plan, entry)]
    click.echo("".join(f"in use, kept: {path}\n" for path in kept) + f"removed: {len(going) - len(kept)}")


def _listed(path: str, found: Container[str]) -> str:
    """The entry that a path of the command line names, with or without the slash of a folder."""
    for name in (path, f"{path.rstrip('/')}/"):
        if name in found:
            return name
    raise UserError(f"{path}: nothing that can be removed; `issl gc` lists what can")


def _of_preset(plans: Plans, preset: str) -> catalog.Plan:
    by_name = {plan.preset: plan for plan in plans.values()}
    if preset not in by_name:
        raise UserError(f"unknown preset '{preset}', {nearest(preset, by_name)}")
    return by_name[preset]


@issl.command()
def schema() -> None:
    """Print the JSON schema of config.yaml."""
    click.echo(json.dumps(json_schema(), indent=2))


def main() -> None:
    """Runs a command of `issl`."""
    run(issl, sys.argv[1:] or ["--help"])


def run(command: click.Command, arguments: Sequence[str] | None = None) -> None:
    """Runs a command, by default with the process's arguments.

    A user's mistake gives one line on stderr and exit status 1, never a traceback.
    """
    try:
        with exiting():
            command(arguments, standalone_mode=False)
    except click.ClickException as error:
        sys.exit(f"error: {error.format_message()}")
    except click.Abort:
        sys.exit("error: interrupted")
