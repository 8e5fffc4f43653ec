"""Collects the scores and histories of one experiment as tidy results."""

from pathlib import Path
from typing import TYPE_CHECKING

from issl.jobs.files import whole
from issl.jobs.logs import to_file
from issl.report.results import aggregate

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    inputs = snakemake.input
    files = (list(map(Path, paths)) for paths in (inputs.scores, inputs.histories, inputs.records))
    results = aggregate(snakemake.params.rows, *files)
    with whole(snakemake.output[0]) as temporary:
        results.to_csv(temporary, index=False)
