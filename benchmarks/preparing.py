"""Images a second from TinyImageNet's JPEG files to arrays, beside torchvision's ImageFolder."""

import os
import re
import tempfile
import time
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch.utils.data import ConcatDataset, DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import PILToTensor

from benchmarks.measure import Row, compared, take_turns
from issl import data
from issl.spec.data import TinyImageNet

ARCHIVE = "ISSL_TINYIMAGENET_ZIP"  # environment variable: path of the archive, or of a part of it
WORKERS, BATCH, TO_REACH = 2, 128, 1.5
LABELLED = re.compile(r"((?:.*/)?(?:train|val)/).*\.JPEG")  # its group is the folder of a split

PREPARE = Row(
    "prepare", "images/s", f"ratio >= {TO_REACH}", "torchvision's ImageFolder and DataLoader; two workers each"
)
NAMES = (PREPARE.name,)


def images(rounds: int) -> list[Row]:
    """Ours reads the archive and writes the arrays; the peer reads the same files, extracted beforehand.

    Timed is everything from the first look at the source to the last image, the start of the two worker processes and
    the search for the files included, for both.
    """
    archive = os.environ.get(ARCHIVE)
    if not archive:
        return [replace(PREPARE, not_measured=f"{ARCHIVE} is not set to the path of TinyImageNet's archive")]
    if not Path(archive).is_file():
        return [replace(PREPARE, not_measured=f"{ARCHIVE}: no such file")]
    with tempfile.TemporaryDirectory() as folder:
        extracted, prepared = Path(folder) / "extracted", Path(folder) / "prepared"
        splits, n_images = _extract(archive, extracted)
        spec = TinyImageNet(kind="tinyimagenet", archive=archive, partial=True)
        ours, peer = take_turns(
            partial(_prepare, spec, prepared, n_images), partial(_image_folder, splits, n_images), rounds=rounds
        )
    return [compared(PREPARE, ours, peer, TO_REACH, images=n_images, workers=WORKERS, batch_of_peer=BATCH)]


def _extract(archive: str, folder: Path) -> tuple[list[Path], int]:
    """Extracts the labelled images; gives the folders of the two splits, and the number of images."""
    with zipfile.ZipFile(archive) as source:
        matches = [match for name in source.namelist() if (match := LABELLED.fullmatch(name))]
        source.extractall(folder, [match[0] for match in matches])
    return sorted({folder / match[1] for match in matches}), len(matches)


def _prepare(spec: TinyImageNet, folder: Path, n_images: int) -> float:
    """Images a second of the project's own preparation."""
    started = time.perf_counter()
    arrays = data.prepare(spec, folder, threads=WORKERS, progress=False)
    return _rate(len(arrays.labels), n_images, started)


def _image_folder(splits: list[Path], n_images: int) -> float:
    """Images a second of a loader that decodes them all once, and leaves them."""
    started = time.perf_counter()
    dataset = ConcatDataset([ImageFolder(path, PILToTensor()) for path in splits])
    decoded = sum(len(labels) for _, labels in DataLoader(dataset, BATCH, num_workers=WORKERS))
    return _rate(decoded, n_images, started)


def _rate(decoded: int, expected: int, started: float) -> float:
    if decoded != expected:
        raise RuntimeError(f"{decoded} of {expected} images were decoded: the contenders would differ in their work")
    return decoded / (time.perf_counter() - started)
