"""Self-supervised learning by characterising idealized representations (DISSL, CISSL, SimCLR, DINO)."""

__version__ = "0.1.0"
