"""Tidy results -> figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from issl.config import figure_of
from issl.figures import draw, save
from issl.logs import to_file

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    figure = draw(pd.read_csv(snakemake.input[0]), figure_of(snakemake.params.shown))
    save(figure, Path(snakemake.output.pdf), Path(snakemake.output.png))
