"""Scores of one evaluation of published weights -> tidy results."""

from pathlib import Path
from typing import TYPE_CHECKING

from issl.jobs.files import whole
from issl.jobs.logs import to_file
from issl.report.evaluations import aggregate

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with to_file(snakemake.log[0]):
    results = aggregate(snakemake.params.rows, list(map(Path, snakemake.input.scores)))
    with whole(snakemake.output[0]) as temporary:
        results.to_csv(temporary, index=False)
