"""Checks this machine and its cluster before any job is submitted: what is missing, and what to do about it."""

import importlib.util
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from issl.config import resources
from issl.config.plan import Plan
from issl.errors import UserError, nearest
from issl.jobs import slurm
from issl.jobs.locks import locked
from issl.jobs.slurm import Partition
from issl.spec.data import DataSpec
from issl.spec.run import RunSpec
from issl.upkeep import site

SUBMITTED = ("prepare", "pretrain", "featurize", "probe")  # the other rules run where snakemake does
FIRST_LOOK = 40  # seconds before Snakemake first asks for the state of a job
WAIT = 180  # seconds within which the trial job must end


class Finding(NamedTuple):
    """Result of one check: the state, or what is wrong and what to do."""

    what: str
    verdict: Literal["ok", "note", "missing"]
    says: str


def findings(plan: Plan, profile: str | None, trial: bool = True) -> Iterator[Finding]:
    """Checks this machine and, if `profile` submits to Slurm, the cluster.

    Leaves no files. `trial` also checks from inside a short job. Raises UserError if there is no such profile.
    """
    settings = site.profile(profile) if profile else {}
    root = Path(plan.root)
    yield _disk(plan, root)
    yield _locks(root)
    yield _cache()
    if settings.get("executor") != "slurm":
        yield _gpus_here(plan)
        return
    yield _plugin()
    try:
        there = slurm.partitions()
    except UserError as error:
        yield Finding("Slurm", "missing", str(error))
        return
    yield _states_of_jobs(settings)
    wrong = [finding for rule in SUBMITTED for finding in _rule(plan, rule, site.resources(settings, rule), there)]
    yield from wrong or [Finding("jobs", "ok", f"Slurm accepts those of {', '.join(SUBMITTED)}")]
    if trial and not wrong:
        yield from _trial(plan, site.resources(settings, "pretrain"), root)


# --- this machine ----------------------------------------------------------------------------------------------------


def _disk(plan: Plan, root: Path) -> Finding:
    """Checks the disk space for all targets, with every run training at once."""
    folder = _nearest_folder(root)
    free, needed = shutil.disk_usage(folder).free, _needed(plan)
    says = f"{free / 1e9:.1f} GB free in {folder}; all targets need up to {needed / 1e9:.1f} GB"
    if free < needed:
        return Finding("disk", "missing", f"{says}: free some space, or link results/ to a larger disk")
    return Finding("disk", "ok", says)


def _needed(plan: Plan) -> float:
    """Bytes, except for data sets whose size is not known from the config."""
    arrays = sum(_images(data) * 3 * data.image_size**2 for data in {run.data for run in plan.runs.values()})
    return arrays + sum(_needed_by(run) for run in plan.runs.values()) * len(plan.config.seeds)


def _needed_by(run: RunSpec) -> float:
    """Bytes of a run: its weights, plus first its checkpoints and later its features."""
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
    return 1.2 * (data.n_train or 0)  # with the test split, at most a fifth


def _locks(root: Path) -> Finding:
    """Checks that results can be written and locked from this machine."""
    folder = _nearest_folder(root)
    if refusal := _refusal(folder / _own_name()):
        return Finding("results", "missing", refusal)
    return Finding("results", "ok", f"{folder} is writable and can be locked")


def _cache() -> Finding:
    """Snakemake keeps a cache in the home folder, and ends with a traceback where it cannot."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = _nearest_folder(Path(home).expanduser() / "snakemake")
    if not os.access(folder, os.W_OK | os.X_OK):
        says = (
            f"{folder} cannot be written, and Snakemake keeps its cache there: set XDG_CACHE_HOME to a folder that can"
        )
        return Finding("cache", "missing", says)
    return Finding("cache", "ok", f"{folder} can be written")


def _nearest_folder(path: Path) -> Path:
    """The path itself, or the first of its parents that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _own_name() -> str:
    return f".issl-doctor-{uuid4().hex}"


def _refusal(lock: Path) -> str:
    """Why the lock file cannot be created and locked; empty if it can. Removes it."""
    try:
        with locked(lock):
            return ""
    except UserError as error:
        return str(error)
    finally:
        lock.unlink(missing_ok=True)


def _gpus_here(plan: Plan) -> Finding:
    import torch

    requested = max(getattr(plan.config.hardware, rule).gpus for rule in SUBMITTED)
    seen = torch.cuda.device_count()
    if plan.config.execution.device == "cpu" or seen >= requested > 0:
        return Finding("GPU", "ok", f"torch {torch.__version__} sees {seen}; a job asks for at most {requested}")
    verdict = "note" if plan.config.execution.device == "auto" or requested == 0 else "missing"
    says = f"torch {torch.__version__} sees {seen}, but a job asks for {requested}"
    return Finding("GPU", verdict, f"{says}; to run on the CPU: --config 'execution={{device: cpu}}'")


# --- a Slurm cluster -------------------------------------------------------------------------------------------------


def _plugin() -> Finding:
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return Finding("plugin", "missing", "Snakemake cannot submit: pip install snakemake-executor-plugin-slurm")
    return Finding("plugin", "ok", "snakemake-executor-plugin-slurm is installed")


def _states_of_jobs(settings: Mapping[str, Any]) -> Finding:
    """Checks that Snakemake will learn how its jobs ended; otherwise it would wait forever."""
    failed = slurm.accounting()
    if not failed and settings.get("slurm-status-command") != "squeue":
        return Finding("states", "ok", "sacct tells how jobs ended")
    kept = slurm.remembers()
    if kept is not None and kept < 3 * FIRST_LOOK:
        return Finding(
            "states",
            "missing",
            f"squeue forgets a job {kept:.0f} s after its end, before Snakemake asks: set "
            f"'slurm-init-seconds-before-status-checks: {max(kept // 3, 1):.0f}' in {site.SITE}",
        )
    return Finding("states", "ok", "squeue tells how jobs ended" + ("" if failed else "; sacct would too"))


def _rule(plan: Plan, rule: str, given: Mapping[str, Any], there: Sequence[Partition]) -> Iterator[Finding]:
    """Reasons why the largest job of a rule would never start."""
    name, names = given.get("slurm_partition"), {partition.name for partition in there}
    if name is None and not any(partition.default for partition in there):
        advice = f"no default partition: set slurm_partition in {site.SITE}, {nearest('', names)}"
        yield Finding(rule, "missing", advice)
        return
    if name is not None and name not in names:
        yield Finding(rule, "missing", f"slurm_partition: no partition '{name}', {nearest(name, names)}")
        return
    partition = next(each for each in there if (each.name == name if name else each.default))
    if not partition.up:
        yield Finding(rule, "missing", f"partition {partition.name} accepts no jobs now ({site.SITE}: slurm_partition)")
    options = _options(plan, rule, given)
    # Slurm accepts a job beyond the time limit of its partition, but never starts it.
    minutes = int(options.pop("time").value)
    if partition.minutes is not None and minutes > partition.minutes:
        advice = f": hardware.{rule}.minutes"
        if rule == "pretrain":
            advice = (
                "; set hardware.pretrain.minutes to that and minutes_per_epoch to 0: training continues in the next job"
            )
        allowed = f"partition {partition.name} allows {partition.minutes:g}"
        yield Finding(rule, "missing", f"requests {minutes} minutes, {allowed}{advice}")
    yield from _refused(rule, options)


class Option(NamedTuple):
    """An option of sbatch, and the setting that it comes from."""

    value: str
    origin: str


def _options(plan: Plan, rule: str, given: Mapping[str, Any]) -> dict[str, Option]:
    """Requests of the largest job of a rule: those of the profile override config.yaml."""
    request, hardware = resources.largest(plan, rule), f"hardware.{rule}"
    options = {
        "time": Option(str(given.get("runtime", request.minutes)), f"{hardware}.minutes"),
        "mem": Option(f"{given.get('mem_mb', resources.mem_mb(request))}M", f"{hardware}.mem_gb"),
        "cpus-per-task": Option(str(given.get("cpus_per_task", request.threads)), f"{hardware}.threads"),
    }
    gpu = f"gpu:{given['gpu_model']}:{request.gpus}" if "gpu_model" in given else f"gpu:{request.gpus}"
    if request.gpus or "gres" in given:
        origin = f"gres or gpu_model in {site.SITE}" if {"gres", "gpu_model"} & given.keys() else f"{hardware}.gpus"
        options["gres"] = Option(str(given.get("gres", gpu)), origin)
    if getattr(request, "nodes", None):
        options["nodes"] = Option(str(request.nodes), f"{hardware}.nodes")
        options["ntasks-per-node"] = Option(str(max(request.gpus, 1)), f"{hardware}.gpus")
    for option, key in SITE_OPTIONS.items():
        if key in given:
            options[option] = Option(str(given[key]), f"{key} in {site.SITE}")
    return options


SITE_OPTIONS = {"partition": "slurm_partition", "account": "slurm_account", "constraint": "constraint", "qos": "qos"}


def _refused(rule: str, options: Mapping[str, Option]) -> Iterator[Finding]:
    """Whether Slurm refuses the request, and without which option it would accept it."""
    refusal = _refusal_of(options)
    if not refusal:
        return
    culprits = [
        f"--{name}={option.value} ({option.origin})"
        for name, option in options.items()
        if name != "partition" and not _refusal_of({key: value for key, value in options.items() if key != name})
    ]
    causes = " or ".join(culprits)
    advice = f"it would accept them without {causes}" if causes else "no single option is the cause"
    yield Finding(rule, "missing", f"Slurm refuses its jobs ({refusal}); {advice}")


def _refusal_of(options: Mapping[str, Option]) -> str:
    words = [f"--{name}={option.value}" for name, option in options.items()]
    answer = slurm.ask("sbatch", "--test-only", "--wrap=true", *words)
    return answer.failed.splitlines()[-1].partition(": ")[2] or answer.failed if answer.failed else ""


# --- a trial job -----------------------------------------------------------------------------------------------------


def _trial(plan: Plan, given: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    """Runs a job, where pretraining would run, that checks the results folder and looks for a GPU."""
    options, wants_gpu = _options(plan, "pretrain", given), plan.config.execution.device == "gpu"
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
    command += [f"--{name}={options[name].value}" for name in SITE_OPTIONS if name in options]
    gpus = options.get("gres")
    if gpus:
        command.append(f"--gres={re.sub(r':[0-9]+(?=,|$)', ':1', gpus.value)}")
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
        says = f"{seen['host']} does not see {folder}: results/ must be on a file system that all nodes share"
        yield Finding("shared results", "missing", says)
    elif seen["lock"]:
        yield Finding("shared results", "missing", f"{seen['host']}: {seen['lock']}")
    else:
        yield Finding("shared results", "ok", f"{seen['host']} reads, writes and locks {folder}")
    if gpus:
        verdict = "ok" if seen["cuda"] else "missing" if wants_gpu else "note"
        says = (
            ", ".join(seen["cuda"])
            or f"torch {seen['torch']} sees no GPU on {seen['host']}: check the driver, and that torch has CUDA"
        )
        yield Finding("CUDA in a job", verdict, says)


def look(mark: Path) -> dict[str, Any]:
    """Checks from inside a job: is the file visible, can its folder be locked, and which GPUs can torch use?"""
    import torch

    sees = mark.exists()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "mark": sees,
        "lock": _refusal(mark.with_name(f"{mark.name}.lock")) if sees else "",
        "torch": torch.__version__,
        "cuda": [torch.cuda.get_device_name(gpu) for gpu in gpus],
    }


if __name__ == "__main__":
    print(json.dumps(look(Path(sys.argv[1]))))
