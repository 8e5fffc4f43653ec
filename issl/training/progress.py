"""A small file that tells how far a training is, for `issl status` and `issl plan`; unknown to Snakemake."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from issl.errors import UserError
from issl.jobs.files import write_json

log = logging.getLogger(__name__)

NAME = "progress.json"
EVERY = 5.0  # seconds between two writes at least, for short epochs


class Progress:
    """Writes the state of a training to `folder`/progress.json after an epoch. `about` is what does not change."""

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.folder, self.about = folder, about | {"slurm_job": os.environ.get("SLURM_JOB_ID")}
        self.written = float("-inf")

    def epoch_ended(self, row: Mapping[str, float], done: int, seconds: float) -> None:
        """Tells of the history's newest row, of `done` epochs and of their seconds.

        A disk that cannot take it is no reason to stop: the training itself needs no such file.
        """
        if time.monotonic() - self.written < EVERY:
            return
        self.written = time.monotonic()
        newest = {name: row.get(name) for name in ("loss", "images_per_second")}
        try:
            write_json(self.folder / NAME, {**self.about, **newest, "epoch": done, "seconds": seconds})
        except (UserError, OSError) as error:
            log.warning("%s is not up to date: %s", self.folder / NAME, error)
