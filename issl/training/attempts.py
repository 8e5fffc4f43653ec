"""Attempts at one training: there may be any number of them as long as they get further."""

import json
import os
from pathlib import Path

from issl.errors import UserError
from issl.jobs.files import write_json
from issl.jobs.locks import BEGAN

FRUITLESS = 3  # attempts in a row that begin at the same step; another one would not help


def begin(folder: Path, step: int) -> None:
    """Notes in `folder` that an attempt begins after `step` steps.

    Raises UserError where the last three of this workflow began there too, and so made nothing that could be kept. A
    new call of snakemake may try again, and so may a person without one.
    """
    workflow, note = os.environ.get(BEGAN), folder / "attempts.json"
    if workflow is None:
        return
    said = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    steps = said["steps"] if said.get("workflow") == workflow else []
    if steps[-FRUITLESS:] == [step] * FRUITLESS:
        raise UserError(
            f"the last {FRUITLESS} attempts began after step {step} like this one, and none got to a checkpoint; "
            "see the logs of this run for how they ended: more memory (hardware.pretrain.mem_gb), a longer slot "
            "(hardware.pretrain.minutes) or more frequent checkpoints (execution.checkpoint_minutes) may help"
        )
    write_json(note, {"workflow": workflow, "steps": [*steps, step]})
