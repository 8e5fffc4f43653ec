"""Tidy results -> figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from issl.config import Lines
from issl.figures import draw, save
from issl.logs import to_file

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    figure = draw(pd.read_csv(snakemake.input[0]), Lines.model_validate_json(snakemake.params.figure))
    save(figure, Path(snakemake.output.pdf), Path(snakemake.output.png))
