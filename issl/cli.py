"""The commands behind the rules, usable without Snakemake: ``python -m issl <command> --help``."""

import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from issl.config import plan as catalog
from issl.config.presets import PAPER, merge
from issl.config.schema import json_schema
from issl.config.validation import validate
from issl.errors import UserError, nearest
from issl.jobs.execution import Execution
from issl.jobs.logs import to_file
from issl.spec.data import DataSpec
from issl.spec.probe import ProbeGrid
from issl.spec.protocol import Encoding, Protocol
from issl.spec.run import RunSpec
from issl.spec.value import Value

# torch, Lightning and the rest are imported inside the commands: `issl plan` must answer at once. JSON is read inside
# `to_file`, so that what is wrong with it stands in the log file too.

M = TypeVar("M", bound=BaseModel)

_folder = click.Path(file_okay=False, path_type=Path)
_file = click.Path(dir_okay=False, path_type=Path)
_log = click.option("--log", "log_file", type=_file, help="Write messages there; errors go to stderr as well.")
_settings = click.option("--settings", default="{}", help="The config's `execution`, as JSON.")
_run = click.option("--spec", required=True, help="The run, as JSON.")
_seed = click.option("--seed", type=click.IntRange(min=0), required=True)
_place = click.option("--place", default="{}", help="Where the data set lies, as JSON.")
_data = click.option("--data", type=_folder, required=True, help="Folder of a prepared data set.")


class _Data(Value):
    """Holds a data set, whose model depends on its kind."""

    data: DataSpec


class _Protocol(Value):
    """Holds a protocol, whose model depends on its kind."""

    protocol: Protocol


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
    """A run that knows where its data set lies, for those that are decoded when they are needed."""
    run = _read(RunSpec, spec)
    located = run.data.model_dump() | _object(place, "--place")
    return run.model_copy(update={"data": validate(type(run.data), located, "--place")})


def _own_gpus(execution: Execution, number: int = 1) -> AbstractContextManager[list[str]]:
    from issl.jobs import gpus

    return gpus.reserved(0 if execution.device == "cpu" else number)


@click.group()
def issl() -> None:
    """Self-supervised learning by characterising idealized representations."""


@issl.command()
@click.option("--spec", required=True, help="What the data set is, as JSON.")
@_place
@click.option("--out", type=_folder, required=True)
@click.option("--threads", type=click.IntRange(min=1), default=1)
@_settings
@_log
def prepare(spec: str, place: str, out: Path, threads: int, settings: str, log_file: Path | None) -> None:
    """Decode a data set once into memory-mapped arrays."""
    with to_file(log_file):
        content = _object(spec, "--spec") | _object(place, "--place")
        wanted = validate(_Data, {"data": content}, "--spec").data
        progress = _read(Execution, settings, "--settings").progress
        from issl import data

        data.prepare(wanted, out, threads, progress)


@issl.command()
@_run
@_seed
@_data
@_place
@click.option("--out", type=_folder, required=True)
@click.option("--experiments", default="", help="Names for W&B, separated by commas.")
@click.option("--per-node", type=click.IntRange(min=1), default=1, help="Processes on a machine, a GPU for each.")
@click.option("--nodes", type=click.IntRange(min=1), help="Machines, where srun starts the processes.")
@_settings
@_log
def pretrain(
    spec: str,
    seed: int,
    data: Path,
    place: str,
    out: Path,
    experiments: str,
    per_node: int,
    nodes: int | None,
    settings: str,
    log_file: Path | None,
) -> None:
    """Pretrain an encoder; continues where an interrupted attempt stopped."""
    with to_file(log_file):
        run, execution = _read_run(spec, place), _read(Execution, settings, "--settings")
        with _own_gpus(execution, per_node):
            from issl.training.launcher import Launcher
            from issl.training.pretrain import pretrain

            names = [name for name in experiments.split(",") if name]
            pretrain(run, seed, data, out, execution, names, Launcher(per_node, nodes))


@issl.command()
@_run
@click.option("--encoder", type=_file, required=True)
@_data
@click.option("--out", type=_file, required=True)
@_settings
@_log
def featurize(spec: str, encoder: Path, data: Path, out: Path, settings: str, log_file: Path | None) -> None:
    """Encode every image of a data set once."""
    with to_file(log_file):
        run, execution = _read(RunSpec, spec), _read(Execution, settings, "--settings")
        with _own_gpus(execution):
            from issl.probing.encode import featurize

            featurize(run, encoder, data, out, execution)


@issl.command()
@click.option("--spec", required=True, help="The probes, as JSON.")
@_seed
@click.option("--features", type=_file, required=True)
@_data
@click.option("--out", type=_file, required=True)
@_settings
@_log
def probe(spec: str, seed: int, features: Path, data: Path, out: Path, settings: str, log_file: Path | None) -> None:
    """Train and score all probes of a grid on one run's features."""
    with to_file(log_file):
        grid, execution = _read(ProbeGrid, spec), _read(Execution, settings, "--settings")
        with _own_gpus(execution):
            from issl.probing.heads import probe

            probe(grid, seed, features, data, out, execution)


@issl.command()
@click.argument("run", type=_folder)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder, or NAME.safetensors.")
def export(run: Path, out: Path) -> None:
    """Write a run's encoder with a model card, for others to load. RUN is its folder, results/runs/<run>/s<seed>."""
    from issl.report.export import export

    for path in export(run, out):
        click.echo(path)


_encoding = click.option("--spec", required=True, help="Weights, data set and how images are encoded, as JSON.")
_places = click.option("--place", default="{}", help="Where the data set lies, and the run if it is ours, as JSON.")
_threads = click.option("--threads", type=click.IntRange(min=1), default=1)


def _read_encoding(spec: str, place: str) -> Encoding:
    return validate(Encoding, merge(_object(spec, "--spec"), _object(place, "--place")), "--spec")


@issl.command()
@_encoding
@_places
@_data
@click.option("--out", type=_folder, required=True)
@_threads
@_settings
@_log
def featurize_weights(
    spec: str, place: str, data: Path, out: Path, threads: int, settings: str, log_file: Path | None
) -> None:
    """Encode every image with frozen weights; continues where an interrupted attempt stopped."""
    with to_file(log_file):
        encoding, execution = _read_encoding(spec, place), _read(Execution, settings, "--settings")
        with _own_gpus(execution):
            from issl.probing.featurize import featurize

            featurize(encoding, data, out, threads, execution)


@issl.command()
@_encoding
@_places
@click.option("--protocol", required=True, help="The protocol, as JSON.")
@_seed
@click.option("--features", type=_folder, help="What featurize-weights wrote; the augmented protocol reads images.")
@_data
@click.option("--out", type=_file, required=True)
@_threads
@_settings
@_log
def probe_weights(
    spec: str,
    place: str,
    protocol: str,
    seed: int,
    features: Path | None,
    data: Path,
    out: Path,
    threads: int,
    settings: str,
    log_file: Path | None,
) -> None:
    """Score frozen weights by one protocol."""
    with to_file(log_file):
        encoding, execution = _read_encoding(spec, place), _read(Execution, settings, "--settings")
        asked = validate(_Protocol, {"protocol": _object(protocol, "--protocol")}, "--protocol").protocol
        if features is None and asked.kind != "augmented":
            raise UserError(f"--features: the protocol {asked.kind} needs them")
        with _own_gpus(execution, 1 if asked.kind in ("cached", "augmented") else 0):
            from issl.probing.protocols import probe

            probe(asked, seed, encoding, features, data, out, threads, execution)


@issl.command()
@click.option("--config", "path", type=_file, default="config.yaml", show_default=True)
@click.argument("experiments", nargs=-1)
def plan(path: Path, experiments: tuple[str, ...]) -> None:
    """Show the runs of every preset: id, epochs, and the experiments that use it."""
    plans = catalog.load(path)
    known = {name for plan in plans.values() for name in (*plan.rows, *plan.pretrained)}
    for name in set(experiments) - known:
        raise UserError(f"unknown experiment '{name}', {nearest(name, known)}")
    for root, plan in plans.items():
        for run, spec in plan.runs.items():
            users = plan.experiments_of(run)
            if not experiments or set(users) & set(experiments):
                click.echo(f"{root}/runs/{run}  {spec.optim.epochs} epochs  {', '.join(users)}")


@issl.command()
@click.argument("run")
@click.option("--config", "path", type=_file, default="config.yaml", show_default=True)
def show(run: str, path: Path) -> None:
    """Show every setting of a run, defaults included."""
    runs = {run: spec for plan in catalog.load(path).values() for run, spec in plan.runs.items()}
    if run not in runs:
        raise UserError(f"unknown run '{run}', {nearest(run, runs)}")
    click.echo(runs[run].model_dump_json(indent=2))


@issl.command()
@click.option("--profile", help="As for snakemake; a cluster is looked at where it submits to Slurm.")
@click.option("--preset", default=PAPER, show_default=True, help="Whose jobs would run.")
@click.option("--config", "path", type=_file, default="config.yaml", show_default=True)
@click.option("--job/--no-job", default=True, show_default=True, help="Run a job of a minute that looks from inside.")
def doctor(profile: str | None, preset: str, path: Path, job: bool) -> None:
    """Tell what is missing here before anything is submitted; status 1 if something is."""
    plan = _of_preset(path, preset)
    from issl.upkeep.doctor import findings

    complete = True
    for finding in findings(plan, profile, job):
        complete &= finding.verdict != "missing"
        click.echo(f"{finding.verdict:8}{finding.what:16}{finding.says}")
    if not complete:
        sys.exit(1)


@issl.command()
@click.option("--delete", is_flag=True, help="Remove what is listed; without it nothing is touched.")
@click.option("--preset", multiple=True, help="Only its results folder; may be given several times.")
@click.option("--config", "path", type=_file, default="config.yaml", show_default=True)
def gc(delete: bool, preset: tuple[str, ...], path: Path) -> None:
    """List what no target of the config uses and what killed jobs left; --delete removes it."""
    from issl.upkeep.cleanup import remove, rubbish

    plans = [_of_preset(path, name) for name in preset] or list(catalog.load(path).values())
    total = 0
    for plan in plans:
        for entry in rubbish(plan):
            kept = delete and not remove(plan, entry)
            total += 0 if kept else entry.bytes
            why = "in use now: kept" if kept else entry.why
            click.echo(f"{entry.bytes / 1e6:10.1f} MB  {plan.root}/{entry.path}  {why}")
    click.echo(f"{total / 1e6:10.1f} MB  " + ("removed" if delete else "can go: issl gc --delete"))


def _of_preset(path: Path, preset: str) -> catalog.Plan:
    plans = {plan.preset: plan for plan in catalog.load(path).values()}
    if preset not in plans:
        raise UserError(f"unknown preset '{preset}', {nearest(preset, plans)}")
    return plans[preset]


@issl.command()
def schema() -> None:
    """Print the JSON schema of config.yaml."""
    click.echo(json.dumps(json_schema(), indent=2))


def main() -> None:
    """Runs a command; a mistake of the user is one line on stderr and exit status 1, never a traceback."""
    try:
        issl(sys.argv[1:] or ["--help"], standalone_mode=False)
    except UserError as error:
        sys.exit(f"error: {error}")
    except click.ClickException as error:
        sys.exit(f"error: {error.format_message()}")
    except click.Abort:
        sys.exit("error: interrupted")
