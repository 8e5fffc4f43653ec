"""Writes how long each finished job took, as CSV and HTML."""

from pathlib import Path
from typing import TYPE_CHECKING

from issl.jobs.files import write_csv, write_text
from issl.jobs.logs import to_file
from issl.planning import actual, efficiency, observed
from issl.report.html import html

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    named = Path(snakemake.wildcards.root)
    root = Path(snakemake.output.csv).parent  # the same, unless a storage plugin brings the inputs elsewhere
    found = observed.measured([root])
    outcomes = list(actual.outcomes(found))
    jobs = efficiency.jobs(found, outcomes, root)
    write_csv(snakemake.output.csv, efficiency.Job._fields, (job._asdict() for job in jobs))
    write_text(snakemake.output.html, html(efficiency.page(jobs, actual.summary(outcomes), named), f"Times: {named}"))
