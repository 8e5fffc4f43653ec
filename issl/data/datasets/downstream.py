"""Data sets for transfer, through torchvision, which knows their files and official splits.

Photographs are only listed, and decoded when they are needed, unless the spec has an `image_size`.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from issl.data import faults, tree
from issl.data.arrays import Content, Listing
from issl.data.datasets import folder
from issl.errors import UserError
from issl.spec.data import Torchvision

# The errors of torchvision and of what it reads lists with: they differ between data sets.
DAMAGED = (RuntimeError, OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, pickle.UnpicklingError)
LISTED = 224  # pixels: side of the central square of a photograph, unless an encoding says otherwise
CALTECH_TRAIN = 30  # images of a class; the rest are test images
CALTECH_FOLDER = "caltech101/101_ObjectCategories"


class Split(NamedTuple):
    """Files and labels of one split, and the names of all classes."""

    files: list[Path]
    labels: list[int]
    classes: list[str]


def read(spec: Torchvision, progress: bool = False) -> Content | Listing:
    """Rows and class indices are torchvision's; train rows first.

    Raises UserError if the files are missing or damaged, or if the data set's own lists contradict them.
    """
    root = Path(spec.path)
    try:
        if spec.name == "cifar100":
            return _cifar100(root, spec.download)
        train, test = SPLITS[spec.name](root, spec.download)
    except DAMAGED as error:
        todo = "check the network, or put" if spec.download else "set `download: true`, or put"
        raise UserError(
            f"{root}: {spec.name} is missing or damaged ({error}): {todo} it there in torchvision's layout"
        ) from error
    faults.refuse(_contradictions(root, train, test))
    files = [str(file.relative_to(root)) for file in (*train.files, *test.files)]
    common = {
        "labels": np.array([*train.labels, *test.labels]),
        "splits": {"train": len(train.files), "test": len(test.files)},
        "classes": train.classes,
        "source": {"torchvision": spec.name},
    }
    if spec.image_size is None:
        return Listing(files=np.array([os.fsencode(file) for file in files]), image_size=LISTED, **common)
    return Content(image_size=spec.image_size, open=partial(folder.rows, root, files, spec.image_size), **common)


def _contradictions(root: Path, train: Split, test: Split) -> Iterator[str]:
    """Listed images that are not there or are of two classes, and classes that only one of the splits has."""
    listed = [*zip(train.files, train.labels), *zip(test.files, test.labels)]
    with ThreadPoolExecutor(tree.LISTERS) as pool:
        there = pool.map(lambda image: image[0].is_file(), listed)
        absent = [file for (file, _), found in zip(listed, there) if not found]
    yield from (f"{file}: is listed, but not there: restore it" for file in absent)
    class_of: dict[Path, int] = {}
    for file, label in listed:
        if class_of.setdefault(file, label) != label:
            names = train.classes[class_of[file]], train.classes[label]
            yield f"{file}: is listed in two classes, '{names[0]}' and '{names[1]}': replace the data set's lists"
    for split, other, name in ((train, test, "training"), (test, train, "test")):
        for label in sorted({*other.labels} - {*split.labels}):
            yield f"{root}: class '{train.classes[label]}' has no {name} images: replace the data set's lists"


def _cifar100(root: Path, download: bool) -> Content:
    from torchvision.datasets import CIFAR100  # takes seconds to import, and nothing else here needs it

    train, test = (CIFAR100(root, train=part, download=download) for part in (True, False))
    images = np.concatenate([train.data, test.data])
    return Content(
        labels=np.concatenate([train.targets, test.targets]),
        splits={"train": len(train), "test": len(test)},
        classes=list(train.classes),
        image_size=32,
        open=lambda: lambda start, stop: images[start:stop],
        source={"archive": CIFAR100.filename, "md5": CIFAR100.tgz_md5},
        parallel=False,  # already decoded
    )


# torchvision's data sets have no public list of their files; the tests pin the private attributes used here.


def _food101(root: Path, download: bool) -> tuple[Split, Split]:
    from torchvision.datasets import Food101

    return _both(lambda split: Food101(root, split, download=download), "train", "test")


def _aircraft(root: Path, download: bool) -> tuple[Split, Split]:
    """Only the official train split, without val, as in the authors' scripts."""
    from torchvision.datasets import FGVCAircraft

    return _both(lambda split: FGVCAircraft(root, split, "variant", download=download), "train", "test")


def _dtd(root: Path, download: bool) -> tuple[Split, Split]:
    """Train and test of the first of ten partitions, without val, as in the authors' scripts."""
    from torchvision.datasets import DTD

    return _both(lambda split: DTD(root, split, partition=1, download=download), "train", "test")


def _cars(root: Path, download: bool) -> tuple[Split, Split]:
    import scipy.io  # noqa: F401  torchvision imports it late, to read annotations
    from torchvision.datasets import StanfordCars

    parts = [StanfordCars(root, split, download=download) for split in ("train", "test")]
    files = [[Path(file) for file, _ in part._samples] for part in parts]
    return tuple(Split(f, [label for _, label in p._samples], list(p.classes)) for f, p in zip(files, parts))


def _pets(root: Path, download: bool) -> tuple[Split, Split]:
    from torchvision.datasets import OxfordIIITPet

    parts = [OxfordIIITPet(root, split, "category", download=download) for split in ("trainval", "test")]
    return tuple(Split(list(part._images), list(part._labels), list(part.classes)) for part in parts)


def _flowers(root: Path, download: bool) -> tuple[Split, Split]:
    """Train and val together, and test."""
    import scipy.io  # noqa: F401  likewise
    from torchvision.datasets import Flowers102

    train, val, test = (Flowers102(root, split, download=download) for split in ("train", "val", "test"))
    classes = list(train.classes)
    both = Split([*train._image_files, *val._image_files], [*train._labels, *val._labels], classes)
    return both, Split(list(test._image_files), list(test._labels), classes)


def _caltech101(root: Path, download: bool) -> tuple[Split, Split]:
    """Trains on thirty random images of each class and tests on the rest, as the authors do; background is a class.

    torchvision's own Caltech101 leaves the background out and has no splits.
    """
    from torchvision.datasets import Caltech101, ImageFolder

    if download:
        Caltech101(root, download=True)
    found = ImageFolder(root / CALTECH_FOLDER)
    used = {file for file, _ in found.samples}
    paths = [path for path in (root / CALTECH_FOLDER).rglob("*") if path.is_file() and not path.name.startswith(".")]
    tree.warn_unused(root, sorted(str(path.relative_to(root)) for path in paths if str(path) not in used))
    draws, splits = np.random.RandomState(0), (Split([], [], found.classes), Split([], [], found.classes))
    labels = np.array(found.targets)
    for label, name in enumerate(found.classes):
        rows = np.flatnonzero(labels == label)
        if len(rows) <= CALTECH_TRAIN:
            raise UserError(
                f"{root / CALTECH_FOLDER / name}: holds {len(rows)} images, but needs more than {CALTECH_TRAIN}"
            )
        trained = set(draws.choice(len(rows), CALTECH_TRAIN, replace=False).tolist())
        for place, row in enumerate(rows):
            split = splits[0 if place in trained else 1]
            split.files.append(Path(found.samples[row][0]))
            split.labels.append(label)
    return splits


def _both(open_split: Callable, *names: str) -> tuple[Split, ...]:
    """Splits of a data set that keeps its files in `_image_files`."""
    parts = [open_split(name) for name in names]
    return tuple(Split(list(map(Path, part._image_files)), list(part._labels), list(part.classes)) for part in parts)


SPLITS: dict[str, Callable[[Path, bool], tuple[Split, ...]]] = {
    "food101": _food101,
    "cars": _cars,
    "aircraft": _aircraft,
    "dtd": _dtd,
    "pets": _pets,
    "caltech101": _caltech101,
    "flowers102": _flowers,
}
