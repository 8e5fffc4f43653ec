"""Folders of images in the layout <split>/<class>/<file>."""

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from issl.data import faults
from issl.errors import printable

log = logging.getLogger(__name__)

LISTERS = 16  # threads: listing folders waits for the disk

Files = dict[str, list[str]]  # class -> its files, relative to the root of the data set


class Entries(NamedTuple):
    """Names in a folder, in alphabetical order, without hidden ones."""

    files: list[str]
    folders: list[str]
    broken: list[str]  # links to nothing, pipes


def read(root: Path, folders: Mapping[str, str], classes: int | None = None) -> dict[str, Files]:
    """The files of each split, by its folder in `root`; names are in alphabetical order, hidden ones are ignored.

    `classes` keeps the first classes. Raises UserError that lists all faults: a split that is missing or has no
    classes, classes that differ between splits, a class without files, and entries that cannot be images of a class.
    Logs the names of unused files and folders.
    """
    wrong: list[str] = []
    unused = _unused(root, folders)
    found: dict[str, list[str]] = {}
    for split, folder in folders.items():
        try:
            entries = _entries(root / folder)
        except OSError as error:
            expected = " and ".join(f"{root / each}/<class>/<file>" for each in folders.values())
            wrong.append(f"{root / folder}: cannot be read: {error.strerror}: expected {expected}")
            continue
        names, loose = _classes(root / folder, entries, wrong)
        unused += [f"{folder}/{name}" for name in loose]
        if names:
            found[split] = names
    if len(found) == len(folders):
        wrong += _differences(root, folders, found)
        wrong += _same([root / folders[split] / name for split, names in found.items() for name in names])
    with ThreadPoolExecutor(LISTERS) as pool:
        jobs = {
            split: {name: pool.submit(_files, root, f"{folders[split]}/{name}") for name in names[:classes]}
            for split, names in found.items()
        }
    tree: dict[str, Files] = {split: {} for split in folders}
    for split, of_class in jobs.items():
        for name, job in of_class.items():
            tree[split][name], complaints = job.result()
            wrong += complaints
    faults.refuse(wrong)
    warn_unused(root, unused)
    return tree


def warn_unused(root: Path, names: list[str]) -> None:
    """Logs the unused files and folders of a data set on one line."""
    if names:
        log.warning("%s: not used: %s", printable(str(root)), faults.first(names))


def _unused(root: Path, folders: Mapping[str, str]) -> list[str]:
    """Other entries of the root, e.g. a README, or a val split beside the test split."""
    try:
        entries = _entries(root)
    except OSError:
        return []  # reported for the splits
    return sorted({*entries.files, *entries.folders, *entries.broken} - {*folders.values()})


def _classes(split: Path, entries: Entries, wrong: list[str]) -> tuple[list[str], list[str]]:
    """The class folders of a split, and files beside them that are not images."""
    files, names, broken = entries
    expected = f"expected {split}/<class>/<file>"
    wrong += _broken(split, broken)
    if not names:
        flat = f": its {len(files)} files come in one folder, sort them by class first" if files else ""
        wrong.append(f"{split}: holds no class folders, {expected}{flat}")
        return [], []
    images = [name for name in files if Path(name).suffix.lower() in Image.registered_extensions()]
    if images:
        wrong.append(
            f"{split}: holds images beside the class folders, {expected}: move each into the folder of its class, or "
            f"remove it: {faults.first(images)}"
        )
    return names, sorted({*files} - {*images})


def _differences(root: Path, folders: Mapping[str, str], found: Mapping[str, list[str]]) -> list[str]:
    """Classes that only some of the splits have."""
    everywhere = set().union(*found.values())
    missing = {split: sorted(everywhere.difference(names)) for split, names in found.items()}
    return [
        f"{root / folders[split]}: lacks class '{names[0]}'{_more(names)}: both splits need the same classes"
        for split, names in missing.items()
        if names
    ]


def _same(classes: list[Path]) -> Iterator[str]:
    """Folders of classes that are one folder by links, such as a val split that is a link to the train split."""
    with ThreadPoolExecutor(LISTERS) as pool:
        places = pool.map(Path.stat, classes)
        first: dict[tuple[int, int], Path] = {}
        for place, folder in zip(places, classes):
            if (other := first.setdefault((place.st_dev, place.st_ino), folder)) != folder:
                yield f"{folder}: is the same folder as {other}, by a link: each class of a split needs its own images"


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _files(root: Path, folder: str) -> tuple[list[str], list[str]]:
    """Files of a class, relative to the root, and what is wrong with the folder."""
    path = root / folder
    try:
        files, nested, broken = _entries(path)
    except OSError as error:
        return [], [f"{path}: cannot be read: {error.strerror}: expected images"]
    wrong = _broken(path, broken)
    wrong += [f"{path / name}: is a folder in a class: expected {path}/<file>: move its images up" for name in nested]
    if not (files or wrong):
        wrong = [f"{path}: holds no images: every class needs at least one"]
    return [f"{folder}/{name}" for name in files], wrong


def _broken(folder: Path, names: list[str]) -> list[str]:
    return [f"{folder / name}: is a broken link or not a file: repair or remove it" for name in names]


def _entries(folder: Path) -> Entries:
    """Entries of a folder; only links are inspected one by one. Raises OSError if the folder cannot be read."""
    found = Entries([], [], [])
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.name.startswith("."):
                found[_kind(entry)].append(entry.name)
    return found


def _kind(entry: os.DirEntry) -> int:
    """The field of `Entries` for this entry."""
    try:
        return 0 if entry.is_file() else 1 if entry.is_dir() else 2
    except OSError:  # a link to itself
        return 2
