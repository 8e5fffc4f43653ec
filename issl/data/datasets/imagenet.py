"""ImageNet, or any data set in its layout: train/<class>/* and val/<class>/*, listed but not decoded."""

import logging
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from issl.data.arrays import Listing
from issl.data.jpeg import decode
from issl.errors import UserError
from issl.spec.data import ImageNet

log = logging.getLogger(__name__)

SPLITS = {"train": "train", "test": "val"}  # our names, and those of the folders
LISTERS = 16  # threads: listing folders waits for the disk
CHUNK = 256  # files that a process looks at before it asks for more


def read(spec: ImageNet, progress: bool = False) -> Listing:
    """Finds the images; classes and files are in alphabetical order, hidden files are left out.

    Raises UserError where a split is missing, a class is empty, or the splits' classes differ.
    """
    root = Path(spec.path)
    classes = _common(root, {split: _folders(root, name) for split, name in SPLITS.items()})[: spec.classes]
    if spec.classes and len(classes) < spec.classes:
        raise UserError(f"{root}: holds {len(classes)} classes, but `classes` asks for the first {spec.classes}")
    caps = {"train": spec.train_per_class, "test": spec.test_per_class}
    with ThreadPoolExecutor(LISTERS) as pool:
        found = {
            split: list(pool.map(partial(_images, root, folder, caps[split]), classes))
            for split, folder in SPLITS.items()
        }
    groups = [files for split in SPLITS for files in found[split]]
    return Listing(
        files=np.array([file.encode() for files in groups for file in files]),
        labels=np.repeat(np.tile(np.arange(len(classes)), 2), [len(files) for files in groups]),
        splits={split: sum(map(len, found[split])) for split in SPLITS},
        classes=classes,
        image_size=spec.image_size,
        source={"folder": root.name},
    )


def sound(listing: Listing, spec: ImageNet, threads: int = 1, progress: bool = False) -> Listing:
    """With `corrupt: skip`, the list without the images that cannot be decoded; their names are in its `source`.

    Each image is decoded once, on so many processes. Raises UserError where a class has none left.
    """
    if spec.corrupt == "stop":
        return listing
    files = [file.decode() for file in listing.files.tolist()]
    good = np.array(_decode_all(Path(spec.path), files, threads, progress))
    skipped = [file for file, kept in zip(files, good) if not kept]
    if skipped:
        log.warning("%d images cannot be decoded and are left out: %s", len(skipped), ", ".join(skipped))
    n_train = listing.splits["train"]
    for split, part in (("train", slice(n_train)), ("test", slice(n_train, None))):
        left = np.bincount(listing.labels[part][good[part]], minlength=len(listing.classes))
        if not left.all():
            folder = Path(spec.path, SPLITS[split], listing.classes[left.argmin()])
            raise UserError(f"{folder}: holds no image that can be decoded")
    return replace(
        listing,
        files=listing.files[good],
        labels=listing.labels[good],
        splits={"train": int(good[:n_train].sum()), "test": int(good[n_train:].sum())},
        source=listing.source | {"skipped": skipped},
    )


def _folders(root: Path, name: str) -> list[str]:
    """Names of the class folders of a split."""
    split = root / name
    entries = _visible(split, f"expected {root}/train/<class>/* and {root}/val/<class>/*")
    folders = [entry.name for entry in entries if entry.is_dir()]
    if not folders:
        flat = ": the official val images come in one folder and must be sorted by class first" if entries else ""
        raise UserError(f"{split}: holds no class folders, expected {split}/<class>/*{flat}")
    return folders


def _common(root: Path, folders: dict[str, list[str]]) -> list[str]:
    """The classes, which must be those of both splits."""
    train, test = map(set, folders.values())
    for lacking, missing in (("val", train - test), ("train", test - train)):
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(f"{root / lacking}: lacks class '{min(missing)}'{more}: both splits need the same classes")
    return folders["train"]


def _images(root: Path, split: str, cap: int | None, name: str) -> list[str]:
    """Files of a class, relative to the root."""
    folder = root / split / name
    files = [f"{split}/{name}/{entry.name}" for entry in _visible(folder, "expected images")]
    if not files:
        raise UserError(f"{folder}: holds no images: every class needs at least one")
    return files[:cap]


def _visible(folder: Path, expected: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}: {expected}") from error


def _decode_all(root: Path, files: list[str], threads: int, progress: bool) -> list[bool]:
    """Whether each of the files can be decoded."""
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    good: list[bool] = []
    hidden = None if progress else True  # None: on a terminal only
    with ProcessPoolExecutor(threads) as pool, tqdm(total=len(files), unit="img", desc="check", disable=hidden) as bar:
        for chunk in pool.map(partial(_decode_each, root), chunks):
            good += chunk
            bar.update(len(chunk))
    return good


def _decode_each(root: Path, files: list[str]) -> list[bool]:
    return [_decodes(root / file) for file in files]


def _decodes(file: Path) -> bool:
    try:
        decode(file)
    except UserError:
        return False
    return True
