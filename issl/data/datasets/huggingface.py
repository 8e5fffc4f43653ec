"""Data sets of the Hugging Face hub, or folders that `save_to_disk` of their package `datasets` wrote.

Only the package reads its formats; images are decoded here, from the bytes of their files, as those of a folder are.
"""

import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from issl.data import faults, pixels
from issl.data.arrays import UNLABELLED, Content, Rows, located
from issl.errors import UserError, nearest
from issl.jobs import packages
from issl.spec.data import HuggingFace


def read(spec: HuggingFace, progress: bool = False) -> Content:
    """Rows are in the order of the data set; rows of train, then test, then unlabelled.

    Class labels keep their numbers and names; words are numbered in alphabetical order. Raises UserError if the package
    `datasets`, the data set, a split or a column is missing, if a label is, or if only one of the splits has a class.
    """
    found = _loaded(spec)
    chosen = {split: name for split, name in spec.split.model_dump().items() if name is not None}
    for name in chosen.values():
        if name not in found:
            raise UserError(f"{_place(spec)}: has no split '{name}', {nearest(name, found)}: set it under `split`")
    parts = {split: _images(spec, found[name], name) for split, name in chosen.items()}
    columns = {split: _column(spec, found[chosen[split]], chosen[split]) for split in ("train", "test")}
    classes = _classes(spec, found[chosen["train"]].features[spec.label], [*columns["train"], *columns["test"]])
    labels = {split: _numbers(column, classes) for split, column in columns.items()}
    faults.refuse(faults.one_sided(_place(spec), labels["train"], labels["test"], classes))
    unlabelled = np.full(len(parts["unlabelled"]) if "unlabelled" in parts else 0, UNLABELLED)
    return Content(
        labels=np.concatenate([*labels.values(), unlabelled]),
        splits={split: len(part) for split, part in parts.items()},
        classes=classes,
        image_size=spec.image_size,
        open=partial(_open, spec, [*parts.values()]),
        source={"huggingface": spec.repo or Path(spec.path).name, "revision": spec.revision},
    )


def _place(spec: HuggingFace) -> str:
    return f"{spec.repo} at {spec.revision}" if spec.repo else spec.path


def _loaded(spec: HuggingFace) -> Mapping[str, Any]:
    """The data set's splits."""
    if not packages.installed("datasets"):
        raise UserError(f"data of kind huggingface need a package: {packages.install('huggingface')}")
    import datasets  # optional, and takes seconds to import

    if spec.repo is None and not Path(spec.path).is_dir():
        raise UserError(f"{spec.path}: no such folder: expected one that `save_to_disk` wrote, or set `repo`")
    try:
        if spec.repo is None:
            found = datasets.load_from_disk(spec.path)
        else:
            found = datasets.load_dataset(spec.repo, spec.subset, revision=spec.revision, cache_dir=spec.path)
    except Exception as error:  # which one depends on the version, the hub and the files
        todo = "correct `repo`, `revision` or `subset`, or check the network" if spec.repo else "save it again"
        raise UserError(f"{_place(spec)}: cannot be read by `datasets` ({pixels.reason(error)}): {todo}") from error
    if not isinstance(found, Mapping):
        raise UserError(
            f"{spec.path}: holds one split without a name: save a DatasetDict with a train and a test split"
        )
    return found


def _known(spec: HuggingFace, part: Any, column: str, setting: str, split: str) -> None:
    if column not in part.column_names:
        hint = nearest(column, part.column_names)
        raise UserError(f"{_place(spec)}: split '{split}' has no column '{column}', {hint}: set `{setting}`")


def _images(spec: HuggingFace, part: Any, split: str) -> Any:
    """The column of images alone, as the bytes or paths of their files."""
    import datasets

    _known(spec, part, spec.image, "image", split)
    if not isinstance(part.features[spec.image], datasets.Image):
        raise UserError(f"{_place(spec)}: column '{spec.image}' of split '{split}' holds no images: set `image`")
    return part.select_columns([spec.image]).cast_column(spec.image, datasets.Image(decode=False))


def _column(spec: HuggingFace, part: Any, split: str) -> list[int | str]:
    """The labels of a split as they are: whole numbers from 0 on, or words."""
    _known(spec, part, spec.label, "label", split)
    found = part.select_columns([spec.label])[:][spec.label]
    for row, label in enumerate(found):
        if isinstance(label, bool) or not isinstance(label, int | str) or (isinstance(label, int) and label < 0):
            raise UserError(
                f"{_place(spec)}: image {row} of split '{split}' has the label {label!r}: expected a number from 0 on, "
                "or a word; a split without labels is `split: {unlabelled: ...}`"
            )
    return found


def _classes(spec: HuggingFace, feature: Any, labels: Sequence[int | str]) -> list[str]:
    """Names of the classes, in the order of their numbers."""
    if len({type(label) for label in labels}) > 1:
        raise UserError(f"{_place(spec)}: labels are words in one split and numbers in the other")
    if names := getattr(feature, "names", None):
        return list(names)
    if labels and isinstance(labels[0], str):
        return sorted(set(labels))
    return [*map(str, range(1 + max(labels, default=-1)))]


def _numbers(labels: Sequence[int | str], classes: Sequence[str]) -> np.ndarray:
    number = {name: number for number, name in enumerate(classes)}
    return np.array([number[label] if isinstance(label, str) else label for label in labels], np.int64)


def _open(spec: HuggingFace, parts: Sequence[Any]) -> Rows:
    size, lengths = spec.image_size, [*map(len, parts)]

    def rows(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, size, size, 3), np.uint8)
        for target, (number, place) in zip(images, located(lengths, range(start, stop))):
            target[:] = pixels.square(_decoded(spec, parts[number][place][spec.image], place), size)
        return images

    return rows


def _decoded(spec: HuggingFace, file: Mapping[str, Any] | None, place: int) -> Any:
    try:
        if file is None:
            raise ValueError("there is none")
        return pixels.decoded(io.BytesIO(file["bytes"]) if file["bytes"] is not None else Path(file["path"]))
    except ValueError as error:
        raise UserError(f"{_place(spec)}: image {place} cannot be decoded ({error}): replace or remove it") from error
