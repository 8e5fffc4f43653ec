"""Private, undeclared checkpoints: two generations, so that a torn one is never the only one."""

import logging
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from issl.errors import UserError
from issl.lightning import pl

log = logging.getLogger(__name__)

NAMES = ("last.ckpt", "previous.ckpt")


class Checkpoints(pl.callbacks.Checkpoint):
    """Saves at the end of an epoch when the last save is `minutes` ago.

    A Lightning `Checkpoint`, because those come last among the hooks: the history has its row by then, and a loss that
    is not finite has stopped the run.
    """

    def __init__(self, folder: Path, minutes: float):
        self.folder, self.seconds = folder, 60 * minutes
        self.saved = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if time.monotonic() - self.saved >= self.seconds:
            save(trainer, self.folder)
            self.saved = time.monotonic()


def save(trainer: pl.Trainer, folder: Path) -> None:
    """Writes a new last.ckpt whole, keeping the one before it as previous.ckpt."""
    folder.mkdir(parents=True, exist_ok=True)
    last, previous = (folder / name for name in NAMES)
    temporary = folder / ".writing.ckpt"
    trainer.save_checkpoint(temporary)
    with temporary.open("rb+") as written:
        os.fsync(written.fileno())
    if last.exists():
        last.replace(previous)
    temporary.replace(last)


def newest(folder: Path, identity: dict[str, Any]) -> Path | None:
    """The newest readable checkpoint of this very run, or None.

    Raises UserError for a checkpoint of another run: the folder is then not what its name says.
    """
    for path in (folder / name for name in NAMES):
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s); trying the one before it", path, str(error).splitlines()[0])
            continue
        if content.get("identity") != identity:
            raise UserError(f"{path}: belongs to another run; move {folder} away to start this one anew")
        return path
    return None


def remove(folder: Path) -> None:
    """Removes the checkpoints of a finished run."""
    shutil.rmtree(folder, ignore_errors=True)
