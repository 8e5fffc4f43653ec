"""Which GPU runs which job when: longest-processing-time first, with runs split where a job's time is limited."""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

from issl.planning.budget import Job


class Part(NamedTuple):
    """A run on one GPU from `start` to `end`, in hours; `number` of `parts`, if its time is limited."""

    job: str
    gpu: int
    start: float
    end: float
    number: int = 1
    parts: int = 1


def schedule(jobs: Sequence[Job], gpus: int, slot: float | None = None) -> list[Part]:
    """The parts of all jobs in the order in which they start.

    A run that is longer than a `slot` stops there at a checkpoint and continues later, on any GPU. A GPU that becomes
    free takes the run of which most is left: for whole runs, longest-processing-time first, which takes at most
    4/3 - 1/(3 GPUs) of the shortest possible time (Graham, Bounds on multiprocessing timing anomalies, 1969).
    """
    parts = {job.name: _parts(job.hours, slot) for job in jobs}
    ready = [(-job.hours, place, job.name) for place, job in enumerate(jobs) if job.hours]
    heapq.heapify(ready)
    paused: list[tuple[float, tuple[float, int, str]]] = []  # when a part ends, and what is left of its run then
    free = [(0.0, gpu) for gpu in range(gpus)]
    numbers, done = dict.fromkeys(parts, 0), []
    while ready or paused:
        now, gpu = heapq.heappop(free)
        while paused and paused[0][0] <= now:
            heapq.heappush(ready, heapq.heappop(paused)[1])
        if not ready:
            continue  # the GPUs of the paused runs are enough from here on
        left, place, name = heapq.heappop(ready)
        numbers[name] += 1
        last = numbers[name] == parts[name]
        end = now + (-left if last else slot)
        done.append(Part(name, gpu, now, end, numbers[name], parts[name]))
        heapq.heappush(free, (end, gpu))
        if not last:
            heapq.heappush(paused, (end, (left + slot, place, name)))
    return sorted(done, key=lambda part: (part.start, part.gpu))


def _parts(hours: float, slot: float | None) -> int:
    """The number of slots that a run fills; a rounding error needs none of its own."""
    return max(1, math.ceil(hours / slot - 1e-9)) if slot else 1


def makespan(parts: Sequence[Part]) -> float:
    """Hours until the last job ends."""
    return max((part.end for part in parts), default=0.0)
