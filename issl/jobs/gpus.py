"""GPUs of one machine without a scheduler: every job gets its own.

Snakemake counts GPUs but does not assign them, so several jobs would share the first one. Each GPU has a lock file,
which the system frees however a job ends.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from issl.errors import UserError

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
WAIT = 0.5  # seconds between two checks for a free GPU


@contextmanager
def reserved(number: int, names: Sequence[str] | None = None, locks: Path | None = None) -> Iterator[list[str]]:
    """Waits for `number` free GPUs and makes only those visible while the block runs; yields their names.

    `names` are the names to choose from, by default all visible GPUs; `locks` is a folder on this machine. Does nothing
    without GPUs, or under Slurm, which has assigned them already. Raises UserError for more GPUs than there are.
    """
    chosen_already = "SLURM_JOB_ID" in os.environ or "LOCAL_RANK" in os.environ  # by Slurm, or by the first process
    if number == 0 or chosen_already:
        yield []
        return
    names = visible() if names is None else names
    if not names:
        yield []
        return
    if number > len(names):
        raise UserError(f"a job asks for {number} GPUs, but only {len(names)} are visible ({', '.join(names)})")
    locks = locks or Path(tempfile.gettempdir(), f"issl-gpus-{os.getuid()}")
    locks.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as held:
        chosen = _wait(number, names, locks, held)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(chosen)
        log.info("GPU %s", ", ".join(chosen))
        try:
            yield chosen
        finally:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before


def visible() -> list[str]:
    """Names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]  # does not start CUDA


def _wait(number: int, names: Sequence[str], locks: Path, held: ExitStack) -> list[str]:
    announced = False
    while True:
        # One job looks at a time and takes all it needs or nothing: two that hold half each would wait forever.
        with FileLock(locks / "choosing.lock"), ExitStack() as tried:
            free = []
            for name in names:
                lock = FileLock(locks / f"{name.replace('/', '_')}.lock")
                try:
                    tried.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    continue
                free.append(name)
                if len(free) == number:
                    held.push(tried.pop_all())
                    return free
        if not announced:
            log.info("waiting for %d of the GPUs %s", number, ", ".join(names))
            announced = True
        time.sleep(WAIT)
