"""Imports Lightning without unneeded packages, and silences it.

Lightning imports torchmetrics for two types. torchmetrics imports SciPy's signal processing, matplotlib and torchvision
if they are installed, for audio, plots and image scores, which would delay every job by more than a second. They are
optional, so they are hidden while Lightning is imported.
"""

import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["LightningEnvironment", "SLURMEnvironment", "pl"]

UNSEEN = frozenset({"matplotlib", "scipy", "torchvision"})


@contextmanager
def _unseen() -> Iterator[None]:
    """Hides these packages from importlib's queries; explicit imports still work."""
    distribution, find_spec = importlib.metadata.distribution, importlib.util.find_spec

    def seen_distribution(name: str) -> Any:
        if name in UNSEEN:
            raise importlib.metadata.PackageNotFoundError(name)
        return distribution(name)

    def seen_spec(name: str, package: str | None = None) -> Any:
        return None if name in UNSEEN else find_spec(name, package)

    importlib.metadata.distribution, importlib.util.find_spec = seen_distribution, seen_spec
    try:
        yield
    finally:
        importlib.metadata.distribution, importlib.util.find_spec = distribution, find_spec


with _unseen():
    import pytorch_lightning as pl
    from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

# Lightning's messages about hardware, its products and data loaders are wrong or useless here.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
for package in ("pytorch_lightning", "lightning_fabric"):
    warnings.filterwarnings("ignore", module=package)
