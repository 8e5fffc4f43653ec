"""Data sets: from an archive, or none, to memory-mapped arrays.

Only this package knows archives. A data set is one module with one function ``read(spec, progress) -> Content``,
one entry in `READERS`, and one class in issl/spec.py. ImageNet is too large for arrays, and is listed instead.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from issl.data.arrays import IMAGES, LABELS, META, Arrays, Content, Listing, read, write, write_list
from issl.data.datasets import cifar10, downstream, imagenet, synthetic, tinyimagenet
from issl.data.datasets import folder as image_folder
from issl.jobs.locks import build_once
from issl.spec.data import DataSpec, ImageNet

log = logging.getLogger(__name__)

__all__ = ["READERS", "Arrays", "Content", "prepare", "read"]

READERS: dict[str, Callable[..., Content | Listing]] = {
    "tinyimagenet": tinyimagenet.read,
    "cifar10": cifar10.read,
    "folder": image_folder.read,
    "imagenet": imagenet.read,
    "synthetic": synthetic.read,
    "torchvision": downstream.read,
}


def prepare(spec: DataSpec, folder: str | Path, threads: int = 1, progress: bool = True) -> Arrays:
    """Brings a data set into its prepared form in `folder`, with that many worker processes; opens it.

    Waits while another process prepares the same folder, and then takes its result. Raises UserError for a source that
    is missing, damaged or not what the spec says; the folder is then as it was.
    """
    started = time.monotonic()
    made = [Path(folder, name) for name in (IMAGES, LABELS, META)]
    build_once(made, lambda: _make(spec, folder, threads, progress))
    arrays = read(folder)
    log.info("%d images of %d classes in %.1f s", len(arrays.labels), arrays.n_classes, time.monotonic() - started)
    return arrays


def _make(spec: DataSpec, folder: str | Path, threads: int, progress: bool) -> None:
    found = READERS[spec.kind](spec, progress)
    if isinstance(found, Listing):
        checked = imagenet.sound(found, spec, threads, progress) if isinstance(spec, ImageNet) else found
        write_list(folder, checked, spec)
    else:
        write(folder, found, spec, threads, progress)
