"""The time that the jobs of a plan take, from what was measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from issl.config.plan import Plan
from issl.errors import UserError, nearest
from issl.planning import observed, work
from issl.planning.calibration import Calibration, Estimate, Measured, fit
from issl.planning.work import Sizes, Work
from issl.spec.data import DataSpec
from issl.spec.encoder import Encoder
from issl.spec.probe import ON_CPU
from issl.spec.released import MODELS
from issl.spec.shape import Shape

FREE = Estimate(0.0, 0.0)
ONE_THREAD = " 1 threads"  # as records say
ALWAYS_ON_CPU = {f"probe {kind}" for kind in ON_CPU}


@dataclass(frozen=True)
class Costs:
    """The times of a plan's jobs on one device, fitted to what was measured there."""

    plan: Plan
    device: str
    jobs: Mapping[str, list[Measured]]  # by stage

    @property
    def name(self) -> str:
        """Of the device, for people."""
        return self.device.removesuffix(ONE_THREAD) + " 1 thread" if self.device.endswith(ONE_THREAD) else self.device

    @cached_property
    def _sizes(self) -> dict[DataSpec, Sizes | None]:
        return {data: observed.sizes(Path(self.plan.root), data) for data in self.plan.data.values()}

    @cached_property
    def _calibrations(self) -> dict[str, Calibration]:
        return {stage: fit(jobs) for stage, jobs in self.jobs.items()}

    def pretraining(self, run: str, done: float = 0.0) -> Estimate | None:
        """Seconds of a run with one seed, of which a fraction is `done`; None without a calibration or the data."""
        spec = self.plan.runs[run]
        sizes = self._sizes[spec.data]
        return sizes and self._estimate(work.pretraining(spec, sizes).part(1 - done))

    def featurizing(self, encoder: str, encoding: str) -> Estimate | None:
        """Seconds of encoding a data set with an encoder, by its folder."""
        spec = self.plan.encodings[encoding]
        sizes = self._sizes[spec.data]
        return sizes and self._estimate(work.featurizing(self._shape(encoder), spec, sizes))

    def probing(self, encoder: str, encoding: str, grid: str) -> Estimate | None:
        """Seconds of a grid of probes on an encoder."""
        spec = self.plan.encodings[encoding]
        sizes = self._sizes[spec.data]
        return sizes and self._estimate(work.probing(self.plan.grids[grid], self._shape(encoder), spec, sizes))

    def of_job(self, rule: str, ids: Mapping[str, str], done: float = 0.0) -> Estimate | None:
        """Seconds of a job of a rule, by its wildcards; of a training a fraction may be `done`."""
        if rule == "pretrain":
            return self.pretraining(ids["run"], done)
        if rule == "featurize":
            return self.featurizing(ids["encoder"], ids["encoding"])
        return self.probing(ids["encoder"], ids["encoding"], ids["grid"])

    def _shape(self, encoder: str) -> Shape | Encoder:
        name = Path(encoder).parts[1]
        return MODELS[name].encoder if encoder.startswith("weights/") else self.plan.runs[name].encoder

    def _estimate(self, job: Work) -> Estimate | None:
        if job.stage not in self._calibrations:
            return None
        return self._calibrations[job.stage].estimate(job)


def of(plan: Plan, plans: Mapping[str, Plan], device: str | None = None) -> Costs | None:
    """The times of a plan's jobs, calibrated by the records in all results folders; None if nothing was measured.

    `device` is a part of the name of a measured device. By default it is the one with most trainings: a CPU if the
    plan's jobs run on one, else a GPU. Raises UserError for a `device` that nothing was measured on.
    """
    found = observed.measured(map(Path, plans))
    if device is not None:
        names = [name for name in found if device.lower() in name.lower()]
        if not names:
            raise UserError(f"--device {device}: nothing was measured there, {nearest(device, found)}")
        return _costs(plan, names[0], found)
    on_cpu = plan.config.execution.device == "cpu"
    fitting = {name: len(stages["pretrain"]) for name, stages in found.items() if "pretrain" in stages}
    fitting = {name: number for name, number in fitting.items() if _is_cpu(name) == on_cpu}
    own = f"CPU, {plan.config.hardware.pretrain.threads} threads"  # as `devices.describe` names it
    best = own if own in fitting else max(fitting, key=lambda name: fitting[name], default=None)
    return None if best is None else _costs(plan, best, found)


def _costs(plan: Plan, device: str, found: observed.Jobs) -> Costs:
    """With the jobs that run elsewhere: those of one process beside trainings of several, and those on a CPU."""
    jobs: dict[str, list[Measured]] = {}
    for name in (*filter(_is_cpu, found), device.rpartition(" x ")[2], device):
        for stage, own in found.get(name, {}).items():
            if name == device or (stage != "pretrain" and (not _is_cpu(name) or stage in ALWAYS_ON_CPU)):
                jobs[stage] = own
    return Costs(plan, device, jobs)


def _is_cpu(device: str) -> bool:
    return "CPU" in device


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Of jobs one after another. The 90 % points are added too, as if all jobs were slow together: most of what makes
    one slower than planned, such as a busy machine, is common to them."""
    medians, nineties = zip(*estimates, FREE)
    return Estimate(sum(medians), sum(nineties))
