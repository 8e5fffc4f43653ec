"""The command lines that run a choice, and then show what it tells."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from issl.config.layers import PRESETS, combined, setting
from issl.config.plan import Plan
from issl.planning.budget import Choice
from issl.planning.page import options


def commands(
    plan: Plan, experiments: Sequence[str], choice: Choice, configfiles: Sequence[object], settings: Sequence[str]
) -> list[str]:
    """The line that runs a choice and nothing else, and the one that then compares what is there.

    Both repeat the config of this command line. The first one is left out if every score is there.
    """
    words = options(plan, configfiles, _settings(plan, experiments, choice, settings))
    comparison = shlex.join(["snakemake", f"{plan.root}/reproduction.md", *words, "existing_only=true"])
    wanted = _targets(plan, experiments, choice)
    run = " \\\n    ".join(["snakemake", *map(shlex.quote, wanted), shlex.join(words)])
    return [run, comparison] if wanted else [comparison]


def _targets(plan: Plan, experiments: Sequence[str], choice: Choice) -> list[str]:
    """Every score that a choice needs and that does not exist."""
    every = [
        (row.encoder(seed), f"{plan.root}/{row.score(probe, seed)}")
        for name in experiments
        for row in plan.rows[name]
        for seed in row.seeds
        for probe in row.probes
    ]
    return list(dict.fromkeys(path for job, path in every if job in choice.needs and not Path(path).exists()))


def _settings(plan: Plan, experiments: Sequence[str], choice: Choice, settings: Sequence[str]) -> list[str]:
    """The settings of the command line, with the seeds of the choice in its preset and experiments."""
    seeds = sorted({int(Path(job).name[1:]) for job in choice.needs})
    own = [name for name in experiments if plan.config.experiments[name].seeds]
    overlay = {"seeds": seeds} | ({"experiments": {name: {"seeds": [*seeds]} for name in own}} if own else {})
    given = [text for text in settings if text.partition("=")[0] == PRESETS]
    presets = combined([*map(setting, given), {PRESETS: {plan.preset: overlay}}])[PRESETS]
    text = yaml.safe_dump(presets, default_flow_style=True, width=float("inf"), sort_keys=False).strip()
    return [*(each for each in settings if each not in given), f"{PRESETS}={text}"]
