"""GPUs of one machine without a scheduler: every job gets cards of its own.

Snakemake counts GPUs but does not say which; several jobs would share the first one. Each card has a lock file, which
the system frees when a job dies, however it dies.
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
WAIT = 0.5  # seconds between two looks for a free card


@contextmanager
def reserved(number: int, cards: Sequence[str] | None = None, locks: Path | None = None) -> Iterator[list[str]]:
    """Makes `number` free cards the only visible ones while the block runs, waiting until there are as many.

    `cards` are the names to choose from, by default those that are visible; `locks` is a folder of this machine. Under
    Slurm, which has chosen, nothing happens, nor where there is no card. Raises UserError for more than there are.
    """
    chosen_already = "SLURM_JOB_ID" in os.environ or "LOCAL_RANK" in os.environ  # by Slurm, or by the first process
    if number == 0 or chosen_already:
        yield []
        return
    cards = visible() if cards is None else cards
    if not cards:
        yield []
        return
    if number > len(cards):
        raise UserError(f"a job asks for {number} GPUs, and {len(cards)} can be seen ({', '.join(cards)})")
    locks = locks or Path(tempfile.gettempdir(), f"issl-gpus-{os.getuid()}")
    locks.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as held:
        chosen = _wait(number, cards, locks, held)
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
    """Names of the cards that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]  # does not start CUDA


def _wait(number: int, cards: Sequence[str], locks: Path, held: ExitStack) -> list[str]:
    said = False
    while True:
        # One job looks at a time, and takes all it needs or nothing: two that hold half each would wait for ever.
        with FileLock(locks / "choosing.lock"), ExitStack() as tried:
            free = []
            for card in cards:
                lock = FileLock(locks / f"{card.replace('/', '_')}.lock")
                try:
                    tried.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    continue
                free.append(card)
                if len(free) == number:
                    held.push(tried.pop_all())
                    return free
        if not said:
            log.info("waiting for %d of the GPUs %s", number, ", ".join(cards))
            said = True
        time.sleep(WAIT)
