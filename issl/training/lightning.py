"""Lightning, imported without what it never needs here, and quiet.

Lightning imports torchmetrics for the sake of two types. torchmetrics imports SciPy's signal processing, matplotlib and
torchvision wherever they are installed, for sounds, plots and scores of images: with them every job would start more
than a second later. Its users may lack them, so while Lightning is imported they are said not to be installed.
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
    """Within it, importlib knows nothing of these packages, unless it is asked to import them."""
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

# What Lightning says of hardware and its own products, and advises about data loaders, does not hold or help here.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
for package in ("pytorch_lightning", "lightning_fabric"):
    warnings.filterwarnings("ignore", module=package)
