"""Publishes finished runs: in a folder, in a Zenodo-ready archive, or in a repository of the Hugging Face hub.

All three get the same files: the archive and the repository are made from a folder.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from issl.errors import UserError
from issl.jobs import packages
from issl.jobs.files import whole, write_text
from issl.jobs.locks import locked
from issl.sharing import card, records
from issl.sharing.index import INDEX, OUTPUTS, File, Index, files_in, place
from issl.sharing.sources import REPOSITORY, index_of, is_folder

SUMS = "SHA256SUMS"


def push(runs: Sequence[Path], to: str) -> int:
    """Publishes the runs in these folders of seeds, beside what is there, and returns the number of new files.

    `to` is a folder, NAME.zip or hf:ORGANISATION/NAME. What is published stays as it is: raises UserError if another
    version of a file is there, before anything is written; for a run that is not finished, or whose records are of
    another run or name a path of this machine; and if the place cannot be written, which then keeps what it had.
    """
    try:
        return _to(runs, to)
    except OSError as error:  # a full disk, or rights that are missing
        raise UserError(f"{error.filename or to}: cannot be read or written: {error.strerror}") from None


def _to(runs: Sequence[Path], to: str) -> int:
    if to.startswith("hf:"):
        return _to_hub(runs, to)
    if not is_folder(to):
        raise UserError(f"{to}: must be a folder, NAME.zip or hf:ORGANISATION/NAME")
    return _to_archive(runs, Path(to)) if to.endswith(".zip") else to_folder(runs, Path(to))


def to_folder(runs: Sequence[Path], folder: Path) -> int:
    """`push` to a folder, which any web server can then serve."""
    if folder.is_file() or (folder.is_dir() and not (folder / INDEX).exists() and _visible(folder)):
        raise UserError(f"{folder}: is no folder of published runs (it has no {INDEX}); choose an empty or a new one")
    with locked(folder / ".index.lock"):
        return _add(runs, folder)


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _add(runs: Sequence[Path], folder: Path) -> int:
    path = folder / INDEX
    index = index_of(str(folder)) if path.exists() else Index()
    new: dict[Path, tuple[Path, str]] = {}  # where it goes, what it is of, and its SHA-256
    for run in runs:
        name, seed = run.parent.name, int(run.name.removeprefix("s"))
        known = index.runs.get(name, {}).get(seed, {})
        found = _checked(run, name, seed)
        if other := [each for each in found if each in known and known[each] != found[each]]:
            raise UserError(
                f"{folder}: has {name} s{seed} with another {other[0]}, and what is published stays; "
                "choose another place for yours"
            )
        added = [each for each in found if each not in known]
        new |= {folder / place(name, seed, each): (run / each, found[each].sha256) for each in added}
        index = index.with_seed(name, seed, known | found)
    if not new:
        return 0
    with _all_or_none(new, folder):
        for target, (source, digest) in new.items():
            with whole(target) as temporary:
                temporary.write_bytes(content := records.shareable(source))
                if sha256(content).hexdigest() != digest:
                    raise UserError(f"{source}: changed while it was read; run again")
        write_text(path, index.text())  # after the files that it names
    write_text(folder / card.CARD, card.card(index, folder))
    if not (folder / card.CITATION).exists():  # its authors may be yours by now
        write_text(folder / card.CITATION, card.citation())
    write_text(folder / SUMS, _sums(index, folder))
    return len(new)


@contextmanager
def _all_or_none(new: Iterable[Path], folder: Path) -> Iterator[None]:
    """At an error, removes these files, which no index names yet, with folders that are then empty."""
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                for each in path.relative_to(folder).parents:
                    (folder / each).rmdir()  # fails where it is not empty
        raise


def _checked(run: Path, name: str, seed: int) -> dict[str, File]:
    """Every published file of a run with one seed. Raises UserError if one is of another run, or missing."""
    found = {}
    for each in files_in(run):
        records.refuse_other_run(run / each, each, name, seed, str(run / each))
        content = records.shareable(run / each)
        found[each] = File(size=len(content), sha256=sha256(content).hexdigest())
    if missing := [each for each in OUTPUTS if each not in found]:
        raise UserError(f"{run}: not the folder of a finished run: it has no {missing[0]}")
    records.refuse_other_weights(run / records.RECORD, found[records.WEIGHTS].sha256, str(run))
    return found


def _sums(index: Index, folder: Path) -> str:
    """For `sha256sum --check`."""
    sums = {INDEX: sha256((folder / INDEX).read_bytes()).hexdigest()}
    for run, seeds in index.runs.items():
        sums |= {place(run, seed, name): file.sha256 for seed, files in seeds.items() for name, file in files.items()}
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def _to_archive(runs: Sequence[Path], archive: Path) -> int:
    """The folder as one file: equal for equal content, so without times, and not compressed: weights do not shrink."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            if archive.exists():
                with zipfile.ZipFile(archive) as content:
                    content.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{archive}: cannot be read ({error}); choose another name") from None
        if number := to_folder(runs, folder):
            with whole(archive) as part, zipfile.ZipFile(part, "w") as content:
                for path in sorted(path for path in folder.rglob("[!.]*") if path.is_file()):
                    content.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
    return number


def _to_hub(runs: Sequence[Path], to: str) -> int:
    """One commit with the new files, made with the account of `hf auth login`."""
    found = REPOSITORY.fullmatch(to)
    if not found or found[2]:
        raise UserError(f"{to}: must be hf:ORGANISATION/NAME")
    if not packages.installed("huggingface_hub"):
        raise UserError(f"{to}: needs a package: {packages.install('hub')}")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            api = _api()
            api.create_repo(found[1], exist_ok=True)
            # Its card is made from all scores, so those are needed, but no weights.
            api.snapshot_download(found[1], local_dir=temporary, allow_patterns=["*.json", "*.csv", card.CITATION])
        except Exception as error:  # which ones depends on the package's version, and on its library for HTTP
            raise UserError(f"{to}: {_first_line(error)}; `hf auth login` logs in") from error
        shutil.rmtree(Path(temporary, ".cache"), ignore_errors=True)
        number = to_folder(runs, Path(temporary))
        if number:
            message = f"{number} files of {len(runs)} runs"
            try:
                api.upload_folder(
                    repo_id=found[1], folder_path=temporary, commit_message=message, ignore_patterns=[".*"]
                )
            except Exception as error:
                raise UserError(f"{to}: {_first_line(error)}; run again to continue") from error
    return number


def _api() -> Any:
    from huggingface_hub import HfApi  # optional, and takes a second to import

    return HfApi()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
