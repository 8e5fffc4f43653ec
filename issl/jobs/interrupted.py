"""Continues a workflow that was killed, where no profile tells Snakemake to."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from issl.errors import UserError

FLAGS = ("--nolock", "--rerun-incomplete")  # both profiles have them
LOCKS = "locks"
MARKS = (LOCKS, "incomplete")  # folders in .snakemake, emptied by a snakemake that ends by itself


def continue_interrupted(options: Any) -> None:
    """Starts this snakemake again with `FLAGS`, if another one was killed in this folder and it would refuse to run.

    The other one may also be running still. Two in one folder do no harm: outputs have locks of their own
    (`issl.jobs.locks`). `options` are Snakemake's parsed ones. Raises UserError with `--directory`, after which the
    relative paths of the command lead elsewhere.
    """
    if (options.nolock and options.rerun_incomplete) or not any(map(_marks, MARKS)):
        return
    flags = " ".join(FLAGS)
    if options.directory:
        raise UserError(f"another snakemake was killed in this folder, or is running: to continue, add {flags}")
    shutil.rmtree(Path(".snakemake", LOCKS), ignore_errors=True)  # nobody else would remove them
    print(f"another snakemake was killed here, or is running: continuing with {flags}", file=sys.stderr, flush=True)
    # -P: the folder of the user is no place to import from.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "snakemake", *FLAGS, *sys.argv[1:]])


def _marks(name: str) -> list[Path]:
    return [path for path in Path(".snakemake", name).rglob("*") if path.is_file()]
