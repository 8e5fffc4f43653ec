"""The last line of `snakemake -n`: what the jobs of its DAG would take."""

import atexit
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from issl.config.plan import Plan
from issl.errors import UserError
from issl.planning import cost, page, state
from issl.planning.calibration import Estimate
from issl.sharing import shared

STAGES = ("pretrain", "featurize", "probe")  # the jobs that take time


def sum_up_at_exit(workflow: Any, plans: Mapping[str, Plan]) -> None:
    """Prints the total of a dry run after everything else. `workflow` is Snakemake's, which has its DAG by then."""

    def sum_up() -> None:
        if workflow.dag is not None:
            jobs = [
                (job.rule.name, dict(job.wildcards.items()))
                for job in workflow.dag.needrun_jobs(exclude_finished=False)
            ]
            try:
                print(total(jobs, plans), file=sys.stderr)
            except UserError as error:  # such as a record that cannot be read; the dry run itself succeeded
                print(f"error: {error}", file=sys.stderr)

    atexit.register(sum_up)


def total(jobs: Iterable[tuple[str, Mapping[str, str]]], plans: Mapping[str, Plan]) -> str:
    """The jobs that take time, by rule, and their time; each job is the name of its rule and its wildcards."""
    slow = [(rule, wildcards) for rule, wildcards in jobs if rule in STAGES]
    if not slow:
        return "nothing to pretrain, featurize or probe"
    number = Counter(rule for rule, _ in slow)
    counts = ", ".join(f"{number[rule]} {rule}" for rule in STAGES if number[rule])
    parts, pulled, unknown = [], [], {}
    for root in dict.fromkeys(wildcards["root"] for _, wildcards in slow):
        offer = shared.offer(plans[root], ask=False)
        own = [(rule, wildcards) for rule, wildcards in slow if wildcards["root"] == root]
        sources = [_source(offer, *job) for job in own]
        left = [job for job, source in zip(own, sources) if not source]
        pulled += filter(None, sources)
        unknown |= offer.unknown
        parts.append(_time(left, plans[root], cost.of(plans[root], plans)))
    pulls = f"; to be pulled: {shared.counted(pulled)}" if pulled or unknown else ""
    return f"{counts}: {' and '.join(parts)}{pulls}" + "".join(f"; {why}" for why in unknown.values())


def _source(offer: shared.Offer, rule: str, wildcards: Mapping[str, str]) -> str | None:
    """Where a training is pulled from; None if it is not, or the job is another one."""
    if rule != "pretrain":
        return None
    return offer.runs.get((wildcards["run"], int(wildcards["seed"])))


def _time(jobs: Iterable[tuple[str, Mapping[str, str]]], plan: Plan, costs: cost.Costs | None) -> str:
    if costs is None:
        epochs = sum(plan.runs[wildcards["run"]].epochs for rule, wildcards in jobs if rule == "pretrain")
        return f"{epochs:,} epochs; nothing was measured on such a device, so hours are unknown: {page.MEASURE}"
    every = [_estimate(costs, *job) for job in jobs]
    known = [estimate for estimate in every if estimate]
    without = page.without(len(every) - len(known))
    return f"{page.amount(cost.total(known), page.unit(plan))} on {costs.name}{without}"


def _estimate(costs: cost.Costs, rule: str, wildcards: Mapping[str, str]) -> Estimate | None:
    """The time of a job; of a training, what its newest checkpoint leaves."""
    done = 0.0
    if rule == "pretrain":
        found = state.of_run(costs.plan, wildcards["run"], int(wildcards["seed"]))
        done = 0.0 if found.done else found.saved
    return costs.of_job(rule, wildcards, done)
