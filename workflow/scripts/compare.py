"""Writes the comparison as JSON, Markdown and HTML, from tidy results, published numbers and provenance."""

from pathlib import Path
from typing import TYPE_CHECKING

from issl.jobs.files import write_json, write_text
from issl.jobs.fingerprint import STAGES
from issl.jobs.logs import to_file
from issl.report.html import html
from issl.report.page import page
from issl.report.reproduction import Record, Request, compare
from issl.report.results import read_results

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    root = Path(snakemake.output.json).parent  # a storage plugin brings the inputs there
    results = {Path(path).stem: read_results(path) for path in snakemake.input.results}
    records = [Record.read(stage, Path(path), root) for stage in STAGES for path in snakemake.input[stage]]
    report = compare(
        Request.model_validate_json(snakemake.params.request), results, records, snakemake.params.leftovers
    )
    text = page(report)
    write_json(snakemake.output.json, report)
    write_text(snakemake.output.md, text)
    write_text(snakemake.output.html, html(text, f"Reproduction: {report['preset']}"))
