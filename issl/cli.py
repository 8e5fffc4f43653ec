"""The commands behind the rules, usable without Snakemake: ``python -m issl <command> --help``."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from issl import catalog, config
from issl.config import Execution
from issl.errors import UserError, nearest
from issl.logs import to_file
from issl.spec import DataSpec, ProbeGrid, RunSpec, Value

# torch, Lightning and the rest are imported inside the commands: `issl plan` must answer at once.


class _Spec(click.ParamType):
    """A value as canonical JSON."""

    name = "json"

    def __init__(self, model: type[Value]):
        self.model = model

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Value:
        return config.validate(self.model, _json(value), str(param.opts[0]) if param else "value")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"not valid JSON: {error}: {text[:80]}") from None


def _data_spec(content: dict[str, Any]) -> DataSpec:
    # A data spec is one of several models: validate it as the field of a model that has only this one.
    from pydantic import create_model

    holder = create_model("Data", __base__=Value, data=(DataSpec, ...))
    return config.validate(holder, {"data": content}, "--spec").data


_folder = click.Path(file_okay=False, path_type=Path)
_file = click.Path(dir_okay=False, path_type=Path)
_log = click.option("--log", "log_file", type=_file, help="Write messages there; errors go to stderr as well.")
_settings = click.option("--settings", type=_Spec(Execution), default="{}", help="The config's `execution`, as JSON.")
_run = click.option("--spec", "run", type=_Spec(RunSpec), required=True, help="The run, as JSON.")
_seed = click.option("--seed", type=click.IntRange(min=0), required=True)


@click.group()
def issl() -> None:
    """Self-supervised learning by characterising idealized representations."""


@issl.command()
@click.option("--spec", required=True, help="What the data set is, as JSON.")
@click.option("--place", default="{}", help="Where it lies, as JSON.")
@click.option("--out", type=_folder, required=True)
@click.option("--threads", type=click.IntRange(min=1), default=1)
@_settings
@_log
def prepare(spec: str, place: str, out: Path, threads: int, settings: Execution, log_file: Path | None) -> None:
    """Decode a data set once into memory-mapped arrays."""
    with to_file(log_file):
        from issl import data

        data.prepare(_data_spec(_json(spec) | _json(place)), out, threads, progress=settings.progress)


@issl.command()
@_run
@_seed
@click.option("--data", type=_folder, required=True, help="Folder of a prepared data set.")
@click.option("--out", type=_folder, required=True)
@click.option("--experiments", default="", help="Names for W&B, separated by commas.")
@_settings
@_log
def pretrain(
    run: RunSpec, seed: int, data: Path, out: Path, experiments: str, settings: Execution, log_file: Path | None
) -> None:
    """Pretrain an encoder; continues where an interrupted attempt stopped."""
    with to_file(log_file):
        from issl.pretrain import pretrain

        pretrain(run, seed, data, out, settings, [name for name in experiments.split(",") if name])


@issl.command()
@_run
@click.option("--encoder", type=_file, required=True)
@click.option("--data", type=_folder, required=True, help="Folder of a prepared data set.")
@click.option("--out", type=_file, required=True)
@_settings
@_log
def featurize(run: RunSpec, encoder: Path, data: Path, out: Path, settings: Execution, log_file: Path | None) -> None:
    """Encode every image of a data set once."""
    with to_file(log_file):
        from issl.features import featurize

        featurize(run, encoder, data, out, settings)


@issl.command()
@click.option("--spec", "grid", type=_Spec(ProbeGrid), required=True, help="The probes, as JSON.")
@_seed
@click.option("--features", type=_file, required=True)
@click.option("--data", type=_folder, required=True, help="Folder of a prepared data set.")
@click.option("--out", type=_file, required=True)
@_settings
@_log
def probe(
    grid: ProbeGrid, seed: int, features: Path, data: Path, out: Path, settings: Execution, log_file: Path | None
) -> None:
    """Train and score all probes of a grid on one run's features."""
    with to_file(log_file):
        from issl.probe import probe

        probe(grid, seed, features, data, out, settings)


@issl.command()
@click.option("--config", "path", type=_file, default="config.yaml", show_default=True)
@click.argument("experiments", nargs=-1)
def plan(path: Path, experiments: tuple[str, ...]) -> None:
    """Show the runs of every preset: id, epochs, and the experiments that use it."""
    plans = catalog.load(path)
    known = {name for plan in plans.values() for name in plan.rows}
    if unknown := set(experiments) - known:
        raise UserError(f"unknown experiment '{min(unknown)}', {nearest(min(unknown), known)}")
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
def schema() -> None:
    """Print the JSON schema of config.yaml."""
    click.echo(json.dumps(config.json_schema(), indent=2))


def main() -> None:
    """Runs a command; a mistake of the user is one line on stderr and exit status 1, never a traceback."""
    try:
        issl(standalone_mode=False)
    except (UserError, click.ClickException) as error:
        sys.exit(f"error: {error.format_message() if isinstance(error, click.ClickException) else error}")
    except click.Abort:
        sys.exit("error: interrupted")
