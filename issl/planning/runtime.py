"""The minutes that a job requests of a cluster: as measured on its device, or else as configured."""

import math
from collections.abc import Callable, Mapping
from functools import cache

from issl.config import resources
from issl.config.plan import Plan
from issl.errors import UserError
from issl.planning import cost

SHORTEST = 10  # minutes: a job's start may wait for a slow file system


def requests(plans: Mapping[str, Plan]) -> Callable[..., int]:
    """A function that gives the minutes of a job, of its plan, rule and wildcards."""

    @cache
    def costs(root: str) -> cost.Costs | None:
        device = plans[root].config.hardware.device
        try:
            return device and cost.of(plans[root], plans, device)
        except UserError:  # nothing was measured there yet
            return None

    def minutes(plan: Plan, rule: str, ids: Mapping[str, str]) -> int:
        known = costs(plan.root)
        if known and (estimate := known.of_job(rule, ids)):
            return max(SHORTEST, math.ceil(plan.config.hardware.margin * estimate.ninety / 60))
        if rule == "pretrain":
            return resources.pretraining_minutes(plan, ids["run"])
        return resources.request(plan, rule, *(ids.get(name, "") for name in ("encoder", "encoding", "grid"))).minutes

    return minutes
