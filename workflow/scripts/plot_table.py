"""Tidy results -> table, as Markdown, LaTeX and a page."""

import json
from typing import TYPE_CHECKING

import pandas as pd

from issl.config.display import table_of
from issl.config.evidence import Published
from issl.jobs.files import write_text
from issl.jobs.logs import to_file
from issl.report.html import html
from issl.report.tables import grid, latex, markdown

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    table = table_of(snakemake.params.shown)
    numbers = json.loads(snakemake.params.published)
    published = Published.model_validate(numbers) if numbers else None
    cells = grid(pd.read_csv(snakemake.input[0]), table, published)
    text = markdown(cells, snakemake.params.caption)
    write_text(snakemake.output.md, text)
    write_text(snakemake.output.tex, latex(cells, snakemake.params.caption))
    write_text(snakemake.output.html, html(text, snakemake.wildcards.table))
