"""Top-1, top-5 and mean per-class accuracy of many classifiers at once, batch by batch, and the rows of score files."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from issl.spec.probe import Metric, Probe, ProbeGrid, setting

Accuracies = dict[Metric, float]

COLUMNS = (
    *("kind", "setting", "weight_decay", "fraction", "n_labels", "n_test"),
    *("metric", "test_acc", "holdout_acc"),
)


class Score(NamedTuple):
    """Accuracies of one setting of a probe.

    `test` is of the classifier trained on all `n_labels`; `holdout` of a second one, trained without a stratified part
    of them and scored on that part. Without `holdout` the setting can only be selected by its test scores.
    """

    setting: str
    n_labels: int
    n_test: int
    test: Accuracies
    holdout: Accuracies | None
    weight_decay: float | None = None
    fraction: float = 1.0

    def rows(self, kind: str) -> Iterator[dict[str, Any]]:
        """Rows of a score file, one per metric."""
        about = {name: value for name, value in self._asdict().items() if name not in ("test", "holdout")}
        for metric, value in self.test.items():
            held_out = self.holdout[metric] if self.holdout else None
            yield {"kind": kind, **about, "metric": metric, "test_acc": value, "holdout_acc": held_out}

    def __str__(self) -> str:
        held_out = f", held out {100 * self.holdout['top-1']:.2f} %" if self.holdout else ""
        return f"{self.setting}, {self.n_labels} labels: top-1 {100 * self.test['top-1']:.2f} %{held_out}"


def named(scores: Iterable[Score], probe: Probe, grid: ProbeGrid) -> Iterator[Score]:
    """Scores of a probe that names its own settings; if the grid has more probes, the probe's name is added."""
    for score in scores:
        names = filter(None, (setting(probe), score.setting))
        yield score._replace(setting=", ".join(names)) if len(grid.probes) > 1 else score


class Tally:
    """Counts the correct predictions of H classifiers of C classes."""

    def __init__(self, classifiers: int, classes: int, device: torch.device | str = "cpu"):
        self.best = torch.zeros(classifiers, classes, dtype=torch.int64, device=device)  # correct images by class
        self.among_five = torch.zeros(classifiers, dtype=torch.int64, device=device)
        self.images = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Adds logits (B, H, C) of images with labels (B,)."""
        classes = logits.shape[-1]
        best = logits.argmax(-1) == labels[:, None]  # (B, H)
        ranked = logits.topk(min(5, classes), dim=-1).indices  # (B, H, 5); of equal logits, any
        self.best.index_add_(1, labels, best.T.long())
        self.among_five += ((ranked == labels[:, None, None]).any(-1) | best).sum(0)
        self.images += torch.bincount(labels, minlength=classes)

    def scores(self) -> list[Accuracies]:
        """Accuracies of each classifier; classes without images are ignored."""
        total, present = self.images.sum(), self.images > 0
        top1 = self.best.sum(1).double() / total
        per_class = (self.best[:, present].double() / self.images[present]).mean(1)
        found = zip(top1.tolist(), (self.among_five.double() / total).tolist(), per_class.tolist())
        return [{"top-1": one, "top-5": five, "mean per class": each} for one, five, each in found]


def of_one(logits: Tensor, labels: Tensor) -> Accuracies:
    """Accuracies of one classifier from all its logits, (N, C)."""
    tally = Tally(1, logits.shape[1])
    tally.add(logits[:, None], labels)
    return tally.scores()[0]
