"""A look at the place before anything is submitted: what jobs would miss there, and what to do about it."""

import importlib.util
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from issl.config.plan import Plan
from issl.errors import UserError, nearest
from issl.jobs import slurm
from issl.jobs.locks import locked
from issl.jobs.slurm import Nodes
from issl.spec.data import DataSpec, train_images
from issl.spec.run import RunSpec
from issl.upkeep import site

SUBMITTED = ("prepare", "pretrain", "featurize", "probe")  # the other rules run where snakemake does
FIRST_LOOK = 40  # seconds before Snakemake first asks how a job is
WAIT = 180  # seconds within which the trial job must have ended


class Finding(NamedTuple):
    """One thing that was looked at: what was seen, or what is wrong and what to do."""

    what: str
    verdict: Literal["ok", "note", "missing"]
    says: str


def findings(plan: Plan, profile: str | None, trial: bool = True) -> Iterator[Finding]:
    """Looks at this machine and, if jobs are submitted under `profile`, at its Slurm cluster.

    Leaves nothing behind. `trial` runs a job of a minute, which sees what jobs see. Raises UserError where there is no
    such profile.
    """
    settings = site.profile(profile) if profile else {}
    root = Path(plan.root)
    yield _disk(plan, root)
    yield _locks(root)
    if settings.get("executor") != "slurm":
        yield _gpus_here(plan)
        return
    yield _plugin()
    try:
        there = slurm.nodes()
    except UserError as error:
        yield Finding("Slurm", "missing", str(error))
        return
    yield _states_of_jobs(settings)
    wrong = [finding for rule in SUBMITTED for finding in _rule(plan, rule, site.resources(settings, rule), there)]
    yield from wrong or [Finding("jobs", "ok", f"the cluster has what {', '.join(SUBMITTED)} ask for")]
    if trial and not wrong:
        yield from _trial(plan, site.resources(settings, "pretrain"), root)


# --- this machine ----------------------------------------------------------------------------------------------------


def _disk(plan: Plan, root: Path) -> Finding:
    """Room for all targets, if every run trains at once."""
    folder = _nearest_folder(root)
    free, needed = shutil.disk_usage(folder).free, _needed(plan)
    says = f"{free / 1e9:.1f} GB free in {folder}; all targets need up to {needed / 1e9:.1f} GB"
    if free < needed:
        return Finding("disk", "missing", f"{says}: make room, or make results/ a link to another disk")
    return Finding("disk", "ok", says)


def _needed(plan: Plan) -> float:
    """Bytes, without data sets whose size the config does not tell."""
    arrays = sum(_images(data) * 3 * data.image_size**2 for data in plan.data.values())
    return arrays + sum(_needed_by(run) for run in plan.runs.values()) * len(plan.config.seeds)


def _needed_by(run: RunSpec) -> float:
    """Bytes of a run: its weights, and then first its checkpoints and later its features."""
    import torch

    from issl import objectives
    from issl.models import encoders

    with torch.device("meta"):  # shapes alone
        encoder = encoders.build(run.encoder, run.data.image_size)
        objective = objectives.build(run.objective, run.encoder.dim, encoder)
    weights, heads = (4 * sum(p.numel() for p in part.parameters()) for part in (encoder, objective))
    checkpoints = 2 * 3 * (weights + heads)  # two generations of weights and Adam's two moments
    features = 2 * run.encoder.dim * _images(run.data)
    return weights + max(checkpoints, features)


def _images(data: DataSpec) -> float:
    return 1.2 * (train_images(data) or 0)  # with the test split, at most a fifth


def _locks(root: Path) -> Finding:
    """Whether results can be written and locked, from this machine."""
    folder = _nearest_folder(root)
    if refusal := _refusal(folder / _own_name()):
        return Finding("results", "missing", refusal)
    return Finding("results", "ok", f"{folder} can be written and locked")


def _nearest_folder(path: Path) -> Path:
    """The path itself, or the first of its parents that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _own_name() -> str:
    return f".issl-doctor-{uuid4().hex}"


def _refusal(lock: Path) -> str:
    """Why a lock file cannot be held there; empty if it can. Leaves none behind."""
    try:
        with locked(lock):
            return ""
    except UserError as error:
        return str(error)
    finally:
        lock.unlink(missing_ok=True)


def _gpus_here(plan: Plan) -> Finding:
    import torch

    asked = max(getattr(plan.config.hardware, rule).gpus for rule in SUBMITTED)
    seen = torch.cuda.device_count()
    if plan.config.execution.device == "cpu" or seen >= asked > 0:
        return Finding("GPU", "ok", f"{seen} seen by torch {torch.__version__}, a job asks for at most {asked}")
    verdict = "note" if plan.config.execution.device == "auto" or asked == 0 else "missing"
    says = f"torch {torch.__version__} sees {seen}, and a job asks for {asked}"
    return Finding("GPU", verdict, f"{says}; without one: --config 'execution={{device: cpu}}'")


# --- a Slurm cluster -------------------------------------------------------------------------------------------------


def _plugin() -> Finding:
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return Finding("plugin", "missing", "Snakemake cannot submit: pip install snakemake-executor-plugin-slurm")
    return Finding("plugin", "ok", "snakemake-executor-plugin-slurm is installed")


def _states_of_jobs(settings: Mapping[str, Any]) -> Finding:
    """Whether Snakemake will learn how its jobs ended: with a command that does not know, it waits for ever."""
    command, failed = settings.get("slurm-status-command", "sacct"), slurm.accounting()
    if command != "squeue":
        if failed:
            return Finding("states", "missing", f"sacct: {failed}: say 'slurm-status-command: squeue' in {site.SITE}")
        return Finding("states", "ok", "sacct tells how jobs ended")
    kept = slurm.remembers()
    if kept is not None and kept < 3 * FIRST_LOOK:
        return Finding(
            "states",
            "missing",
            f"squeue forgets a job {kept:.0f} s after its end, before Snakemake asks: say "
            f"'slurm-init-seconds-before-status-checks: {max(kept // 3, 1):.0f}' in {site.SITE}",
        )
    return Finding("states", "ok", "squeue tells how jobs ended" + ("" if failed else "; sacct would too"))


def _rule(plan: Plan, rule: str, given: Mapping[str, Any], there: Sequence[Nodes]) -> Iterator[Finding]:
    """What the jobs of a rule ask for, and no node of their partition has."""
    partition = given.get("slurm_partition")
    names = {kind.partition for kind in there}
    if partition is None and not any(kind.default for kind in there):
        yield Finding(
            rule, "missing", f"no default partition: say slurm_partition in {site.SITE}, {nearest('', names)}"
        )
        return
    if partition is not None and partition not in names:
        yield Finding(rule, "missing", f"slurm_partition: no partition '{partition}', {nearest(partition, names)}")
        return
    kinds = [kind for kind in there if (kind.partition == partition if partition else kind.default)]
    name = kinds[0].partition
    if not any(kind.up for kind in kinds):
        yield Finding(rule, "missing", f"partition {name} takes no jobs at present ({site.SITE}: slurm_partition)")
    yield from _beyond(rule, asked(plan, rule, given), kinds, f"partition {name}")


class Asked(NamedTuple):
    """What one job needs on each of its nodes."""

    gpus: int
    kind: str  # of GPU; "" for any
    cores: int
    mem_mb: int
    minutes: int
    features: frozenset[str]


def asked(plan: Plan, rule: str, given: Mapping[str, Any]) -> Asked:
    """What the largest job of a rule asks for: what the profile says of it, over what config.yaml says."""
    table = getattr(plan.config.hardware, rule)
    types = slurm.gpus(str(given.get("gres", ""))) or {str(given.get("gpu_model", "")): table.gpus}
    minutes = [plan.minutes(rule, run) for run in plan.runs] if rule == "pretrain" else [plan.minutes(rule)]
    tasks = max(table.gpus, 1) if getattr(table, "nodes", None) else 1
    constraint = str(given.get("constraint", ""))
    plain = constraint if not set(constraint) & set("|[]()*") else ""  # alternatives are for Slurm to judge
    return Asked(
        gpus=sum(types.values()),
        kind=next(iter(types)),
        cores=int(given.get("cpus_per_task", table.threads)) * tasks,
        mem_mb=int(given.get("mem_mb", plan.mem_mb(rule))),
        minutes=int(given.get("runtime", max(minutes))),
        features=frozenset(filter(None, plain.replace("&", ",").split(","))),
    )


def _beyond(rule: str, job: Asked, kinds: Sequence[Nodes], where: str) -> Iterator[Finding]:
    """Each thing that no kind of node has enough of."""
    types = {kind for node in kinds for kind in node.gpus}
    if job.gpus and job.kind and job.kind not in types:
        known = nearest(job.kind, filter(None, types)) if any(types) else "its GPUs have no type"
        yield Finding(rule, "missing", f"no GPU of type '{job.kind}' in {where}, {known}")
    elif job.gpus:
        most = max((node.gpus.get(job.kind, 0) if job.kind else sum(node.gpus.values())) for node in kinds)
        if job.gpus > most:
            yield Finding(
                rule, "missing", f"asks for {job.gpus} GPUs on a node, {where} has {most}: hardware.{rule}.gpus"
            )
    if unknown := job.features - frozenset().union(*(node.features for node in kinds)):
        yield Finding(rule, "missing", f"constraint: no node of {where} has the feature '{min(unknown)}'")
    for key, need, most, unit in (
        ("threads", job.cores, max(node.cores for node in kinds), "cores"),
        ("mem_gb", job.mem_mb / 1000, max(node.mem_mb for node in kinds) / 1000, "GB of memory"),
    ):
        if need > most:
            yield Finding(rule, "missing", f"asks for {need:g} {unit}, {where} has {most:g}: hardware.{rule}.{key}")
    limits = [node.minutes for node in kinds]
    if None not in limits and job.minutes > max(limits):
        advice = (
            "; set hardware.pretrain.minutes to it and minutes_per_epoch to 0: a training goes on in as many slots "
        )
        advice = f"{advice}as it needs" if rule == "pretrain" else f": hardware.{rule}.minutes"
        yield Finding(rule, "missing", f"asks for {job.minutes} minutes, {where} allows {max(limits):g}{advice}")


# --- a trial job -----------------------------------------------------------------------------------------------------


def _trial(plan: Plan, given: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    """Runs a job that looks at the results folder and for a GPU, where pretraining would run."""
    job, wants_gpu = asked(plan, "pretrain", given), plan.config.execution.device == "gpu"
    folder = _nearest_folder(root)
    mark = folder / _own_name()
    command = [
        "srun",
        "--ntasks=1",
        "--time=2",
        "--mem=4000M",
        "--cpus-per-task=1",
        "--job-name=issl-doctor",
        "--quiet",
    ]
    options = {"partition": "slurm_partition", "account": "slurm_account", "constraint": "constraint", "qos": "qos"}
    command += [f"--{option}={given[key]}" for option, key in options.items() if key in given]
    if job.gpus:
        command.append(f"--gres=gpu:{job.kind + ':' if job.kind else ''}1")
    mark.write_text(socket.gethostname())
    try:
        answer = slurm.ask(*command, sys.executable, "-m", "issl.upkeep.doctor", str(mark), patience=WAIT)
    finally:
        mark.unlink(missing_ok=True)
    if answer.failed:
        yield Finding("trial job", "missing", f"no job ran within {WAIT} s ({answer.failed})")
        return
    seen = json.loads(answer.text.splitlines()[-1])
    yield Finding("trial job", "ok", f"ran on {seen['host']}")
    if not seen["mark"]:
        says = f"{seen['host']} does not see {folder}: results/ must lie on a file system that all nodes share"
        yield Finding("shared results", "missing", says)
    elif seen["lock"]:
        yield Finding("shared results", "missing", f"{seen['host']}: {seen['lock']}")
    else:
        yield Finding("shared results", "ok", f"{seen['host']} reads, writes and locks {folder}")
    if job.gpus:
        verdict = "ok" if seen["cuda"] else "missing" if wants_gpu else "note"
        says = (
            ", ".join(seen["cuda"])
            or f"torch {seen['torch']} sees no GPU on {seen['host']}: driver, or a torch without CUDA"
        )
        yield Finding("CUDA in a job", verdict, says)


def look(mark: Path) -> dict[str, Any]:
    """What a job sees: the file that it was told of, whether its folder can be locked, GPUs that torch can use."""
    import torch

    sees = mark.exists()
    cards = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "mark": sees,
        "lock": _refusal(mark.with_name(f"{mark.name}.lock")) if sees else "",
        "torch": torch.__version__,
        "cuda": [torch.cuda.get_device_name(card) for card in cards],
    }


if __name__ == "__main__":
    print(json.dumps(look(Path(sys.argv[1]))))
