"""The prepared form of a data set: every image decoded once, as one memory-mapped array.

A folder holds ``images.npy`` (N, H, W, 3) uint8, ``labels.npy`` (N,) int64 and ``meta.json``; the rows of the train
split come first, then those of the test split, then images without a label, if there are any, to pretrain on besides
the train split; their label is -1. ``meta.json`` is written last: if it exists, all is complete.

A data set that is too large for this is only listed: its ``images.npy`` holds file names instead, (N,) bytes.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from issl.data import copies, faults
from issl.errors import UserError, nearest
from issl.jobs import fingerprint
from issl.jobs.files import make_room
from issl.spec.data import DataSpec

IMAGES, LABELS, META = "images.npy", "labels.npy", "meta.json"
META_KEYS = ("spec", "splits", "classes", "image_size", "sha256", "source")
UNLABELLED = -1  # the label of an image without one
CHUNK = 128  # images that a worker decodes at a time: enough to hide the overhead, few enough for large images

# Gives the images of rows start..stop, as an array (stop - start, H, W, 3) uint8.
Rows = Callable[[int, int], np.ndarray]
Chunk = tuple[int, int]
Filled = tuple[Chunk, list[str]]  # a chunk, and a message for each of its images that cannot be decoded


@dataclass(frozen=True)
class Content:
    """A data set to be decoded.

    `open` is called once in every process that decodes, so that file handles are never shared; it must be picklable
    if `parallel`. `source` names where the images come from, with a checksum if there is one.
    """

    labels: np.ndarray
    splits: dict[str, int]
    classes: list[str]
    image_size: int
    open: Callable[[], Rows]
    source: dict[str, Any]
    parallel: bool = True


@dataclass(frozen=True)
class Listing:
    """A data set that stays in its files: `files` (N,) are their names in bytes, relative to the data set's folder."""

    files: np.ndarray
    labels: np.ndarray
    splits: dict[str, int]
    classes: list[str]
    image_size: int
    source: dict[str, Any]


@dataclass(frozen=True)
class Arrays:
    """A prepared data set: `images` (N, H, W, 3) uint8, memory-mapped read-only; `labels` (N,) int64; `meta`.

    If the data set is only listed, `images` are file names, (N,) bytes; issl/views/decode.py decodes them.
    """

    images: np.ndarray
    labels: np.ndarray
    meta: dict[str, Any]

    def split(self, name: str) -> slice:
        """Rows of ``train``, ``test`` or, where there are any, ``unlabelled``. Raises UserError for another name."""
        splits = self.meta["splits"]
        if name not in splits:
            raise UserError(f"no split '{name}', {nearest(name, splits)}")
        ends = dict(zip(splits, accumulate(splits.values())))
        return slice(ends[name] - splits[name], ends[name])

    @property
    def pretraining(self) -> tuple[slice, ...]:
        """Rows to pretrain on: those of ``train``, and those without labels."""
        return tuple(self.split(name) for name in ("train", "unlabelled") if name in self.meta["splits"])

    @property
    def n_pretraining(self) -> int:
        return sum(rows.stop - rows.start for rows in self.pretraining)

    @property
    def n_labelled(self) -> int:
        """Images of the train and test splits, which are the first rows."""
        return len(self.labels) - self.meta["splits"].get("unlabelled", 0)

    @property
    def classes(self) -> list[str]:
        """Class names; the position is the label."""
        return self.meta["classes"]

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.meta["image_size"]


def located(lengths: Sequence[int], rows: Iterable[int]) -> Iterator[tuple[int, int]]:
    """For each of these rows of several parts, one after the other: the number of its part, and its place therein."""
    ends = [*accumulate(lengths)]
    for row in rows:
        part = bisect_right(ends, row)
        yield part, row - ends[part] + lengths[part]


def write(
    folder: str | Path,
    content: Content,
    spec: DataSpec,
    threads: int = 1,
    progress: bool = False,
    used: Sequence[Any] = (),
) -> None:
    """Decodes a data set into a folder; RAM stays bounded because workers write into the memory map.

    The files appear together or not at all: an error leaves the folder as it was. The result does not depend on
    `threads`; `used` names the reader, for the record. Raises UserError if the folder cannot be written, or with the
    reader's errors of all images.
    """
    folder, code = Path(folder), _code(spec, used)  # at the start: files may change meanwhile
    shape = (len(content.labels), content.image_size, content.image_size, 3)
    make_room(folder, int(np.prod(shape)))
    with _all_or_nothing(folder) as part:
        images = np.lib.format.open_memmap(part[IMAGES], "w+", np.uint8, shape)
        digest, wrong, each = hashlib.sha256(), [], []
        with tqdm(total=len(images), unit="img", desc="prepare", disable=None if progress else True) as bar:
            for (start, stop), found in _fill_all(part[IMAGES], content, threads):
                wrong += found
                digest.update(images[start:stop])
                each += copies.digests(images[start:stop])
                bar.update(stop - start)
        faults.refuse(wrong)
        labelled = sum(content.splits[split] for split in ("train", "test"))  # the rest have no class to differ in
        found = copies.faults(each[:labelled], content.labels[:labelled], content.splits["train"], content.classes)
        faults.refuse(f"{faults.place(spec)}: {fault}" for fault in found)
        images.flush()  # to the disk: a machine that sees meta.json must see the images too
        del images
        _finish(part, content, spec, digest.hexdigest(), code)


def write_list(folder: str | Path, listing: Listing, spec: DataSpec, used: Sequence[Any] = ()) -> None:
    """Like `write`, but writes the names of the image files instead of the images."""
    folder, code = Path(folder), _code(spec, used)
    make_room(folder, listing.files.nbytes)
    with _all_or_nothing(folder) as part:
        np.save(part[IMAGES], listing.files)
        _finish(part, listing, spec, hashlib.sha256(b"\n".join(listing.files.tolist())).hexdigest(), code)


def _code(spec: DataSpec, used: Sequence[Any]) -> dict[str, Any]:
    return fingerprint.current("prepare", *map(fingerprint.part, (type(spec), *used)))


def _finish(
    part: dict[str, Path], content: Content | Listing, spec: DataSpec, images: str, code: dict[str, Any]
) -> None:
    """Writes labels and metadata; `images` is the checksum of the images."""
    labels = content.labels.astype(np.int64)
    np.save(part[LABELS], labels)
    meta = {
        "spec": json.loads(spec.canonical()),
        "splits": content.splits,
        "classes": content.classes,
        "image_size": content.image_size,
        "sha256": {"images": images, "labels": _sha256(labels)},
        "source": content.source,
        "code": code,
    }
    part[META].write_text(json.dumps(meta, indent=2) + "\n")


def read(folder: str | Path, spec: DataSpec | None = None) -> Arrays:
    """Opens a prepared folder. Raises UserError if it is missing, incomplete, inconsistent, or not of this `spec`.

    Images are mapped, not read, so only the checksum of the labels is verified.
    """
    folder = Path(folder)
    try:
        meta = json.loads((folder / META).read_text())
        images = np.load(folder / IMAGES, mmap_mode="r")
        labels = np.load(folder / LABELS)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise UserError(f"{folder}: not a prepared data set, {missing} is missing: prepare it first") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder}: cannot be read ({error}): delete it and prepare it again") from error
    if complaint := _contradiction(images, labels, meta):
        raise UserError(f"{folder}: {complaint}: delete it and prepare it again")
    if spec is not None and meta["spec"] != json.loads(spec.canonical()):
        raise UserError(f"{folder}: holds another data set, {json.dumps(meta['spec'])}, not {spec.canonical()}")
    return Arrays(images, labels, meta)


def _contradiction(images: np.ndarray, labels: np.ndarray, meta: Any) -> str | None:
    """The first inconsistency between the three files, or None."""
    if missing := [key for key in META_KEYS if not isinstance(meta, dict) or key not in meta]:
        return f"{META} lacks '{missing[0]}'"
    size, n_images = meta["image_size"], sum(meta["splits"].values())
    listed = images.dtype.kind == "S"
    shape = (n_images,) if listed else (n_images, size, size, 3)
    if images.shape != shape or not (listed or images.dtype == np.uint8):
        return f"{IMAGES} holds {images.dtype} {images.shape}, but {META} says uint8 {shape}"
    if labels.shape != shape[:1] or labels.dtype != np.int64:
        return f"{LABELS} holds {labels.dtype} {labels.shape}, but {META} says int64 {shape[:1]}"
    if _sha256(labels) != meta["sha256"]["labels"]:
        return f"{LABELS} does not have the checksum in {META}"
    return None


def _sha256(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[dict[str, Path]]:
    """Yields a temporary path for each file, and renames them all if nothing went wrong.

    The temporary names are fixed, so the next call overwrites the remains of a killed process.
    """
    part = {name: folder / f".part-{name}" for name in (IMAGES, LABELS, META)}
    try:
        yield part
        (folder / META).unlink(missing_ok=True)  # from here on an older data set is no longer complete
        for name, path in part.items():
            path.replace(folder / name)
    finally:
        for path in part.values():
            path.unlink(missing_ok=True)


def _fill_all(path: Path, content: Content, threads: int) -> Iterator[Filled]:
    """Decodes all rows into the array at `path`; yields each chunk, in order, when it is done, and what is wrong in it.

    Uses processes, because decoding small images holds the interpreter lock most of the time: two threads are slower
    than one. They only exchange the bounds of chunks; pixels go through the shared map.
    """
    n_images = len(content.labels)
    chunks = [(start, min(start + CHUNK, n_images)) for start in range(0, n_images, CHUNK)]
    workers = min(threads, len(chunks))
    if workers <= 1 or not content.parallel:
        yield from _fill_here(path, content.open(), chunks)
        return
    pool = ProcessPoolExecutor(workers, initializer=_begin_worker, initargs=(path, content.open))
    try:
        yield from pool.map(_fill_in_worker, chunks)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, do not wait for the rest


def _fill_here(path: Path, rows: Rows, chunks: Iterable[Chunk]) -> Iterator[Filled]:
    images = np.load(path, mmap_mode="r+")
    for start, stop in chunks:
        yield (start, stop), _fill(images, rows, start, stop)


def _fill(images: np.ndarray, rows: Rows, start: int, stop: int) -> list[str]:
    """Decodes some rows; the message for each one that cannot be decoded."""
    try:
        images[start:stop] = rows(start, stop)
        return []
    except UserError as error:
        if stop - start == 1:
            return [str(error)]
    return [message for row in range(start, stop) for message in _fill(images, rows, row, row + 1)]


_worker: tuple[Path, Rows]  # of a pool process, set when it starts: the list of files is too long to send often


def _begin_worker(path: Path, open_source: Callable[[], Rows]) -> None:
    global _worker
    _worker = (path, open_source())


def _fill_in_worker(chunk: Chunk) -> Filled:
    path, rows = _worker
    return next(_fill_here(path, rows, [chunk]))
