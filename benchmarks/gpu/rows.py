"""Pretrains and scores the paper's rows, as far as the time goes, with the code that the workflow's jobs run.

Large files are in `work/`, laid out like a results folder; what is worth keeping is copied to `rows/`. A training that
the time cuts saves a checkpoint, from which the next part continues; one that is killed loses a minute.
"""

import csv
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import torch

from benchmarks.gpu.session import EXECUTION, Line, Piece, Session, forget_peak_memory, pretrained
from benchmarks.pretraining import cores
from issl import data
from issl.config.resolve import PlannedRow
from issl.data.arrays import META
from issl.jobs import allocation
from issl.jobs.files import whole, write_csv
from issl.probing.featurize import featurize
from issl.probing.job import Job, probe
from issl.report.results import SELECTIONS, read_scores, selected
from issl.spec.data import data_id
from issl.training import checkpoints
from issl.training.pretrain import CHECKPOINTS, pretrain

STARTING, PROBING = 1, 2  # minutes that must be left


def pieces(session: Session) -> Iterator[Piece]:
    """One for each row that is not yet scored, those with the fewest epochs first.

    Prepares its data first. Raises UserError if the archive is missing or not what the preset needs.
    """
    rows = pretrained(session.preset) if session.limit is None else session.rows
    in_order = sorted(rows.items(), key=lambda item: item[1].run.optim.epochs)
    for name, row in in_order[: session.most(len(rows))]:
        place = Place(session, replace(row, run=session.shortened(row.run)))
        if not all(path.exists() for path in place.scores.values()):
            prepare(place)
            yield Piece(name, STARTING, partial(lines, place))


class Place:
    """Where everything of a row is, below the folder of the results."""

    def __init__(self, session: Session, row: PlannedRow):
        self.session, self.row, self.seed = session, row, row.seeds[0]
        work = session.out / "work"
        self.images = work / "data" / data_id(row.run.data)
        self.encoder = work / row.encoder(self.seed)
        self.features = work / row.features(self.seed)
        self.scores = {probe: work / row.score(probe, self.seed) for probe in row.probes}
        self.kept = session.out / "rows" / f"{row.name}-s{self.seed}"


def prepare(place: Place) -> None:
    """The arrays, unless they are there. A given archive need not be the official file, so its md5 is not compared."""
    spec, archive = place.row.run.data, place.session.archive
    if archive and spec.kind == "tinyimagenet":
        spec = spec.model_copy(update={"archive": str(archive), "md5": None, "url": None})
    if not (place.images / META).exists():
        data.prepare(spec, place.images, cores(), progress=False)


def lines(place: Place) -> list[Line]:
    """How far the row is when the time is over: epochs, and accuracies (%) if it is scored.

    Speed is the median of `n` epochs. Accuracies are top-1 on all labels, selected as in the tables.
    """
    train(place)
    score(place)
    epochs, found = history(place.encoder), accuracies(place)
    keep(place, epochs)
    last = epochs[-1] if epochs else {}
    tested = [each["test_online_acc"] for each in epochs if each.get("test_online_acc") not in (None, "")]
    about = {
        "row": place.row.label,
        "run": place.row.name,
        "seed": place.seed,
        "epochs": place.row.run.optim.epochs,
        "epochs_done": len(epochs),
        "n": len(epochs),
        "images_per_second": median(float(each["images_per_second"]) for each in epochs) if epochs else None,
        "loss": float(last["loss"]) if epochs else None,
        "online_accuracy": 100 * float(last["online_acc"]) if epochs else None,
        "test_online_accuracy": 100 * float(tested[-1]) if tested else None,
    }
    return [about | {name: found.get(name) for name in ("probe", *SELECTIONS)}]


# --- stages ----------------------------------------------------------------------------------------------------------


def train(place: Place) -> None:
    """Pretrains until the end or until the time is over, from the newest checkpoint if there is one.

    Raises `allocation.Stopped` if something else stops it.
    """
    if (place.encoder / "run.json").exists():
        return
    forget_peak_memory()
    left = place.session.budget.left()
    try:
        with stopped_after(left):
            pretrain(place.row.run, place.seed, place.images, place.encoder, EXECUTION)
    except allocation.Stopped:
        if place.session.budget.left() > 0:
            raise


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Asks a training to stop when the time is over, with the signal that a scheduler would send.

    One that has not begun to listen would not hear it, so it is asked again.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN:
            signal.setitimer(signal.ITIMER_REAL, 1)
        else:
            os.kill(os.getpid(), signal.SIGUSR1)

    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGALRM)}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def score(place: Place) -> None:
    """Features and probes of a trained encoder, each if there is time for it; removes the features after the last."""
    if not (place.encoder / "run.json").exists():
        return
    row, fits = place.row, place.session.budget.fits
    for probes, out in place.scores.items():
        if not out.exists() and fits(PROBING):
            featurize(str(place.encoder), row.encoding, place.images, place.features, cores(), EXECUTION)
            task = (str(place.encoder), row.encoding, place.features, place.images, out, cores(), EXECUTION)
            probe(row.probes[probes], place.seed, Job(*task))
    if all(path.exists() for path in place.scores.values()):
        shutil.rmtree(place.features, ignore_errors=True)


# --- what came of it -------------------------------------------------------------------------------------------------


def history(encoder: Path) -> list[dict[str, Any]]:
    """The epochs of a finished training, or of the newest checkpoint of another."""
    finished, checkpoint = encoder / "history.csv", encoder / CHECKPOINTS / checkpoints.NAMES[0]
    if finished.exists():
        with finished.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if checkpoint.exists():
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["history"]["rows"]
    return []


def accuracies(place: Place) -> dict[str, Any]:
    """Kind and accuracies (%) of the first probes on all labels, each way of selecting; nothing before they exist."""
    for probes, out in place.scores.items():
        if out.exists():
            table = selected(read_scores(out))
            for point in table[(table["metric"] == "top-1") & (table["fraction"] == 1)].to_dict("records"):
                return {"probe": probes} | {name: 100 * point[name] for name in SELECTIONS}
    return {}


def keep(place: Place, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Copies the small files: history, record of the run, scores."""
    columns = list(dict.fromkeys(name for each in epochs for name in each))
    write_csv(place.kept / "history.csv", columns, epochs)
    records = [out.with_suffix(".json") for out in place.scores.values()]
    for path in (place.encoder / "run.json", *place.scores.values(), *records):
        if path.exists():
            with whole(place.kept / path.name) as copy:
                shutil.copyfile(path, copy)
