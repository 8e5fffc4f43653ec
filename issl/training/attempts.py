"""Counts attempts at one training run: any number is allowed as long as they make progress."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from issl.errors import UserError
from issl.jobs import provenance
from issl.jobs.files import write_json
from issl.jobs.locks import BEGAN
from issl.jobs.records import read_record

log = logging.getLogger(__name__)

FRUITLESS = 3  # attempts in a row from the same step, after which another would not help


def begin(folder: Path, step: int) -> None:
    """Records in `folder` that an attempt begins after `step` steps.

    Raises UserError if the last three of this workflow began there too, and so saved no checkpoint. A new call of
    snakemake, or a call without it, may try again.
    """
    workflow, note = os.environ.get(BEGAN), folder / "attempts.json"
    if workflow is None:
        return
    earlier = read_record(note, "delete it") if note.exists() else {}
    steps = earlier.get("steps", []) if earlier.get("workflow") == workflow else []
    if steps[-FRUITLESS:] == [step] * FRUITLESS:
        raise UserError(
            f"the last {FRUITLESS} attempts began after step {step} like this one, and none reached a checkpoint; "
            "see this run's logs for how they ended: more memory (hardware.pretrain.mem_gb), a longer time limit "
            "(hardware.pretrain.minutes) or more frequent checkpoints (execution.checkpoint_minutes) may help"
        )
    write_json(note, {"workflow": workflow, "steps": [*steps, step]})


def warn_of_changes(before: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> None:
    """Logs a warning where an attempt continues a training with something else than the one before it."""
    for change in provenance.changes([before[-1], now]) if before else ():
        log.warning("this attempt continues a training with another %s; the comparison will flag the run", change)
