"""Top-1, top-5 and mean per-class accuracy of many classifiers at once, batch by batch."""

import torch
from torch import Tensor

from issl.spec.protocol import METRICS

SPLITS = ("test", "holdout")
COLUMNS = ("setting", "n_train", "n_test", *(f"{split}_{name}" for split in SPLITS for name in METRICS.values()))


class Tally:
    """Counts what H classifiers of C classes get right."""

    def __init__(self, classifiers: int, classes: int, device: torch.device | str = "cpu"):
        self.best = torch.zeros(classifiers, classes, dtype=torch.int64, device=device)  # correct images by class
        self.among_five = torch.zeros(classifiers, dtype=torch.int64, device=device)
        self.images = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (B, H, C) of images with labels (B,)."""
        classes = logits.shape[-1]
        ranked = logits.topk(min(5, classes), dim=-1).indices  # (B, H, 5)
        hits = ranked == labels[:, None, None]
        self.best.index_add_(1, labels, hits[..., 0].T.long())
        self.among_five += hits.any(-1).sum(0)
        self.images += torch.bincount(labels, minlength=classes)

    def scores(self) -> list[dict[str, float]]:
        """Each classifier's accuracies by their names in a column; a class without images does not count."""
        total, present = self.images.sum(), self.images > 0
        top1 = self.best.sum(1).double() / total
        per_class = (self.best[:, present].double() / self.images[present]).mean(1)
        found = zip(top1.tolist(), (self.among_five.double() / total).tolist(), per_class.tolist())
        return [dict(zip(METRICS.values(), values)) for values in found]


def score_row(
    setting: str, n_train: int, n_test: int, test: dict[str, float], holdout: dict[str, float] | None
) -> dict:
    """One line of a score file; without `holdout`, no choice can fall on this setting but by its test scores."""
    scores = {f"test_{name}": value for name, value in test.items()}
    scores |= {f"holdout_{name}": value for name, value in (holdout or {}).items()}
    return {"setting": setting, "n_train": n_train, "n_test": n_test, **scores}


def of_one(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The accuracies of one classifier from all its logits, (N, C)."""
    tally = Tally(1, logits.shape[1])
    tally.add(logits[:, None], labels)
    return tally.scores()[0]
