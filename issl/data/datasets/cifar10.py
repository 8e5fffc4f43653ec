"""CIFAR-10 through torchvision, which knows its files, their checksums and where to download them."""

from pathlib import Path

import numpy as np

from issl.data.arrays import Content
from issl.errors import UserError
from issl.spec.data import Cifar10


def read(spec: Cifar10, progress: bool = False) -> Content:
    """Rows and class indices are those of torchvision's CIFAR10. Raises UserError where the files are not there."""
    from torchvision.datasets import CIFAR10  # seconds to import, and nothing else here needs it

    path = Path(spec.path)
    try:
        train, test = (CIFAR10(path, train=part, download=spec.download) for part in (True, False))
    except (RuntimeError, OSError) as error:  # torchvision's own words differ between "missing" and "no network"
        todo = "check the network, or put" if spec.download else "set `download: true`, or put"
        raise UserError(
            f"{path}: CIFAR-10 is not there or damaged ({error}): {todo} the unpacked "
            f"{CIFAR10.base_folder}/ (python version) into that folder"
        ) from error
    images = np.concatenate([train.data, test.data])
    return Content(
        labels=np.concatenate([train.targets, test.targets]),
        splits={"train": len(train), "test": len(test)},
        classes=list(train.classes),
        image_size=spec.image_size,
        open=lambda: lambda start, stop: images[start:stop],
        source={"archive": CIFAR10.filename, "md5": CIFAR10.tgz_md5},
        parallel=False,  # all of it is decoded already
    )
