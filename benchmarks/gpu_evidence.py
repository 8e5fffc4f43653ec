"""What an hour on a GPU tells, in parts of minutes: ``python -m benchmarks.gpu_evidence [PART]``."""

import importlib
import logging
from pathlib import Path
from typing import NamedTuple

import click
import torch

from benchmarks.gpu import evidence
from benchmarks.gpu.session import Budget, Session
from issl.cli import run
from issl.config.layers import PAPER
from issl.errors import UserError, nearest
from issl.jobs.files import write_text
from issl.jobs.locks import locked


class Part(NamedTuple):
    """A function `pieces` in a module of `benchmarks.gpu`. If it is `in_time`, it is finished when its time is over."""

    claim: str
    module: str
    pieces: str = "pieces"
    in_time: bool = False


ROWS = Part("The paper's rows train, resume and are scored; one seed each.", "rows", in_time=True)
PARTS = {  # in the order of their worth
    "checks": Part("The GPU computes what the CPU does, and a step in bf16 or fp16 what it does in float32.", "checks"),
    "bench": Part("The loop is faster than with PIL views, near its own ceiling, and fits into 24 GB.", "bench"),
    "speed": Part("Each run of the paper trains at so many images a second, and so takes so many GPU-hours.", "speed"),
    "profile": Part("A step's time is shared by augmentation, the host and an idle device as follows.", "profile"),
    "probes": Part("A grid of probes costs less than its probes one by one, and scores the same.", "bench", "probes"),
    "rows_1": ROWS,
    "rows_2": ROWS,
    "rows_3": ROWS,
}
FULL, REHEARSAL = Path("results/gpu"), Path("results/gpu_rehearsal")

_path = click.Path(path_type=Path)


@click.command()
@click.argument("part", required=False)
@click.option("--out", type=_path, help=f"Folder of the results; {FULL}, or {REHEARSAL} with --limit.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=8, show_default=True, help="For each part.")
@click.option("--limit", type=click.IntRange(1), help="Rehearse with small runs and at most so many repeats and rows.")
@click.option("--archive", type=_path, help="TinyImageNet; by default where config.yaml says.")
@click.option("--preset", default=PAPER, show_default=True, help="Whose rows are pretrained.")
def gather(
    part: str | None, out: Path | None, minutes: float, limit: int | None, archive: Path | None, preset: str
) -> None:
    """Measure PART, or every part that is not finished, and write it as JSON, and all parts as evidence.md.

    A part that is not finished in its time goes on in the next call.
    """
    if part is not None and part not in PARTS:
        raise UserError(f"unknown part '{part}', {nearest(part, PARTS)}")
    if limit is None and not torch.cuda.is_available():
        raise UserError(
            "no CUDA device here, and at full size these measurements are of a GPU: run this on a machine with one, or "
            "rehearse it here with --limit 2"
        )
    out = out or (FULL if limit is None else REHEARSAL)
    failed = []
    with locked(out / ".lock"):
        for name in [part] if part else PARTS:
            session = Session(out, Budget(minutes), limit, preset, archive)
            failed += [f"{name}: {piece}" for piece in measured(name, session)]
    if failed:
        raise UserError(f"failed, see above; run the same command to try again: {', '.join(failed)}")


def measured(name: str, session: Session) -> list[str]:
    """Measures a part as far as its time goes, unless it is finished, and writes the table; returns what failed."""
    part, path = PARTS[name], session.out / f"{name}.json"
    result = evidence.begin(path, name, session.limit)
    if result["finished"]:
        click.echo(f"{name}: finished before", err=True)
        return []
    pieces = getattr(importlib.import_module(f"benchmarks.gpu.{part.module}"), part.pieces)(session)
    failed = evidence.collect(path, result, pieces, session, part.in_time)
    write_table(session.out)
    if not result["finished"] and not failed:
        click.echo(f"{name}: the time is over; run the same command to go on", err=True)
    return failed


def write_table(out: Path) -> None:
    """Writes all parts that exist to evidence.md."""
    results = [evidence.read(path, name) for name in PARTS if (path := out / f"{name}.json").exists()]
    write_text(out / "evidence.md", evidence.table(results, {name: part.claim for name, part in PARTS.items()}))


def main() -> None:
    """Runs the command, with messages of the package on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(gather)


if __name__ == "__main__":
    main()
