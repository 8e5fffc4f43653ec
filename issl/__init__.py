"""Self-supervised learning by characterising idealized representations (DISSL, CISSL, SimCLR, DINO)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from issl.fitting import fit

__all__ = ["__version__", "fit"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "fit":
        raise AttributeError(f"module 'issl' has no attribute '{name}'")
    return import_module("issl.fitting").fit  # torch and Lightning take seconds to import, which planning does without
