"""Inputs of every probe."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from issl.data.arrays import Arrays
from issl.probing.shards import Features
from issl.spec.encoding import Encoding


@dataclass(frozen=True)
class Images:
    """Inputs of a probe on images: arrays, the encoder, the encoding, and a folder for saves."""

    arrays: Arrays
    encoder: str  # name of a released model, or folder of a run
    encoding: Encoding
    part: Path  # the caller removes it when the scores are written


@dataclass(frozen=True)
class Task:
    """The labels of a data set, the features or images, and the device and precision.

    Exactly one of `features` and `images` is given, depending on the kind of probe.
    """

    seed: int
    labels: np.ndarray  # (N,) of all rows
    train: np.ndarray  # row numbers of the split
    test: np.ndarray
    classes: int
    device: torch.device
    precision: str
    threads: int = 1
    features: Features | None = None
    images: Images | None = None
