"""Writes a table from tidy results, as Markdown, LaTeX and HTML."""

import json
from typing import TYPE_CHECKING

from issl.config.display import Table
from issl.config.evidence import Published
from issl.jobs.files import write_text
from issl.jobs.logs import to_file
from issl.report.html import html
from issl.report.results import read_results
from issl.report.tables import grid, latex, markdown

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    table = Table.model_validate_json(snakemake.params.display)
    numbers = json.loads(snakemake.params.published)
    published = Published.model_validate(numbers) if numbers else None
    cells = grid(read_results(snakemake.input[0]), table, published)
    text = markdown(cells, snakemake.params.caption)
    write_text(snakemake.output.md, text)
    write_text(snakemake.output.tex, latex(cells, snakemake.params.caption))
    write_text(snakemake.output.html, html(text, snakemake.wildcards.table))
