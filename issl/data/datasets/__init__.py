"""Data sets: each is one module with one function ``read(spec, progress)``, and one entry here."""

from collections.abc import Callable

from issl.data.arrays import Content, Listing
from issl.data.datasets import cifar10, folder, huggingface, imagenet, synthetic, tinyimagenet, torchvision

READERS: dict[str, Callable[..., Content | Listing]] = {
    "tinyimagenet": tinyimagenet.read,
    "cifar10": cifar10.read,
    "folder": folder.read,
    "imagenet": imagenet.read,
    "synthetic": synthetic.read,
    "torchvision": torchvision.read,
    "huggingface": huggingface.read,
}
