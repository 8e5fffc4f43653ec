"""How well the model of times would have predicted each job, from all the others."""

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from issl.planning.calibration import fit
from issl.planning.observed import Jobs

COLUMNS = ("device", "stage", "job", "seconds", "predicted", "9 of 10 below", "error %")


class Outcome(NamedTuple):
    """A job that ran, and what the other jobs of its stage on its device say of it; times in seconds."""

    device: str
    stage: str
    job: str
    seconds: float
    predicted: float
    ninety: float
    error: float  # per cent of the actual time


def outcomes(found: Jobs) -> Iterator[Outcome]:
    """Every job that has others of its stage to be predicted from; of a finished job only, not of a part."""
    for device, stages in found.items():
        for stage, jobs in stages.items():
            for place, job in enumerate(jobs):
                others = jobs[:place] + jobs[place + 1 :]
                if job.name and others:
                    middle, ninety = fit(others).estimate(job.work)
                    error = 100 * (middle - job.seconds) / job.seconds
                    yield Outcome(device, stage, job.name, job.seconds, middle, ninety, error)


def summary(found: list[Outcome]) -> list[str]:
    """For each stage on each device, the median of the absolute errors and how many jobs stayed below."""
    lines = []
    for device, stage in dict.fromkeys((each.device, each.stage) for each in found):
        own = [each for each in found if (each.device, each.stage) == (device, stage)]
        below = sum(each.seconds <= each.ninety for each in own)
        error = median(abs(each.error) for each in own)
        lines.append(f"{device}, {stage}: {len(own)} jobs, median error {error:.0f} %, {below} below their 90 % point")
    return lines
