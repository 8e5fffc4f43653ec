"""Small stand-ins for what an evaluation needs: encoders under hub names, photographs in ImageNet's layout."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_hub import EXPANDED, PLAIN, small

from issl import data, hub
from issl.probing import saves
from issl.spec.data import ImageNet, Synthetic
from issl.spec.encoding import Encoding
from issl.spec.released import MODELS, Model


@pytest.fixture
def models(monkeypatch):
    """Two small encoders in the hub, `plain` and `expanded`, with running statistics of their own."""
    for name, spec in (("plain", PLAIN), ("expanded", EXPANDED)):
        monkeypatch.setitem(MODELS, name, Model(spec, 1, "m2", "nowhere"))
    monkeypatch.setattr(hub, "network", small)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Noisy photographs of 3 classes in colours of their own, of several sizes: 36 for training, 12 for testing."""
    root, draws = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label, colour in enumerate(((200, 60, 60), (60, 200, 60), (60, 60, 200))):
            for k in range(count):
                size = ((60, 80), (90, 70), (64, 64))[k % 3]
                pixels = draws.normal(colour, 50, (*size, 3)).clip(0, 255).astype(np.uint8)
                path = root / split / f"n{label}" / f"{k:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="session")
def listed(photographs, tmp_path_factory):
    """The folder of the prepared list of `photographs`, and what the data set is."""
    spec, folder = ImageNet(kind="imagenet", path=str(photographs)), tmp_path_factory.mktemp("listed")
    data.prepare(spec, folder, progress=False)
    return folder, spec


@pytest.fixture
def encoding(listed):
    """Builds an encoding of `photographs` at 48 px."""

    def build(**keys):
        return Encoding(**{"data": listed[1], "resize": 56, "crop": 48, "batch_size": 8, **keys})

    return build


@pytest.fixture(scope="session")
def synthetic_arrays(tmp_path_factory):
    """The folder of 40 + 20 prepared synthetic images of 16 px, and what the data set is."""
    spec = Synthetic(kind="synthetic", classes=4, train_per_class=10, test_per_class=5, image_size=16)
    folder = tmp_path_factory.mktemp("arrays")
    data.prepare(spec, folder, progress=False)
    return folder, spec


@pytest.fixture(scope="session")
def blobs():
    """Features of four overlapping classes, 200 to train on and 2000 to test on, in one tensor; labels."""
    draws = np.random.default_rng(0)
    centers, labels = draws.normal(size=(4, 8)), np.tile(np.arange(4), 550)
    return torch.tensor(centers[labels] + draws.normal(size=(2200, 8)) * 1.2, dtype=torch.float16), labels


@pytest.fixture
def killed_after_two(monkeypatch):
    """Runs an evaluation that ends after its second save, and returns a list that grows by each later epoch saved."""
    write, later = saves.Save.write, []

    def dying(self, epoch, **parts):
        write(self, epoch, **parts)
        if epoch == 2:
            raise KeyboardInterrupt

    def noted(self, epoch, **parts):
        later.append(epoch)
        write(self, epoch, **parts)

    def run(evaluation):
        monkeypatch.setattr(saves.Save, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            evaluation()
        monkeypatch.setattr(saves.Save, "write", noted)
        return later

    return run
