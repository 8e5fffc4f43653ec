"""Images a second of every run of the paper, and the GPU-hours that follow."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.session import EXECUTION, Line, Piece, Session, forget_peak_memory, peak_memory_gb
from benchmarks.measure import ROUNDS, spread
from benchmarks.pretraining import Method, noise, short_epochs
from issl.data.arrays import Arrays
from issl.spec.run import RunSpec, run_id

STEPS = 60  # of each timed epoch


def pieces(session: Session) -> Iterator[Piece]:
    """One for all runs that differ in nothing but their epochs."""
    alike: dict[RunSpec, list[RunSpec]] = {}
    for run in session.runs:
        any_length = run.optim.model_copy(update={"epochs": 0})
        alike.setdefault(run.model_copy(update={"optim": any_length}), []).append(run)
    images = cache(partial(noise, session.runs[0], session.n_images))
    for runs in alike.values():
        yield Piece(run_id(runs[0]), 0.5, partial(lines, session, runs, images))


def lines(session: Session, runs: Sequence[RunSpec], images: Callable[[], Arrays]) -> list[Line]:
    """A line for each run, all with the speed of the real loop on noise: the median of short epochs after one more.

    Operations are those of encoder and heads, forwards and backwards. GPU-hours are those of pretraining alone.
    """
    run = runs[0]
    batch = run.optim.batch_size
    steps = min(session.most(STEPS), session.n_images // batch)
    operations = operations_of_a_step(run, session)
    forget_peak_memory()
    seconds = short_epochs(run, images(), steps, 1 + session.most(ROUNDS), EXECUTION)[1:]
    figures = [steps * batch / each for each in seconds]
    about = {
        "precision": session.precision,
        "batch_size": batch,
        "images_per_second": median(figures),
        "spread": spread(figures),
        "n": len(figures),
        "peak_memory_gb": peak_memory_gb(session.device),
        "tflop_per_second": operations * median(figures) / batch / 1e12,
    }
    return [
        {"run": run_id(each), "epochs": each.optim.epochs, **about}
        | {"gpu_hours": each.optim.epochs * (each.data.n_train or 0) / median(figures) / 3600}
        for each in runs
    ]


def operations_of_a_step(run: RunSpec, session: Session) -> int:
    """Floating-point operations of encoder and heads for one batch, forwards and backwards."""
    method, size = Method(run, session.device, session.precision), run.data.image_size
    views = torch.zeros(2 * run.optim.batch_size, 3, size, size, device=session.device)
    with FlopCounterMode(display=False) as counter:
        method.backward(views.contiguous(memory_format=torch.channels_last))
    return counter.get_total_flops()
