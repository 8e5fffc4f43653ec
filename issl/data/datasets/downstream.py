"""Data sets that representations are transferred to, through torchvision, which knows their files and official splits.

Of photographs only the names are kept; they are decoded when they are needed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from issl.data.arrays import Content, Listing
from issl.errors import UserError
from issl.spec.data import Downstream

CALTECH_TRAIN = 30  # images of a class; the rest are test images
CALTECH_FOLDER = "caltech101/101_ObjectCategories"


class Split(NamedTuple):
    """Files and labels of one split, and the names of all classes."""

    files: list[Path]
    labels: list[int]
    classes: list[str]


def read(spec: Downstream, progress: bool = False) -> Content | Listing:
    """Rows and class indices are torchvision's; train rows first.

    Raises UserError where the files are not there, or are not what they should be.
    """
    root = Path(spec.path)
    try:
        if spec.name == "cifar100":
            return _cifar100(root, spec.download)
        train, test = SPLITS[spec.name](root, spec.download)
    except (RuntimeError, OSError, ValueError) as error:  # torchvision's own words differ from set to set
        todo = "check the network, or put" if spec.download else "set `download: true`, or put"
        raise UserError(
            f"{root}: {spec.name} is not there or damaged ({error}): {todo} it there, as torchvision expects it"
        ) from error
    return Listing(
        files=np.array([str(file.relative_to(root)).encode() for file in (*train.files, *test.files)]),
        labels=np.array([*train.labels, *test.labels]),
        splits={"train": len(train.files), "test": len(test.files)},
        classes=train.classes,
        image_size=spec.image_size,
        source={"torchvision": spec.name},
    )


def _cifar100(root: Path, download: bool) -> Content:
    from torchvision.datasets import CIFAR100  # seconds to import, and nothing else here needs it

    train, test = (CIFAR100(root, train=part, download=download) for part in (True, False))
    images = np.concatenate([train.data, test.data])
    return Content(
        labels=np.concatenate([train.targets, test.targets]),
        splits={"train": len(train), "test": len(test)},
        classes=list(train.classes),
        image_size=32,
        open=lambda: lambda start, stop: images[start:stop],
        source={"archive": CIFAR100.filename, "md5": CIFAR100.tgz_md5},
        parallel=False,  # all of it is decoded already
    )


# torchvision's data sets have no public list of their files; the tests pin the private ones that are read here.


def _food101(root: Path, download: bool) -> tuple[Split, Split]:
    from torchvision.datasets import Food101

    return _both(lambda split: Food101(root, split, download=download), "train", "test")


def _aircraft(root: Path, download: bool) -> tuple[Split, Split]:
    """The official train part alone, without val: so the authors' scripts build it."""
    from torchvision.datasets import FGVCAircraft

    return _both(lambda split: FGVCAircraft(root, split, "variant", download=download), "train", "test")


def _dtd(root: Path, download: bool) -> tuple[Split, Split]:
    """Train and test of the first of ten partitions, without val: so the authors' scripts build it."""
    from torchvision.datasets import DTD

    return _both(lambda split: DTD(root, split, partition=1, download=download), "train", "test")


def _cars(root: Path, download: bool) -> tuple[Split, Split]:
    import scipy.io  # noqa: F401  torchvision reads annotations with it, and asks for it late
    from torchvision.datasets import StanfordCars

    parts = [StanfordCars(root, split, download=download) for split in ("train", "test")]
    files = [[Path(file) for file, _ in part._samples] for part in parts]
    return tuple(Split(f, [label for _, label in p._samples], list(p.classes)) for f, p in zip(files, parts))


def _pets(root: Path, download: bool) -> tuple[Split, Split]:
    from torchvision.datasets import OxfordIIITPet

    parts = [OxfordIIITPet(root, split, "category", download=download) for split in ("trainval", "test")]
    return tuple(Split(list(part._images), list(part._labels), list(part.classes)) for part in parts)


def _flowers(root: Path, download: bool) -> tuple[Split, Split]:
    """Train and val together against test."""
    import scipy.io  # noqa: F401  likewise
    from torchvision.datasets import Flowers102

    train, val, test = (Flowers102(root, split, download=download) for split in ("train", "val", "test"))
    classes = list(train.classes)
    both = Split([*train._image_files, *val._image_files], [*train._labels, *val._labels], classes)
    return both, Split(list(test._image_files), list(test._labels), classes)


def _caltech101(root: Path, download: bool) -> tuple[Split, Split]:
    """Thirty random images of each class against the rest, with the background as a class, as the authors build it.

    torchvision's own Caltech101 leaves the background out and has no split.
    """
    from torchvision.datasets import Caltech101, ImageFolder

    if download:
        Caltech101(root, download=True)
    found = ImageFolder(root / CALTECH_FOLDER)
    draws, splits = np.random.RandomState(0), (Split([], [], found.classes), Split([], [], found.classes))
    labels = np.array(found.targets)
    for label, name in enumerate(found.classes):
        rows = np.flatnonzero(labels == label)
        if len(rows) <= CALTECH_TRAIN:
            raise UserError(
                f"{root / CALTECH_FOLDER / name}: {len(rows)} images, but more than {CALTECH_TRAIN} are needed"
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
