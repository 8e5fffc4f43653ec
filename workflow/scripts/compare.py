"""Tidy results, published numbers and provenance -> the comparison, as JSON, Markdown and a page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from issl.jobs.files import write_json, write_text
from issl.jobs.fingerprint import STAGES
from issl.jobs.logs import to_file
from issl.report.html import html
from issl.report.page import page
from issl.report.reproduction import Asked, Made, compare

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    root = Path(snakemake.wildcards.root)
    results = {Path(path).stem: pd.read_csv(path) for path in snakemake.input.results}
    made = [
        Made(stage, Path(path).relative_to(root).as_posix(), json.loads(Path(path).read_text()))
        for stage in STAGES
        for path in snakemake.input[stage]
    ]
    report = compare(Asked.model_validate_json(snakemake.params.asked), results, made, snakemake.params.leftovers)
    text = page(report)
    write_json(snakemake.output.json, report)
    write_text(snakemake.output.md, text)
    write_text(snakemake.output.html, html(text, f"Reproduction: {report['preset']}"))
