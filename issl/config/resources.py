"""Resources that a job requests, and how the processes of pretraining are started."""

from collections.abc import Iterable

from issl.config.hardware import Resources
from issl.config.plan import Plan
from issl.spec.probe import ON_CPU


def request(plan: Plan, rule: str, encoder: str = "", encoding: str = "", grid: str = "") -> Resources:
    """What a job of a rule requests: the most of what the experiments that use it say."""
    users = {name for name, used, _ in plan.users.get((encoder, encoding), ()) if grid in ("", used)}
    found = _most(plan, rule, users)
    if grid and plan.grids[grid].kind in ON_CPU:
        return found.model_copy(update={"gpus": 0})
    return found


def largest(plan: Plan, rule: str) -> Resources:
    """Requests of the largest job of a rule, except for experiments on request.

    Featurizing and the probes that read the features may be submitted as one job, so their minutes add up; those of
    pretraining depend on its epochs.
    """
    names = [name for name in plan.rows if not plan.config.experiments[name].on_request]
    found = _most(plan, rule, names)
    minutes = found.minutes
    if rule == "pretrain":
        runs = {row.name for name in names for row in plan.rows[name] if row.run}
        minutes = max((pretraining_minutes(plan, run) for run in runs), default=minutes)
    if rule == "probe":
        minutes += largest(plan, "featurize").minutes
    return found.model_copy(update={"minutes": minutes})


def _most(plan: Plan, rule: str, experiments: Iterable[str]) -> Resources:
    found = getattr(plan.config.hardware, rule)
    for name in experiments:
        more = getattr(plan.config.experiments[name].hardware, rule, None)
        wanted = more.model_dump(exclude_none=True) if more else {}
        found = found.model_copy(update={key: max(value, getattr(found, key)) for key, value in wanted.items()})
    return found


def mem_mb(request: Resources) -> int:
    """Memory that a job requests, in 10^6 bytes."""
    return round(1000 * request.mem_gb)


# --- pretraining ---


def world(plan: Plan) -> str:
    """The processes of pretraining, as options of its command."""
    request = plan.config.hardware.pretrain
    return f"--per-node {max(request.gpus, 1)}" + (f" --nodes {request.nodes}" if request.nodes else "")


def launcher(plan: Plan) -> str:
    """Command that starts the processes of pretraining: srun, or none, as Lightning starts those of one machine."""
    request = plan.config.hardware.pretrain
    if not request.nodes:
        return ""
    tasks = f"--nodes={request.nodes} --ntasks-per-node={max(request.gpus, 1)} --cpus-per-task={request.threads}"
    return f"srun {tasks} --kill-on-bad-exit=1 --wait=120 "


def of_pretraining(plan: Plan, resource: str) -> int | str | None:
    """A resource of pretraining for the Slurm plugin, which depends on what starts the processes; None to omit it."""
    request = plan.config.hardware.pretrain
    if not request.nodes:
        return {"gpu": request.gpus}.get(resource)
    gres = {"gres": f"gpu:{request.gpus}"} if request.gpus else {}
    # The plugin uses tasks_per_node only above 1, and GPUs must not multiply the tasks.
    tasks = {"tasks_per_node": request.gpus} if request.gpus > 1 else {"tasks": request.nodes, "tasks_per_gpu": 0}
    return ({"mpi": "srun", "nodes": request.nodes} | gres | tasks).get(resource)


def pretraining_minutes(plan: Plan, run: str) -> int:
    """Run time that pretraining requests, in minutes."""
    request = plan.config.hardware.pretrain
    return round(request.minutes + request.minutes_per_epoch * plan.runs[run].epochs)
