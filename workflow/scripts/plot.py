"""Tidy results -> figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from issl.config.display import figure_of
from issl.jobs.logs import to_file
from issl.report.figures import draw, save

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    figure = draw(pd.read_csv(snakemake.input[0]), figure_of(snakemake.params.shown))
    save(figure, Path(snakemake.output.pdf), Path(snakemake.output.png))
