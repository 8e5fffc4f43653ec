import hashlib
import pickle

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from issl import data
from issl.errors import UserError
from issl.spec.data import Cifar10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """Two train batches and a test batch of 20 images in the official layout; torchvision is told their checksums."""
    folder = tmp_path / "cifar" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def save(name, content):
        payload = pickle.dumps(content)
        (folder / name).write_bytes(payload)
        return hashlib.md5(payload).hexdigest()

    contents = {
        name: {"data": random.integers(0, 256, (20, 3072), np.uint8), "labels": random.integers(0, 10, 20).tolist()}
        for name in ("data_batch_1", "data_batch_2", "test_batch")
    }
    md5 = {name: save(name, content) for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    md5_of_meta = save("batches.meta", {"label_names": NAMES})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5_of_meta})
    return contents


def test_images_and_labels_equal_those_of_the_batch_files(tmp_path, batches):
    spec = Cifar10(kind="cifar10", path=str(tmp_path / "cifar"))
    arrays = data.prepare(spec, tmp_path / "out", threads=2, progress=False)
    assert arrays.classes == NAMES
    assert arrays.meta["splits"] == {"train": 40, "test": 20}
    flat = np.concatenate([content["data"] for content in batches.values()])
    assert np.array_equal(arrays.images.transpose(0, 3, 1, 2).reshape(60, -1), flat)
    assert arrays.labels.tolist() == [label for content in batches.values() for label in content["labels"]]


def test_missing_and_damaged_files_are_refused(tmp_path, batches):
    with pytest.raises(UserError, match=r"nowhere: CIFAR-10 is missing or damaged.*`download: true`"):
        data.prepare(Cifar10(kind="cifar10", path=str(tmp_path / "nowhere")), tmp_path / "out", progress=False)
    (tmp_path / "cifar" / CIFAR10.base_folder / "test_batch").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        data.prepare(Cifar10(kind="cifar10", path=str(tmp_path / "cifar")), tmp_path / "out", progress=False)


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    with pytest.raises(UserError, match="check the network, or put the unpacked cifar-10-batches-py"):
        data.prepare(Cifar10(kind="cifar10", path=str(tmp_path), download=True), tmp_path / "out", progress=False)
