"""Where a training can be followed from elsewhere: Weights & Biases, TensorBoard, a CSV file; a row for each epoch.

`history.csv` has the same rows, but only at the end.
"""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from issl.errors import UserError
from issl.jobs.execution import Execution, Wandb
from issl.jobs.files import write_json
from issl.jobs.records import read_record
from issl.spec.run import RunSpec, run_id
from issl.training.lightning import pl

ID = "wandb.json"  # among the checkpoints: who trains anew has another id, who resumes the same


def loggers(
    execution: Execution, run: RunSpec, seed: int, experiments: Sequence[str], folder: Path, checkpoints: Path
) -> list[pl.loggers.Logger]:
    """The loggers that the config asks for. Raises UserError if the package of one is not installed.

    Packages are imported, and the network is used, only for those that it asks for.
    """
    found: list[pl.loggers.Logger] = []
    if execution.wandb.mode != "disabled":
        found.append(_wandb(execution.wandb, run, seed, experiments, folder, checkpoints))
    if "tensorboard" in execution.track:
        found.append(_tensorboard(folder))
    if "csv" in execution.track:  # in a folder of its own for each attempt
        found.append(pl.loggers.CSVLogger(folder, name="csv", flush_logs_every_n_steps=1))
    return found


def finish(trackers: Iterable[pl.loggers.Logger]) -> None:
    """Finishes every logger, so that everything is written or sent."""
    for each in trackers:
        each.finalize("success")
        if isinstance(each, pl.loggers.WandbLogger):
            each.experiment.finish()


def _tensorboard(folder: Path) -> pl.loggers.Logger:
    try:
        return pl.loggers.TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise UserError("execution.track: tensorboard is not installed: pip install 'issl[tensorboard]'") from None


def _wandb(
    wandb: Wandb, run: RunSpec, seed: int, experiments: Sequence[str], folder: Path, checkpoints: Path
) -> pl.loggers.Logger:
    """W&B's logger. The run is grouped by its first experiment and tagged with all of them.

    Only the spec is sent: no paths, no environment, no git remote (which may hold a token).
    """
    import wandb as client

    folder.mkdir(parents=True, exist_ok=True)
    name = f"{run_id(run)}-s{seed}"
    return pl.loggers.WandbLogger(
        project=wandb.project,
        entity=wandb.entity,
        id=_id(name, checkpoints / ID),
        name=name,
        group=experiments[0] if experiments else None,
        tags=list(experiments),
        config=run.model_dump(mode="json") | {"seed": seed},
        offline=wandb.mode == "offline",
        resume="allow",
        save_dir=folder,
        settings=client.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=True),
    )


def _id(name: str, note: Path) -> str:
    """An id that this training keeps when it resumes, and that the same run in another results folder has not."""
    if not note.exists():
        write_json(note, {"id": f"{name}-{secrets.token_hex(4)}"})
    return read_record(note, keys=("id",))["id"]
