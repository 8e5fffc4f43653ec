"""Collects the scores and histories of one experiment as tidy results."""

from pathlib import Path
from typing import TYPE_CHECKING

from issl.jobs.files import whole
from issl.jobs.logs import to_file
from issl.report.results import aggregate

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    scores, histories = (list(map(Path, files)) for files in (snakemake.input.scores, snakemake.input.histories))
    results = aggregate(snakemake.params.rows, scores, histories)
    with whole(snakemake.output[0]) as temporary:
        results.to_csv(temporary, index=False)
