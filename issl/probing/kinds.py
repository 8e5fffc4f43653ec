"""Kinds of probes: each has a module with a function ``evaluate(grid, task)``, and an entry here."""

from collections.abc import Callable
from importlib import import_module

from issl.probing.scores import Score
from issl.probing.task import Task
from issl.spec import plugins
from issl.spec import probe as spec
from issl.spec.probe import ProbeGrid

# Imported when needed: SciPy takes seconds, and most kinds do not need it.
KINDS = {
    "linear": "issl.probing.heads",
    "mlp": "issl.probing.heads",
    "cached": "issl.probing.cached",
    "augmented": "issl.probing.augmented",
    "fine_tuned": "issl.probing.fine_tuned",
    "logistic": "issl.probing.classifiers",
    "svm": "issl.probing.classifiers",
    "knn": "issl.probing.neighbours",
}


def evaluate(kind: str) -> Callable[[ProbeGrid, Task], list[Score]]:
    """The function that scores a grid of probes of this kind: one of ours, or that of a plug-in."""
    return import_module(KINDS[kind]).evaluate if kind in KINDS else plugins.implementation(spec.KINDS[kind])
