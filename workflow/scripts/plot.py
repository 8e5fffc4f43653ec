"""Draws a figure from tidy results."""

from pathlib import Path
from typing import TYPE_CHECKING

from issl.config.display import figure_of
from issl.jobs.logs import to_file
from issl.report.figures import draw, save
from issl.report.results import read_results

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    figure = draw(read_results(snakemake.input[0]), figure_of(snakemake.params.display))
    save(figure, Path(snakemake.output.pdf), Path(snakemake.output.png))
