"""What jobs of each stage have to do, in amounts that take time: jobs, steps or images, and operations."""

import itertools
import math
from typing import NamedTuple

from issl.planning import flops
from issl.spec.encoder import Encoder
from issl.spec.encoding import Encoding
from issl.spec.probe import KNN, FineTuned, ProbeGrid, label_count, label_fraction
from issl.spec.run import RunSpec
from issl.spec.shape import Shape
from issl.spec.value import Value, short_hash


class Sizes(NamedTuple):
    """Of a data set: images in both splits, classes, and images without a label, which only pretraining reads."""

    train: int
    test: int
    classes: int
    unlabelled: int = 0


class Work(NamedTuple):
    """The work of one job. Jobs of one `stage` take time in proportion to their amounts; those of one `shape` differ
    in nothing else."""

    stage: str
    shape: str
    jobs: float  # 1, or 0 for the rest of a job that runs
    steps: float  # of training, or batches to encode
    flops: float

    @property
    def amounts(self) -> tuple[float, float, float]:
        return self.jobs, self.steps, self.flops

    def part(self, fraction: float) -> "Work":
        """This fraction of the steps, in a job of its own."""
        return self._replace(steps=fraction * self.steps, flops=fraction * self.flops)


def steps_per_epoch(run: RunSpec, images: int) -> int:
    """Steps of an epoch on this number of training images."""
    full, rest = divmod(images, run.optim.batch_size)
    return full + bool(rest and not run.optim.drop_last)


def pretraining(run: RunSpec, sizes: Sizes) -> Work:
    """A pretraining from its start to its end, its monitoring of the test split included."""
    if not run.epochs:
        return Work("pretrain", "untrained", 1, 0, 0)
    steps = run.epochs * steps_per_epoch(run, sizes.train + sizes.unlabelled)
    shape = _hash(run.objective, run.encoder, run.augment, run.optim.batch_size, run.data.image_size, sizes)
    return Work("pretrain", shape, 1, steps, steps * flops.of_step(run))


def featurizing(encoder: Shape | Encoder, encoding: Encoding, sizes: Sizes) -> Work:
    """Encoding every image of a data set."""
    images = sizes.train + sizes.test
    each = flops.of_image(encoder, encoding.crop)
    shape = _hash(encoder, encoding, sizes)
    return Work("featurize", shape, 1, images / encoding.batch_size, images * each)


def probing(grid: ProbeGrid, encoder: Shape | Encoder, encoding: Encoding, sizes: Sizes) -> Work:
    """Training and scoring the probes of a grid on the representations of an encoder.

    A step of a head costs three products with its weights; one of the augmented protocol also encodes its images, and
    fine-tuning passes through the encoder forwards and backwards, which is as much as encoding them three times, and
    encodes the test images. An iteration of a classifier of transfer passes over all images.
    """
    steps = operations = 0.0
    for probe in grid.probes:
        images = label_count(label_fraction(probe), sizes.train)
        if isinstance(probe, KNN):  # each test and each held-out image beside each training image
            queries = sizes.test + probe.holdout * images
            steps += queries / encoding.batch_size
            operations += 2 * queries * images * encoder.dim
            continue
        searched = getattr(probe, "draws", 0) * getattr(probe, "max_iter", 0)
        passes = getattr(probe, "epochs", 0) or searched or 1  # of a kind added later, once over its images
        hidden = getattr(probe, "hidden", 0)
        widths = (encoder.dim, *([hidden, hidden] if hidden else []), sizes.classes)
        steps += passes * math.ceil(images / getattr(probe, "batch_size", images))
        operations += passes * images * 6 * sum(a * b for a, b in itertools.pairwise(widths))
        if isinstance(probe, FineTuned):
            operations += (3 * passes * images + sizes.test) * flops.of_image(encoder, encoding.crop)
    if grid.kind == "augmented":  # once for all heads
        operations += grid.probes[0].epochs * sizes.train * flops.of_image(encoder, encoding.crop)
    shape = _hash(grid, encoder, encoding, sizes)
    return Work(f"probe {grid.kind}", shape, 1, steps, operations)


def _hash(*parts: object) -> str:
    return short_hash(" ".join(part.canonical() if isinstance(part, Value) else repr(part) for part in parts))
