"""What the probes on images share: random crops to train on, and accuracies on central squares."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from issl.probing import images
from issl.probing.scores import Accuracies, Tally
from issl.probing.task import Task
from issl.views import decode

REQUEST = 64  # images that a worker process decodes at a time, at most


def mirrored_crops(task: Task, min_area: float, order: Iterable[Tensor], purpose: str, epoch: int) -> Iterator[Tensor]:
    """A random crop, randomly mirrored, of each image of each batch of the order: (B, S, S, 3) uint8.

    A crop depends on the purpose, the seed, the epoch and the image.
    """
    source, workers = images.one_by_one(task.images.arrays, task.images.encoding, task.threads)
    requests = [list(batch.split(REQUEST)) for batch in order]
    wanted = (decode.CropRequest(rows.tolist(), purpose, task.seed, epoch) for batch in requests for rows in batch)
    crops = decode.mirrored_crops(source, min_area, wanted, workers, pin=task.device.type == "cuda")
    for batch in requests:
        yield torch.cat(list(islice(crops, len(batch))))


@torch.no_grad()
def accuracies(task: Task, rows: Sequence[int], logits: Callable[[Tensor], Tensor]) -> list[Accuracies]:
    """Accuracies of H classifiers on the central squares of these rows.

    `logits` takes squares, (b, S, S, 3) uint8, and gives those of every classifier, (b, H, classes).
    """
    source, workers = images.one_by_one(task.images.arrays, task.images.encoding, task.threads)
    tally, labels, done = None, torch.from_numpy(task.labels), 0
    for squares in decode.central_squares(source, list(rows), workers):
        found = logits(squares)
        tally = tally or Tally(found.shape[1], task.classes, task.device)
        tally.add(found, labels[rows[done : done + len(squares)]].to(task.device))
        done += len(squares)
    return tally.scores()
