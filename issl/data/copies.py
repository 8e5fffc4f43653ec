"""Copies among the images of a data set: of training images in the test split, and of one class in another."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

log = logging.getLogger(__name__)


def digests(images: np.ndarray) -> list[bytes]:
    """A checksum of the pixels of each of the images, (B, H, W, 3) uint8."""
    return [hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images]


def faults(digests: Sequence[bytes], labels: np.ndarray, n_train: int, classes: Sequence[str]) -> Iterator[str]:
    """Why accuracies would say nothing: a test split of training images alone, or two classes with the same images.

    Takes `digests` of all images, those of the train split first. Logs the number of other copies, of which real data
    sets have some.
    """
    train = {*digests[:n_train]}
    seen = sum(digest in train for digest in digests[n_train:])
    if seen and seen == len(digests) - n_train:
        yield "every test image is a copy of a training image: accuracies would be those of images that were learned"
    inside: dict[int, set[bytes]] = defaultdict(set)
    for digest, label in zip(digests, labels.tolist()):
        inside[label].add(digest)
    first: dict[frozenset[bytes], int] = {}
    for label, found in sorted(inside.items()):
        if (other := first.setdefault(frozenset(found), label)) != label:
            yield f"classes '{classes[other]}' and '{classes[label]}' have the same images"
    labels_of: dict[bytes, set[int]] = defaultdict(set)
    for label, found in inside.items():
        for digest in found:
            labels_of[digest].add(label)
    shared = sum(len(each) > 1 for each in labels_of.values())
    if seen:
        log.warning("%d of %d test images are copies of training images", seen, len(digests) - n_train)
    if shared:
        log.warning("%d images are in more than one class", shared)
