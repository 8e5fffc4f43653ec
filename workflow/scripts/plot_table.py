"""Tidy results -> table, as Markdown and LaTeX."""

from typing import TYPE_CHECKING

import pandas as pd

from issl.config import Table
from issl.files import write_text
from issl.logs import to_file
from issl.tables import latex, lines, markdown

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    table = Table.model_validate_json(snakemake.params.table)
    rows = lines(pd.read_csv(snakemake.input[0]), table)
    write_text(snakemake.output.md, markdown(rows, table))
    write_text(snakemake.output.tex, latex(rows, table))
