"""A program whose jobs can be forked as those of `python -m issl`, and in which a job is any Python code."""

import os
import sys
from collections.abc import Callable

from issl.jobs import handover


def job() -> None:
    exec(sys.argv[2], {"__name__": "job"})


def load() -> Callable[[], None]:
    exec(os.environ.get("ISSL_TEST_LOADED", ""))
    return job


if __name__ == "__main__":
    if sys.argv[1:] == [handover.SERVE]:
        from issl.jobs.warm import serve

        serve(load)
    handover.hand_over(sys.argv[1:])
    job()
