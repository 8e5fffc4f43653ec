"""CIFAR-10 through torchvision, which knows its files, checksums and download location."""

from pathlib import Path

import numpy as np

from issl.data.arrays import Content
from issl.errors import UserError
from issl.spec.data import Cifar10


def read(spec: Cifar10, progress: bool = False) -> Content:
    """Rows and class indices are those of torchvision's CIFAR10. Raises UserError if files are missing or damaged."""
    from torchvision.datasets import CIFAR10  # takes seconds to import, and nothing else here needs it

    path = Path(spec.path)
    try:
        train, test = (CIFAR10(path, train=part, download=spec.download) for part in (True, False))
    except (
        RuntimeError,
        OSError,
    ) as error:  # the type depends on what is missing
        todo = "check the network, or put" if spec.download else "set `download: true`, or put"
        raise UserError(
            f"{path}: CIFAR-10 is missing or damaged ({error}): {todo} the unpacked "
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
        parallel=False,  # already decoded
    )
