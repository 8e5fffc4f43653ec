"""ImageNet, or any data set in its layout: train/<class>/* and val/<class>/*, listed but not decoded."""

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from issl.data import faults, tree
from issl.data.arrays import Listing
from issl.data.jpeg import decode
from issl.errors import UserError, printable
from issl.spec.data import ImageNet

log = logging.getLogger(__name__)

SPLITS = {"train": "train", "test": "val"}  # our names, and those of the folders
CHUNK = 256  # files that a process checks at a time


def read(spec: ImageNet, progress: bool = False) -> Listing:
    """Finds the images; classes and files are in alphabetical order, hidden files are ignored.

    Raises UserError for a folder in another layout.
    """
    root = Path(spec.path)
    found = tree.read(root, SPLITS, spec.classes)
    classes = list(found["train"])
    if spec.classes and len(classes) < spec.classes:
        raise UserError(f"{root}: holds {len(classes)} classes, but `classes` asks for the first {spec.classes}")
    caps = {"train": spec.train_per_class, "test": spec.test_per_class}
    kept = {split: [files[: caps[split]] for files in found[split].values()] for split in SPLITS}
    groups = [files for split in SPLITS for files in kept[split]]
    return Listing(
        files=np.array([os.fsencode(file) for files in groups for file in files]),
        labels=np.repeat(np.tile(np.arange(len(classes)), 2), [len(files) for files in groups]),
        splits={split: sum(map(len, kept[split])) for split in SPLITS},
        classes=classes,
        image_size=spec.image_size,
        source={"folder": root.name},
    )


def sound(listing: Listing, spec: ImageNet, threads: int = 1, progress: bool = False) -> Listing:
    """With `corrupt: skip`, the list without undecodable images, whose names go into its `source`.

    Decodes each image once, in `threads` processes. Raises UserError with the classes that have none left. Otherwise
    decodes only the files that have not the name of an image, such as a README, and raises UserError for those that
    are none: a training would meet them after hours.
    """
    files = [os.fsdecode(file) for file in listing.files.tolist()]
    if spec.corrupt == "stop":
        odd = [file for file in files if Path(file).suffix.lower() not in Image.registered_extensions()]
        good = _decode_all(Path(spec.path), odd, threads, progress) if odd else []
        faults.refuse(
            f"{Path(spec.path, file)}: is not an image: remove it, or set `corrupt: skip` for this data set"
            for file, decoded in zip(odd, good)
            if not decoded
        )
        return listing
    good = np.array(_decode_all(Path(spec.path), files, threads, progress))
    skipped = [file for file, kept in zip(files, good) if not kept]
    if skipped:
        log.warning("left out %d images that cannot be decoded: %s", len(skipped), ", ".join(map(printable, skipped)))
    n_train, wrong = listing.splits["train"], []
    for split, part in (("train", slice(n_train)), ("test", slice(n_train, None))):
        left = np.bincount(listing.labels[part][good[part]], minlength=len(listing.classes))
        empty = [Path(spec.path, SPLITS[split], listing.classes[label]) for label in np.flatnonzero(left == 0)]
        wrong += [f"{folder}: holds no image that can be decoded" for folder in empty]
    faults.refuse(wrong)
    return replace(
        listing,
        files=listing.files[good],
        labels=listing.labels[good],
        splits={"train": int(good[:n_train].sum()), "test": int(good[n_train:].sum())},
        source=listing.source | {"skipped": skipped},
    )


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
