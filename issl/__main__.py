"""The command `issl`. A job of a workflow may be done by a fork of a process that has imported all of this already."""

import sys
from collections.abc import Callable

from issl.jobs import handover
from issl.jobs.ending import run_and_end


def _command() -> Callable[[], None]:
    from issl.cli import main

    return main


def _with_all_that_jobs_use() -> Callable[[], None]:
    """Also imports the code of most jobs, with its libraries, and what these import only when they are first used."""
    import multiprocessing.synchronize  # noqa: F401

    import numpy.ctypeslib  # noqa: F401
    import sklearn.model_selection  # noqa: F401
    import torch._dynamo  # noqa: F401

    import issl.data
    import issl.jobs.gpus
    import issl.probing.featurize
    import issl.probing.heads
    import issl.probing.job
    import issl.training.launcher
    import issl.training.pretrain  # noqa: F401
    from issl.jobs import fingerprint

    for stage in fingerprint.STAGES:
        fingerprint.modules(stage)  # keeps the digest of each source, by its content

    return _command()


if sys.argv[1:] == [handover.SERVE]:
    from issl.jobs.warm import serve

    serve(_with_all_that_jobs_use)
else:
    handover.hand_over(sys.argv[1:])
    run_and_end(_command())
