"""Small things that many tests need: a prepared data set, a run that trains in seconds."""

import logging
import os
import shutil
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # tiny tensors: threads would only wait for each other
os.environ["WANDB_MODE"] = "offline"  # no test touches the network
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder of this test session, the same one for all its processes; hold a file lock while making something."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def browser() -> str:
    """The path of a browser."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is here")
    return found


@pytest.fixture
def logging_as_before():
    """Puts the root logger back as it was: `to_file` changes it, as it is for a whole process."""
    found = logging.getLogger()
    handlers, level = found.handlers[:], found.level
    yield
    found.handlers[:] = handlers
    found.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """Folder of a prepared synthetic data set: 4 classes, 64 train and 32 test images of 16 px."""
    from issl import data
    from issl.spec.data import Synthetic

    folder = tmp_path_factory.mktemp("synthetic")
    data.prepare(small_data(Synthetic), folder, progress=False)
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Folder like ImageNet's: 3 classes, 13 train and 4 val JPEG files each, of 36 to 89 px a side."""
    import numpy as np
    from PIL import Image

    root, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", 13), ("val", 4)):
        for grain, name in ((3, "n01"), (7, "n02"), (11, "n03")):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                low = Image.fromarray(random.integers(0, 256, (grain, grain + 1, 3), np.uint8))
                size = tuple(random.integers(36, 90, 2).tolist())
                low.resize(size, Image.Resampling.BICUBIC).save(root / split / name / f"{k:02d}.JPEG")
    return root


def small_data(model):
    return model(kind="synthetic", classes=4, train_per_class=16, test_per_class=8, image_size=16)


@pytest.fixture(scope="session")
def make_run():
    """Builds a run on `synthetic` that trains in a second or two, with changes by section."""
    from issl.spec.data import Synthetic
    from issl.spec.run import RunSpec

    def build(method="simclr", **changes):
        small = {
            "simclr": {"hidden": 32, "out": 16},
            "cissl": {"hidden": 32, "mlp_hidden": 32, "out": 16},
            "dissl": {"hidden": 32, "mlp_hidden": 32, "bottleneck": 16, "classes": 64},
            "dino": {"hidden": 32, "bottleneck": 16, "classes": 64, "temperature_warmup_epochs": 2},
            "dcl": {"hidden": 32, "out": 16},
            "barlow_twins": {"hidden": 32, "out": 16},
            "vicreg": {"hidden": 32, "out": 16},
            "wmse": {"hidden": 32, "out": 8, "size": 32},
            "lejepa": {"hidden": 32, "out": 16, "slices": 64},
            "byol": {"hidden": 32, "out": 16},
            "simsiam": {"hidden": 32, "out": 32, "bottleneck": 16},
            "moco_v3": {"hidden": 32, "out": 16},
            "swav": {"hidden": 32, "out": 16, "prototypes": 64},
        }
        content = {
            "data": small_data(Synthetic),
            "objective": {"name": method, **small.get(method, {})},
            "encoder": {"arch": "resnet10", "width": 8, "dim": 64},
            "optim": {"epochs": 3, "batch_size": 32, "warmup_epochs": 1},
        }
        for section, change in changes.items():
            content[section] = {**content.get(section, {}), **change}
        return RunSpec.model_validate(content)

    return build
