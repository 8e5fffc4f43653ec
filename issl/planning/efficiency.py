"""How long each finished job took beside what the others predict of it, and what it used."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from issl.jobs.records import read_record
from issl.planning.actual import Outcome
from issl.planning.calibration import Measured
from issl.planning.observed import Jobs

HEAD = (
    *("job", "device", "seconds", "predicted", "9 of 10 below", "error, %"),
    *("processor, %", "memory, GB", "GPU, %", "GPU memory, GB"),
)
ABOUT = """
Seconds of each finished job, its start included. *Predicted* is the median of what a model says that is fitted to all
other jobs of the same stage and device; one job in ten should exceed *9 of 10 below*. *Processor* is in per cent of one
core, *GPU* in per cent of the time during which it computed. A field is empty where nothing was recorded.
"""


class Job(NamedTuple):
    """A finished job; times in seconds, memory in 10^9 bytes, None for what nobody recorded."""

    stage: str
    name: str
    device: str
    seconds: float
    predicted: float | None
    ninety: float | None
    error_percent: float | None
    cpu_percent: float | None  # of one core
    memory_gb: float | None
    gpu_percent: float | None
    gpu_memory_gb: float | None


def jobs(found: Jobs, outcomes: Sequence[Outcome], root: Path) -> list[Job]:
    """Every finished job of a results folder, by stage and device."""
    told = {each.job: (each.predicted, each.ninety, each.error) for each in outcomes}
    listed = [
        Job(stage, _name(job, root), device, job.seconds, *told.get(job.name, (None, None, None)), *_used(job))
        for device, stages in found.items()
        for stage, measured in stages.items()
        for job in measured
        if job.name  # a whole job
    ]
    return sorted(listed, key=lambda job: (job.stage, job.device, job.name))


def page(listed: Sequence[Job], summary: Sequence[str], root: Path) -> str:
    """The jobs as Markdown: a summary, then a table for each stage."""
    lines = [
        f"# Times of the jobs in {root}",
        ABOUT if listed else "\nNo job has finished.\n",
        *(f"- {line}" for line in summary),
    ]
    for stage in sorted({each.stage for each in listed}, key=lambda stage: (stage != "pretrain", stage)):
        rows = [each for each in listed if each.stage == stage]
        hours = sum(each.seconds for each in rows) / 3600
        lines += ["", f"## {stage}: {len(rows)} jobs, {hours:.3g} hours", "", *_table(rows)]
    return "\n".join((*lines, ""))


def _table(rows: Sequence[Job]) -> list[str]:
    """Without columns that are empty in every row."""
    table = [
        (
            *(job.name, job.device, *map(_seconds, (job.seconds, job.predicted, job.ninety))),
            *(_rounded(job.error_percent, 0), _rounded(job.cpu_percent, 0), _rounded(job.memory_gb, 2)),
            *(_rounded(job.gpu_percent, 0), _rounded(job.gpu_memory_gb, 2)),
        )
        for job in rows
    ]
    alignment = ("---", "---", *["---:"] * (len(HEAD) - 2))
    shown = [column for column in zip(HEAD, alignment, *table) if any(column[2:])]
    return [f"| {' | '.join(line)} |" for line in zip(*shown)]


def _seconds(value: float | None) -> str:
    return _rounded(value, 0 if value and value >= 100 else 1)


def _rounded(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _name(job: Measured, root: Path) -> str:
    """The path of its record, without what all jobs of a stage share."""
    return Path(job.name).relative_to(root).as_posix().removesuffix(".json").removesuffix("/run")


def _used(job: Measured) -> tuple[float | None, ...]:
    """Processor in per cent of a core, memory, GPU in per cent of the time, and its memory."""
    record = read_record(Path(job.name))
    on_gpu = not record["device"].startswith("CPU")
    if record.get("warm"):  # Snakemake watched the process that waited for it
        process, resident = {}, None if on_gpu else record["peak_memory_gb"]
    else:
        process = _process(job.benchmark) if job.benchmark else {}
        resident = process["max_rss"] * 2**20 / 1e9 if "max_rss" in process else None
    gpu = (record.get("gpu_percent"), record.get("peak_memory_gb")) if on_gpu else (None, None)
    return process.get("mean_load"), resident, *gpu


def _process(benchmark: Path) -> dict[str, float]:
    """Snakemake's record of a job's process; without what it could not measure, as of a very short one."""
    with benchmark.open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file, delimiter="\t"))
    return {name: float(value) for name, value in row.items() if value and value.replace(".", "", 1).isdigit()}
