"""The online linear evaluation of a pretraining, which learns from the images that have a label."""

import torch.nn.functional as F
from torch import Tensor

from issl.data.arrays import UNLABELLED


def scores(logits: Tensor, labels: Tensor, labelled: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy and accuracy of a batch: logits (B, classes), labels (B,), -1 for images without one.

    `labelled` is the fraction of the training images that have a label. Sums over these of the batch are divided by
    their expected number, not by their own, which may be zero: so the mean over the batches of an epoch is that over
    its labelled images, in several processes too, and no step waits for a count.
    """
    expected = labelled * len(labels)
    loss = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum") / expected
    return loss, (logits.argmax(1) == labels).sum() / expected
