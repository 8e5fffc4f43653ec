"""The rows of ``python -m benchmarks`` that a GPU decides."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks import measure, memory, pretraining, probing
from benchmarks.gpu.session import EXECUTION, Line, Piece, Session
from benchmarks.measure import Row

SMALL_GRID = {"n_train": 2_000, "n_test": 200, "classes": 10}


def pieces(session: Session) -> Iterator[Piece]:
    """Pretraining beside PIL views and beside its ceiling, and peak memory."""
    rounds, small = session.most(measure.ROUNDS), session.limit is not None
    warm_up, timed = map(session.most, pretraining.GPU_STEPS)
    for method in pretraining.METHODS:
        run = session.shortened(session.methods[method]) if small else pretraining.gpu_run(method)
        contest = (pretraining.gpu_rows(method), run, EXECUTION, pretraining.cores(), warm_up, timed, rounds)
        yield Piece(f"pretrain {method}", 3, partial(lines, pretraining.beside_pil_and_ceiling, *contest))
    run = session.shortened(session.methods["dissl"]) if small else memory.DISSL_RUN
    yield Piece("memory", 1, partial(lines, lambda: [memory.of_dissl(run)]))


def probes(session: Session) -> Iterator[Piece]:
    """The grids of probes, in one piece."""
    grid = SMALL_GRID | {"epochs": session.limit} if session.limit else {}
    yield Piece("grids", 6, partial(lines, probing.grid, session.most(measure.ROUNDS), **grid))


def lines(measured: Callable[..., Iterable[Row]], *arguments: Any, **options: Any) -> list[Line]:
    """The rows that a benchmark returns, by column."""
    rows = [asdict(row) for row in measured(*arguments, **options)]
    return [{"benchmark": row.pop("name"), **row} for row in rows]
