"""The command `issl`; a rule's job may be done in a fork of a process that has imported everything (execution.warm)."""

import sys
from collections.abc import Callable
from importlib import import_module

from issl.jobs import handover

# The code of most jobs, with the libraries that it imports, and what is imported when it is first used.
JOBS = (
    "issl.data",
    "issl.jobs.gpus",
    "issl.probing.featurize",
    "issl.probing.heads",
    "issl.probing.job",
    "issl.training.launcher",
    "issl.training.pretrain",
    "multiprocessing.synchronize",
    "numpy.ctypeslib",
    "sklearn.model_selection",
    "torch._dynamo",
)


def _command() -> Callable[[], None]:
    from issl.cli import main

    return main


def _command_and_jobs() -> Callable[[], None]:
    for module in JOBS:
        import_module(module)
    return _command()


if sys.argv[1:] == [handover.SERVE]:
    from issl.jobs.warm import serve

    serve(_command_and_jobs)
else:
    handover.hand_over(sys.argv[1:])
    _command()()
