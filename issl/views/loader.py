"""The batches of views of a training run, from arrays in memory or from photographs decoded in the background.

Both sources have one interface: they put this rank's share of each batch on the device.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from issl.data.arrays import Arrays
from issl.jobs import distributed
from issl.spec.run import RunSpec
from issl.views import augment, batches, decode
from issl.views.ahead import ahead
from issl.views.random import epoch_order, generator


class Batch(NamedTuple):
    """Views of B images: (V B, 3, S, S) float32 for each group, view by view.

    A group has one resolution; the first has two views.
    """

    views: tuple[Tensor, ...]
    labels: Tensor  # (B,) int64


class Source(Protocol):
    """The views of one run with one seed."""

    def steps(self, epoch: int, step: int) -> Iterator[Batch]:
        """The batch of each step, from step `step` of epoch `epoch` to the end of training."""
        ...

    def pairs(self, epoch: int) -> Iterator[Batch]:
        """Batches with a clean and an augmented view of each test image, for monitoring after an epoch."""
        ...


def of(
    run: RunSpec, seed: int, arrays: Arrays, device: torch.device, resident_gb: float, workers: int
) -> "ResidentViews | StreamedViews":
    """The source for the data; `resident_gb` applies to arrays, `workers` decode photographs."""
    if run.augment.views:
        return StreamedViews(run, seed, arrays, device, workers)
    return ResidentViews(run, seed, arrays, device, resident_gb)


def shapes(run: RunSpec) -> list[tuple[int, int, int, int]]:
    """Those of each group of a full batch in one process, (V B, 3, S, S)."""
    size, more = run.data.image_size, run.augment.number - 2
    groups = [(views.number, views.size) for views in run.augment.views or ()]
    groups = groups or [(2, size), *([(more, size)] if more else [])]
    return [(number * run.optim.batch_size, 3, size, size) for number, size in groups]


def order(run: RunSpec, seed: int, epoch: int, images: int) -> tuple[Tensor, ...]:
    """Row numbers of each global batch of an epoch."""
    return epoch_order("order", seed, epoch, images, run.optim.batch_size, run.optim.drop_last)


class ResidentViews:
    """Views of arrays, computed on the device for whole batches."""

    def __init__(self, run: RunSpec, seed: int, arrays: Arrays, device: torch.device, resident_gb: float):
        self.run, self.seed, self.device = run, seed, device
        self.n_train, self.n_test = arrays.n_pretraining, arrays.meta["splits"]["test"]
        rows = arrays.pretraining, (arrays.split("test"),)
        self.train, self.test = (batches.of_rows(arrays, part, device, resident_gb) for part in rows)

    def steps(self, epoch: int, step: int) -> Iterator[Batch]:
        return ahead(self._steps(epoch, step), self.device)

    def _steps(self, epoch: int, step: int) -> Iterator[Batch]:
        for later in range(epoch, self.run.optim.epochs):
            first = step if later == epoch else 0
            rest = order(self.run, self.seed, later, self.n_train)[first:]
            images = self.train([distributed.share(rows) for rows in rest])  # (B, H, W, 3), (B,)
            for nth, (batch, labels) in enumerate(images, first):
                views = self.views(batch.permute(0, 3, 1, 2), self.run.augment.number, "augment", later, nth)
                two, more = views[: 2 * len(labels)], views[2 * len(labels) :]
                yield Batch((two, more) if len(more) else (two,), labels)

    def pairs(self, epoch: int) -> Iterator[Batch]:
        rows = torch.arange(self.n_test).split(self.run.optim.batch_size)
        for number, (images, labels) in enumerate(self.test([distributed.share(batch) for batch in rows])):
            batch, size = images.permute(0, 3, 1, 2), len(labels)
            augmented = self.views(batch, 2, "validate", epoch, number)[size:]
            yield Batch((torch.cat([augment.clean(batch), augmented]),), labels)

    def views(self, images: Tensor, number: int, purpose: str, *position: int) -> Tensor:
        """V = `number` views of each image: uint8 (B, 3, H, W) -> (V B, 3, H, W), for this position and rank."""
        draws, share = generator(purpose, self.seed, *position), (distributed.world_size(), distributed.rank())
        return augment.random_views(images, number, self.run.augment, draws, *share)


class StreamedViews:
    """Views of photographs, cropped on the CPU and recoloured on the device."""

    def __init__(self, run: RunSpec, seed: int, arrays: Arrays, device: torch.device, workers: int):
        self.run, self.seed, self.device, self.workers = run, seed, device, workers
        self.n_train, self.n_test = (arrays.meta["splits"][split] for split in ("train", "test"))
        self.first = {split: arrays.split(split).start for split in ("train", "test")}
        self.labels = torch.from_numpy(arrays.labels)
        # For monitoring, clean images have the size of the large views beside them.
        self.photos = decode.of(arrays, run.data.model_copy(update={"image_size": run.augment.views[0].size}))

    def steps(self, epoch: int, step: int) -> Iterator[Batch]:
        wanted = (  # read ahead, even beyond the end of an epoch
            decode.CropRequest(chunk.tolist(), "augment", self.seed, later)
            for later, rows in self.rows(epoch, step)
            for chunk in rows.split(decode.CHUNK)
        )
        crops = decode.crops(self.photos, self.run.augment, wanted, self.workers, self.pinned)
        for _, rows in self.rows(epoch, step):
            chunks = list(islice(crops, len(rows.split(decode.CHUNK))))
            yield Batch(tuple(self.color_and_blur(views) for views in zip(*chunks)), self.labels[rows].to(self.device))

    def rows(self, epoch: int, step: int) -> Iterator[tuple[int, Tensor]]:
        """Epoch and this rank's rows for every step from the given one."""
        for later in range(epoch, self.run.optim.epochs):
            rest = order(self.run, self.seed, later, self.n_train)[step if later == epoch else 0 :]
            yield from ((later, distributed.share(rows) + self.first["train"]) for rows in rest)

    def pairs(self, epoch: int) -> Iterator[Batch]:
        images = torch.arange(self.n_test).split(self.run.optim.batch_size)
        batches = [distributed.share(rows) + self.first["test"] for rows in images]
        chunks = [chunk.tolist() for rows in batches for chunk in rows.split(decode.CHUNK)]
        large = self.run.augment.model_copy(update={"views": self.run.augment.views[:1]})
        wanted = (decode.CropRequest(chunk, "validate", self.seed, epoch) for chunk in chunks)
        squares = decode.squares(self.photos, chunks, self.workers, self.pinned)
        crops = decode.crops(self.photos, large, wanted, self.workers, self.pinned)
        for rows in batches:
            number = len(rows.split(decode.CHUNK))
            clean = torch.cat([square.to(self.device) for square in islice(squares, number)])  # (B, S, S, 3)
            augmented = self.color_and_blur([views for (views,) in islice(crops, number)])[: len(rows)]
            pair = torch.cat([augment.clean(clean.permute(0, 3, 1, 2)), augmented])
            yield Batch((pair,), self.labels[rows].to(self.device))

    def color_and_blur(self, chunks: Sequence[decode.Views]) -> Tensor:
        """The views of one resolution of a batch, given in chunks: (V B, 3, S, S) float32, normalised."""
        images, draws = decode.joined(chunks, self.device)
        views = augment.color_and_blur(images, draws, self.run.augment.blur_kernel)
        return augment.normalize(views)

    @property
    def pinned(self) -> bool:
        return self.device.type == "cuda"  # copies from page-locked memory overlap with the computation
