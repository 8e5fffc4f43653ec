# Look-up helpers for the rules, based on the plan of a preset.
import sys
from pathlib import Path

from snakemake.cli import parse_args

from issl.config import resources


def plan(wildcards):
    """The plan of the preset whose results folder a job writes to."""
    return PLANS[wildcards.root]


def requested(rule, amount):
    """What a job requests of something: a look-up for `threads` and `resources`."""

    def look_up(wildcards):
        ids = (wildcards.get(name, "") for name in ("encoder", "encoding", "grid"))
        return amount(resources.request(plan(wildcards), rule, *ids))

    return look_up


# Snakemake does not compare params that are derived from resources, so a change in them reruns nothing.
def unrecorded(look_up):
    return lambda wildcards, resources: look_up(wildcards)


def settings(wildcards, resources):
    """How the preset's jobs run."""
    return plan(wildcards).settings()


def names(look_up):
    """A pattern of the names that any preset has; an empty one would match everything."""
    found = {name: None for each in PLANS.values() for name in look_up(each)}
    return "|".join(found) or "(?!)"


def targets_of_this_command():
    """What the command line asks for; nothing where the Snakefile is read by another program."""
    if Path(sys.argv[0]).name not in ("snakemake", "__main__.py"):
        return []
    return parse_args(sys.argv[1:])[1].targets or []
