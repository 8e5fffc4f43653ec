"""Private checkpoints, unknown to Snakemake: two generations, so that an incomplete one is never the only one."""

import errno
import logging
import os
import pickle
import shutil
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from issl.errors import UserError
from issl.jobs import allocation, distributed
from issl.jobs.files import write_json
from issl.training.lightning import pl

log = logging.getLogger(__name__)

NAMES = ("last.ckpt", "previous.ckpt")
SAVED = "saved.json"  # the steps that the newest one has, and those of the whole training, for plans
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError)


class Checkpoints(pl.callbacks.Checkpoint):
    """Saves after a step if the last save is `minutes` old; saves and stops on a signal or before the time limit.

    It stops on SIGTERM, SIGINT and SIGUSR1, which schedulers, users and `sbatch --signal` send, and `margin` minutes
    before the job's time limit, but not before 4/5 of the time. It then raises `allocation.Stopped`.

    A Lightning `Checkpoint`, because those run last among the hooks: the history then has its row, and a loss that is
    not finite has stopped the run.
    """

    def __init__(self, folder: Path, minutes: float, margin: float):
        self.folder, self.seconds = folder, 60 * minutes
        self.stop_requested, self.resources = allocation.StopRequest(), ExitStack()
        now, left = time.monotonic(), allocation.seconds_left()
        self.saved = now
        self.end = None if left is None else now + left - min(60 * margin, left / 5)
        if left is not None:
            log.info("the time limit of this job is in %.0f minutes", left / 60)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Not earlier: Lightning has now set its own handlers, which would end the process without a checkpoint.
        handling_signals = allocation.handling_signals(
            self.stop_requested, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
        )
        self.resources.enter_context(handling_signals)

    # Before Lightning restores the original handlers: if ours were still set, they would put back Lightning's.
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.resources.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.resources.close()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 < trainer.num_training_batches:  # after the last step the history lacks its row
            self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        now = time.monotonic()
        walltime_over = self.end is not None and now >= self.end
        if distributed.agreed(bool(self.stop_requested.signal or walltime_over)):
            if trainer.global_step < trainer.num_training_batches * trainer.max_epochs:  # else training is done
                self._stop(trainer, walltime_over)
        elif distributed.agreed(now - self.saved >= self.seconds):
            try:
                save(trainer, self.folder)
            except UserError as error:  # the disk may have space at the next attempt
                log.warning("%s; training continues and will try again", error)
            self.saved = time.monotonic()

    def _stop(self, trainer: pl.Trainer, walltime_over: bool) -> None:
        reason = self.stop_requested.signal or "time limit"
        save(trainer, self.folder)
        raise allocation.Stopped(
            f"stopped after step {trainer.global_step} ({reason}) and saved; run the same command to continue",
            walltime_over and not self.stop_requested.signal,
        )


def save(trainer: pl.Trainer, folder: Path) -> None:
    """Writes a new last.ckpt atomically; the old one becomes previous.ckpt. Raises UserError if it cannot."""
    last, previous = (folder / name for name in NAMES)
    temporary = folder / ".writing.ckpt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(temporary)  # called on all ranks; the first one writes
        if not distributed.is_rank_zero():
            return
        _exchange(temporary, last, previous)
        steps = {"step": trainer.global_step, "steps": trainer.num_training_batches * trainer.max_epochs}
        write_json(folder / SAVED, steps)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"{folder}: cannot save a checkpoint: {_reason(error, folder)}") from error


def _exchange(temporary: Path, last: Path, previous: Path) -> None:
    """Makes a complete file the newest generation; syncs it to disk before renaming it."""
    with temporary.open("rb+") as written:
        os.fsync(written.fileno())
    if last.exists():
        last.replace(previous)
    temporary.replace(last)
    _sync(last.parent)


def _reason(error: OSError | RuntimeError, folder: Path) -> str:
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error)
    full = folder.exists() and shutil.disk_usage(folder).free < 2**20
    return os.strerror(errno.ENOSPC) if full else str(error).splitlines()[0]


def _sync(folder: Path) -> None:
    """Makes the renaming survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def newest(folder: Path, identity: dict[str, Any]) -> tuple[Path, int] | None:
    """The newest readable checkpoint of this run and its number of steps, or None.

    Raises UserError for a checkpoint of another run.
    """
    for path in (folder / name for name in NAMES):
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except UNREADABLE as error:
            log.warning("%s cannot be read (%s); trying the previous one", path, str(error).splitlines()[0])
            continue
        found = content.get("identity") or {}
        if {**found, "data": None} == {**identity, "data": None} and found.get("data") != identity.get("data"):
            raise UserError(
                f"{path}: was trained on other images or labels than the prepared ones; restore the data, move "
                f"{folder} away to start this run over, or give the new data set its own name"
            )
        if found != identity:
            raise UserError(f"{path}: belongs to another run; move {folder} away to start this one over")
        return path, content["global_step"]
    return None


def remove(folder: Path) -> None:
    """Removes the checkpoints of a finished run."""
    shutil.rmtree(folder, ignore_errors=True)
