"""Draws the training curves of every run, one picture per history."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from issl.jobs.logs import to_file
from issl.report.curves import draw, save

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    Path(snakemake.output[0]).mkdir(parents=True, exist_ok=True)  # empty if all encoders are untrained
    for history in map(Path, snakemake.input):
        run, seed = history.parts[-3:-1]
        save(draw(pd.read_csv(history), f"{run}, {seed}"), Path(snakemake.output[0], f"{run}-{seed}.svg"))
