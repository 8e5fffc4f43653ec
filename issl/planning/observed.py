"""The jobs that results folders tell of: their work, the device and the time they took."""

import csv
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from issl.errors import UserError
from issl.jobs.records import finished_runs, read_record
from issl.planning import work
from issl.planning.calibration import Measured
from issl.planning.work import Sizes, Work
from issl.spec.data import DataSpec, data_id
from issl.spec.encoder import Encoder
from issl.spec.encoding import Encoding
from issl.spec.probe import ProbeGrid
from issl.spec.released import MODELS
from issl.spec.run import RunSpec
from issl.spec.shape import Shape

log = logging.getLogger(__name__)

TRIALS = Path("results/.planning/trials.jsonl")
START = 60.0  # seconds: what a job takes longer than its work was spent waiting, for a GPU or for another job

Job = tuple[str, Measured]  # with its device
Jobs = dict[str, dict[str, list[Measured]]]  # by device, then by stage


def measured(roots: Iterable[Path]) -> Jobs:
    """Every job that left a record in results folders, and the trials of `issl plan --measure`.

    A record that another version of the code wrote, or whose data set is gone, tells nothing and is left out.
    """
    found: Jobs = {}
    for device, job in (pair for source in (*map(_below, roots), _trials()) for pair in source):
        if job.seconds > 0 and any(job.work.amounts):
            found.setdefault(device, {}).setdefault(job.work.stage, []).append(job)
    return found


def sizes(root: Path, data: DataSpec) -> Sizes | None:
    """Images and classes of a data set: as prepared below `root`, else as the spec tells; None if it does not."""
    meta = root / "data" / data_id(data) / "meta.json"
    if meta.exists():
        content = read_record(meta, keys=("splits", "classes"))
        splits = content["splits"]
        return Sizes(splits["train"], splits["test"], len(content["classes"]), splits.get("unlabelled", 0))
    told = data.n_train, data.n_test, data.n_classes
    return None if None in told else Sizes(*told)


def _below(root: Path) -> Iterator[Job]:
    for folder in finished_runs(root):
        record = read_record(folder / "run.json")
        yield from _read(_pretraining, root, folder, record)
        yield from _scored(root, folder, record)
    for path in sorted(root.glob("runs/*/s*/checkpoints/progress.json")):
        yield from _read(_stopped, root, read_record(path))
    for folder in sorted(path for path in root.glob("weights/*") if path.name in MODELS):
        yield from _scored(root, folder, None)


def _scored(root: Path, folder: Path, run: dict[str, Any] | None) -> Iterator[Job]:
    """The jobs that encoded images with an encoder, and those that scored its representations."""
    for path in sorted(folder.glob("features/*.json")):
        about = read_record(path)
        yield from _read(_featurizing, root, path, about, run)
        for scores in sorted(folder.glob(f"probes/{path.stem}/*.json")):
            yield from _read(_probing, root, scores, about, run)


def _read(job: Callable[..., Job | None], *arguments: Any) -> Iterator[Job]:
    try:
        if found := job(*arguments):
            yield found
    except (KeyError, ValidationError) as error:
        log.info("a record of another version is not used: %s", str(error).splitlines()[0])


def _pretraining(root: Path, folder: Path, record: dict[str, Any]) -> Job | None:
    run = RunSpec.model_validate(record["spec"])
    known = sizes(root, run.data)
    if known is None:
        return None
    job = work.pretraining(run, known)
    once = len(record.get("attempts", [1])) == 1
    path = root / "benchmarks/pretrain" / f"{record['run']}-s{record['seed']}.tsv"
    seconds = record["seconds_this_attempt" if once else "seconds"]
    return device(record), _timed(job, seconds, folder / "run.json", path if once else None)


def _stopped(root: Path, progress: dict[str, Any]) -> Job | None:
    run = RunSpec.model_validate(progress["spec"])
    known = sizes(root, run.data)
    if known is None:
        return None
    whole = work.pretraining(run, known)
    done = whole.part(progress["epoch"] / run.epochs)._replace(jobs=0)
    return device(progress), Measured(done, progress["seconds"])


def _featurizing(root: Path, path: Path, about: dict[str, Any], run: dict[str, Any] | None) -> Job | None:
    encoding, folder = Encoding.model_validate(about["encoding"]), path.parents[1]
    known = sizes(root, encoding.data)
    if known is None:
        return None
    job = work.featurizing(_shape(folder, run), encoding, known)
    return device(about), _timed(job, about["seconds"], path, _benchmark(root, "featurize", path, folder))


def _probing(root: Path, path: Path, features: dict[str, Any], run: dict[str, Any] | None) -> Job | None:
    encoding, record, folder = Encoding.model_validate(features["encoding"]), read_record(path), path.parents[2]
    known = sizes(root, encoding.data)
    if known is None:
        return None
    job = work.probing(ProbeGrid.model_validate(record["spec"]), _shape(folder, run), encoding, known)
    return device(record), _timed(job, record["seconds"], path, _benchmark(root, "probe", path, folder))


def _benchmark(root: Path, stage: str, path: Path, folder: Path) -> Path:
    """Snakemake's own record of a job, by the file that the job wrote below an encoder's folder."""
    parts = path.with_suffix(".tsv").relative_to(folder).parts[1:]
    return root.joinpath("benchmarks", stage, folder.relative_to(root), *parts)


def _timed(job: Work, seconds: float, record: Path, benchmark: Path | None) -> Measured:
    """A job with the time of its process if Snakemake recorded it, else without its start."""
    try:
        with (benchmark or Path("/dev/null")).open(encoding="utf-8", newline="") as file:
            whole = float(next(csv.DictReader(file, delimiter="\t"))["s"])
    except (OSError, StopIteration, KeyError, ValueError):  # none, as of a job run by hand
        whole = 0.0
    if seconds <= whole < seconds + START:
        return Measured(job, whole, str(record), benchmark)
    return Measured(job._replace(jobs=0), seconds, str(record))


def _shape(folder: Path, run: dict[str, Any] | None) -> Shape | Encoder:
    return MODELS[folder.name].encoder if run is None else RunSpec.model_validate(run["spec"]).encoder


def device(record: dict[str, Any]) -> str:
    """The device of a job as a calibration names it: with the number of processes, if there are several."""
    processes = record.get("processes", 1)
    return f"{processes} x {record['device']}" if processes > 1 else record["device"]


def _trials() -> Iterator[Job]:
    if not TRIALS.exists():
        return
    for line in TRIALS.read_text(encoding="utf-8").splitlines():
        try:
            trial = json.loads(line)
        except ValueError:
            raise UserError(f"{TRIALS}: cannot be read; delete it, and measure again: issl plan --measure") from None
        yield from _read(_trial, trial)


def _trial(trial: dict[str, Any]) -> Job:
    run = RunSpec.model_validate(trial["spec"])
    whole = work.pretraining(run, Sizes(*trial["sizes"]))
    return trial["device"], Measured(whole.part(trial["steps"] / whole.steps)._replace(jobs=0), trial["seconds"])
