"""Weights & Biases: one run per pretraining, with the same id when it resumes."""

from collections.abc import Sequence
from pathlib import Path

from issl.jobs.execution import Wandb
from issl.spec.run import RunSpec, run_id
from issl.training.lightning import pl


def logger(wandb: Wandb, run: RunSpec, seed: int, experiments: Sequence[str], folder: Path) -> pl.loggers.Logger | None:
    """The logger that the config asks for, or None; wandb is imported, and the network used, only if it asks for one.

    The run is grouped by its first experiment and tagged with all of them. Only the spec is sent: no paths, no
    environment, no git remote (which may hold a token).
    """
    if wandb.mode == "disabled":
        return None
    import wandb as client

    folder.mkdir(parents=True, exist_ok=True)
    name = f"{run_id(run)}-s{seed}"
    return pl.loggers.WandbLogger(
        project=wandb.project,
        entity=wandb.entity,
        id=name,
        name=name,
        group=experiments[0] if experiments else None,
        tags=list(experiments),
        config=run.model_dump(mode="json") | {"seed": seed},
        offline=wandb.mode == "offline",
        resume="allow",
        save_dir=folder,
        settings=client.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=True),
    )


def finish(logger: pl.loggers.Logger | None) -> None:
    """Finishes the W&B run, so that everything is written or sent."""
    if logger:
        logger.experiment.finish()
