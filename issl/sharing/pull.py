"""Brings published runs here, checked file by file; what is here already is never replaced."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256 as digest
from pathlib import Path

from issl.errors import UserError
from issl.jobs.files import make_room, sha256, write_json
from issl.jobs.locks import held, link_copy
from issl.jobs.records import read_record
from issl.sharing import records, sources
from issl.sharing.index import OUTPUTS, Files, place


def pull(source: str, run: str, seed: int, files: Files, folder: Path) -> list[str]:
    """Brings the files of a run with one seed that `folder` lacks, and returns their names; none if it has all.

    Raises UserError, and changes nothing, if the folder has a file with another content, if the run is training there,
    and as `bring` does.
    """
    if held_by_training(folder):
        raise UserError(f"{folder}: is being trained now; wait, or stop it first")
    brought = bring(source, run, seed, files, folder)
    if set(brought) & set(OUTPUTS):
        link_copy([folder / name for name in OUTPUTS])  # a job of the workflow looks there
    return brought


def held_by_training(folder: Path) -> bool:
    """Whether a process is making the run in this folder."""
    lock = folder / ".run.lock"
    return lock.exists() and bool(held(lock))


def bring(source: str, run: str, seed: int, files: Files, folder: Path) -> list[str]:
    """`pull`, without regard to trainings.

    All files arrive in a temporary folder, are checked (size, SHA-256, that their settings hash to the run's id) and
    then renamed, the record last. Raises UserError as the source's files demand it, and if `folder` cannot be written.
    """
    missing = _missing(files, folder, source)
    if not missing:
        return []
    with _workplace(folder, sum(files[name].size for name in missing)) as temporary:
        for name in missing:
            path, where = temporary / name, sources.path_in(source, place(run, seed, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            sources.copy(source, place(run, seed, name), files[name].size, path)
            if sha256(path) != files[name].sha256:
                raise UserError(f"{where}: has not the SHA-256 of the index: damaged or changed; nothing was taken")
            records.refuse_other_run(path, name, run, seed, where)
        record = (temporary if records.RECORD in missing else folder) / records.RECORD
        records.refuse_other_weights(record, files[records.WEIGHTS].sha256, sources.path_in(source, place(run, seed)))
        if records.RECORD in missing:
            about = {"from": source, "at": datetime.now(UTC).isoformat(timespec="seconds")}
            write_json(record, read_record(record) | {records.PULLED: about})
        for name in sorted(missing, key=lambda name: name == records.RECORD):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).rename(folder / name)
    return missing


def _missing(files: Files, folder: Path, source: str) -> list[str]:
    """The files that a folder lacks. Raises UserError if it has another one of the same name."""
    there = [name for name in files if (folder / name).exists()]
    other = [name for name in there if digest(records.shareable(folder / name)).hexdigest() != files[name].sha256]
    if other:
        raise UserError(
            f"{folder}: has another {other[0]} than {source}, and is kept as it is; to take that one, move this folder"
        )
    return [name for name in files if name not in there]


@contextmanager
def _workplace(folder: Path, n_bytes: int) -> Iterator[Path]:
    """A temporary folder beside the folder of a seed. Nothing of it, or of new folders around it, is left at an error.

    Raises UserError if it cannot be written.
    """
    new, temporary = _new(folder), None
    try:
        make_room(folder.parent, n_bytes)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        yield temporary
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be written: {error.strerror}") from None
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        for each in new:
            with suppress(OSError):  # not empty: it is needed
                each.rmdir()


def _new(folder: Path) -> Sequence[Path]:
    """Those of a folder and the ones around it that do not exist, from the inside out."""
    return [each for each in (folder, *folder.parents) if not each.exists()]
