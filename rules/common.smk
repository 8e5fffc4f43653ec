# Look-up helpers for the rules, based on the plan of a preset.
import os
import sys
from contextlib import chdir, redirect_stderr, suppress
from io import StringIO
from pathlib import Path

from snakemake.cli import parse_args

from issl.config import resources
from issl.errors import UserError
from issl.planning import runtime

IMAGE = "issl.sif"  # in the folder of config.yaml, built from containers/issl.def; used with --sdm apptainer

MINUTES = runtime.requests(PLANS)


def plan(wildcards):
    """The plan of the preset whose results folder a job writes to."""
    return PLANS[wildcards.root]


def requested(rule, amount):
    """What a job requests of something: a look-up for `threads` and `resources`."""

    def look_up(wildcards):
        ids = (wildcards.get(name, "") for name in ("encoder", "encoding", "grid"))
        return amount(resources.request(plan(wildcards), rule, *ids))

    return look_up


def minutes(rule):
    """The minutes that a job requests: what was measured on `hardware.device`, or else as configured."""
    return lambda wildcards: MINUTES(plan(wildcards), rule, dict(wildcards.items()))


# Snakemake does not compare params that are derived from resources, so a change in them reruns nothing.
def unrecorded(look_up):
    return lambda wildcards, resources: look_up(wildcards)


def settings(wildcards, resources):
    """How the preset's jobs run."""
    return plan(wildcards).settings()


def brought(input):
    """The results folder of a job's inputs: a storage plugin brings them to another one."""
    return Path(input.arrays[0]).parents[2]


def names(look_up):
    """A pattern of the names that any preset has; an empty one would match everything."""
    found = {name: None for each in PLANS.values() for name in look_up(each)}
    return "|".join(found) or "(?!)"


def command_line():
    """Snakemake's parsed options; None for a job, or where the Snakefile is read by another program."""
    program = Path(sys.argv[0]).name
    if not workflow.is_main_process or program not in ("snakemake", "__main__.py"):
        return None
    # With --directory, this is another folder than that of the command, where its profiles are.
    for folder in (os.curdir, os.environ.get("PWD", os.curdir)):
        again = StringIO()  # Snakemake has named its profiles already
        with redirect_stderr(again), chdir(folder), suppress(SystemExit):
            return parse_args(sys.argv[1:])[1]
    raise UserError(again.getvalue().strip().rpartition("\n")[2])
