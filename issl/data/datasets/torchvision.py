"""Any data set of torchvision whose items are an image and the number of its class, decoded into arrays.

The data sets that the paper's authors evaluate on have a reader of their own, for their official lists of files.
"""

import inspect
import operator
import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from issl.data import faults, pixels
from issl.data.arrays import UNLABELLED, Content, Listing, Rows, located
from issl.data.datasets import downstream
from issl.errors import UserError, nearest
from issl.spec.data import DOWNSTREAM, Torchvision

UNREADABLE = (*downstream.DAMAGED, ImportError, pickle.PickleError)


def read(spec: Torchvision, progress: bool = False) -> Content | Listing:
    """Rows, class numbers and names of classes are torchvision's; rows of train, then test, then unlabelled.

    Raises UserError if files are missing or damaged, if the class in torchvision has no such arguments or no splits,
    if its items are no images with one label, or if only one of the splits has a class.
    """
    if spec.name in DOWNSTREAM and (spec.image_size is None or spec.name != "cifar100"):
        return downstream.read(spec, progress)
    kind = _kind(spec.name)
    given = {"train": spec.split.train, "test": spec.split.test, "unlabelled": spec.split.unlabelled}
    chosen = {split: _arguments(kind, split, own) for split, own in given.items() if own is not None}
    if chosen["train"] == chosen["test"]:
        raise UserError(
            f"data set {spec.name}: torchvision does not divide it into training and test images, unless an argument "
            f"does ({', '.join(sorted(_parameters(kind)))}): give it under `split`, or lay the images out as a folder"
        )
    parts = {split: _opened(kind, spec, arguments) for split, arguments in chosen.items()}
    labels = {split: _labels(spec, part, split) for split, part in parts.items()}
    names = getattr(parts["train"], "classes", None)
    number = 1 + max(int(labels[split].max(initial=-1)) for split in ("train", "test"))
    classes = [*map(str, names)] if names is not None and len(names) >= number else [*map(str, range(number))]
    faults.refuse(faults.one_sided(f"{spec.path}: {spec.name}", labels["train"], labels["test"], classes))
    return Content(
        labels=np.concatenate([*labels.values()]),
        splits={split: len(part) for split, part in parts.items()},
        classes=classes,
        image_size=spec.image_size,
        open=partial(_open, spec, [*parts.values()], [*labels.values()]),
        source={"torchvision": kind.__name__, "arguments": chosen},
        parallel=not any(hasattr(part, "data") for part in parts.values()),  # those are in memory already
    )


def _kind(name: str) -> type:
    from torchvision import datasets  # takes seconds to import, and nothing else here needs it

    by_name = {each.lower(): getattr(datasets, each) for each in datasets.__all__}
    if name not in by_name:
        raise UserError(f"torchvision has no data set '{name}', {nearest(name, by_name)}")
    return by_name[name]


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class and of those that it passes the rest of its arguments to."""
    found: dict[str, inspect.Parameter] = {}
    for each in (each for each in kind.__mro__ if "__init__" in vars(each) and each is not object):
        found = dict(inspect.signature(each.__init__).parameters) | found
    ours = ("self", "root", "transform", "target_transform", "transforms", "loader", "download")
    passed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: each for name, each in found.items() if name not in ours and each.kind in passed}


def _arguments(kind: type, split: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that choose a split: those that are given, besides the usual one. For unlabelled images none is."""
    known = _parameters(kind)
    for name in given:
        if name not in known:
            raise UserError(f"split.{split}: {kind.__name__} has no argument '{name}', {nearest(name, known)}")
    chosen = ({} if split == "unlabelled" else _usual(known, split)) | dict(given)
    required = [name for name, each in known.items() if each.default is each.empty and name not in chosen]
    if required:
        raise UserError(
            f"split.{split}: {kind.__name__} needs an argument '{required[0]}': give it as "
            f"`split: {{{split}: {{{required[0]}: ...}}}}`"
        )
    return chosen


def _usual(known: Mapping[str, inspect.Parameter], split: str) -> dict[str, Any]:
    """`train: true` or `split: train`, or the class's own word for it, such as `split: trainval`."""
    if "train" in known:
        return {"train": split == "train"}
    if "split" not in known:
        return {}
    own = str(known["split"].default)
    return {"split": own if split == "train" and own.startswith("train") else split}


def _opened(kind: type, spec: Torchvision, arguments: Mapping[str, Any]) -> Any:
    """A split. Raises UserError with torchvision's reason if it cannot be opened."""
    download = {}
    if any("download" in inspect.signature(each.__init__).parameters for each in kind.__mro__):
        download = {"download": spec.download}
    try:
        return kind(root=spec.path, **arguments, **download)
    except UNREADABLE as error:
        todo = "check the network, or put" if spec.download and download else "set `download: true`, or put"
        todo = todo if download else "torchvision cannot download it: put"
        shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise UserError(
            f"{spec.path}: {spec.name} ({shown}) cannot be read ({error}): correct `split`, or {todo} it there in "
            "torchvision's layout"
        ) from error


def _labels(spec: Torchvision, part: Any, split: str) -> np.ndarray:
    """The class of each item, (n,) int64, -1 for unlabelled images. Decodes all images only if there is no list."""
    if split == "unlabelled":
        return np.full(len(part), UNLABELLED)
    if len(part):
        _class_of(spec, _item(spec, part, 0), 0)  # if it has none, one image tells, not all of them
    for name in ("targets", "labels", "_labels"):
        found = np.asarray(getattr(part, name, ()))
        if found.shape == (len(part),) and found.dtype.kind in "iu":
            break
    else:
        found = np.array([_class_of(spec, _item(spec, part, row), row) for row in range(len(part))], np.int64)
    if len(found) and found.min() < 0:
        raise UserError(f"{spec.path}: {spec.name} has {split} images without a label: name them under `unlabelled`")
    return found.astype(np.int64)


def _item(spec: Torchvision, part: Any, row: int) -> tuple[Image.Image, Any]:
    """Image and label of an item. Raises UserError if it is something else, or damaged."""
    where = f"{spec.path}: {spec.name}: image {row}"
    try:
        item = part[row]
    except UNREADABLE as error:
        raise UserError(f"{where} cannot be decoded ({pixels.reason(error)}): replace it") from error
    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Image.Image):
        raise UserError(f"{where} is no image with a label, so this data set cannot be used")
    return item


def _class_of(spec: Torchvision, item: tuple[Image.Image, Any], row: int) -> int:
    """The label of an item. Raises UserError if it is no whole number."""
    label = item[1]
    try:
        return operator.index(label)  # of Python, numpy or torch
    except TypeError:
        raise UserError(
            f"{spec.path}: {spec.name}: image {row} has no number of a class but {type(label).__name__}: choose "
            "another argument under `split`, e.g. `target_type`, or another data set"
        ) from None


def _open(spec: Torchvision, parts: Sequence[Any], labels: Sequence[np.ndarray]) -> Rows:
    size, lengths = spec.image_size, [*map(len, parts)]

    def rows(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, size, size, 3), np.uint8)
        for target, (number, place) in zip(images, located(lengths, range(start, stop))):
            item, label = _item(spec, parts[number], place), labels[number][place]
            if label != UNLABELLED and _class_of(spec, item, place) != label:
                raise UserError(f"{spec.path}: {spec.name}: image {place} is listed with another label than its own")
            target[:] = pixels.square(_rgb(spec, item[0], place), size)
        return images

    return rows


def _rgb(spec: Torchvision, image: Image.Image, place: int) -> Image.Image:
    if image.mode in pixels.DEEP:
        raise UserError(f"{spec.path}: {spec.name}: image {place} has more than 8 bits, without a defined white")
    return image.convert("RGB")
