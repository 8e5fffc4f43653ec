"""The results that a command line asks for."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from issl.config.layers import PAPER
from issl.config.plan import Plan
from issl.errors import UserError, nearest


def asked(plans: Mapping[str, Plan], targets: Sequence[str], preset: str = PAPER) -> list[tuple[Plan, list[str]]]:
    """The plans that targets belong to, each with the experiments asked for.

    A target is an experiment, the path of a result, a preset or `all`; none stands for `all`. Names belong to `preset`.
    Raises UserError for an unknown one.
    """
    by_preset = {plan.preset: plan for plan in plans.values()}
    if preset not in by_preset:
        raise UserError(f"unknown preset '{preset}', {nearest(preset, by_preset)}")
    found: dict[str, list[str]] = {}
    for target in map(os.path.normpath, targets or ["all"]):
        plan, names = _of(target, by_preset, by_preset[preset])
        known = found.setdefault(plan.root, [])
        known += [name for name in names if name not in known]
    return [(plans[root], names) for root, names in found.items()]


def begun(plans: Mapping[str, Plan]) -> list[str]:
    """The presets of which something is on disk, or else *paper*: what is meant by whoever names none."""
    found = [plan.preset for root, plan in plans.items() if any(Path(root, name).exists() for name in ("runs", "logs"))]
    return found or [PAPER]


def by_default(plan: Plan) -> list[str]:
    """The experiments that `all` makes."""
    return [name for name in plan.rows if not plan.config.experiments[name].on_request]


def of_path(plan: Plan, path: str) -> list[str]:
    """The experiments that a result of a plan shows; none if `path` is of another plan, or no path."""
    if path in (*plan.reproduction, *plan.times, f"{plan.root}/curves"):
        return by_default(plan)
    return [name for name in plan.rows if path in plan.files(name)]


def _of(target: str, by_preset: Mapping[str, Plan], chosen: Plan) -> tuple[Plan, list[str]]:
    if target in chosen.rows:
        return chosen, [target]
    if target == "all" or target in by_preset:
        plan = by_preset.get(target, chosen)
        return plan, by_default(plan)
    for plan in by_preset.values():
        if names := of_path(plan, target):
            return plan, names
    files = [file for plan in by_preset.values() for name in plan.rows for file in plan.files(name)]
    raise UserError(f"unknown result '{target}', {nearest(target, [*chosen.rows, *by_preset, *files])}")
