import json

import numpy as np
import pytest
from PIL import Image

from issl import data
from issl.errors import UserError
from issl.spec.data import ImageNet, data_id


def save(path, seed=0, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "images"
    for split, count in (("train", 3), ("val", 2)):
        for name in ("n02", "n01", "n03"):
            for k in range(count):
                save(root / split / name / f"{name}_{k}.JPEG", seed=k)
    (root / "train/n01/.hidden").write_text("x")
    return root


def prepare(root, threads=1, **keys):
    return data.prepare(ImageNet(kind="imagenet", path=str(root), **keys), root.parent / "out", threads, progress=False)


def names(arrays, split):
    return [name.decode() for name in arrays.images[arrays.split(split)]]


@pytest.mark.parametrize("threads", [1, 3])
def test_files_are_listed_alphabetically_without_decoding(root, threads):
    (root / "train/n02/n02_1.JPEG").write_bytes(b"not an image")  # nobody looks
    arrays = prepare(root, threads)
    assert names(arrays, "train") == [f"train/n0{c}/n0{c}_{k}.JPEG" for c in (1, 2, 3) for k in range(3)]
    assert names(arrays, "test") == [f"val/n0{c}/n0{c}_{k}.JPEG" for c in (1, 2, 3) for k in range(2)]
    assert arrays.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 2 + [1] * 2 + [2] * 2
    assert (arrays.classes, arrays.image_size) == (["n01", "n02", "n03"], 224)
    meta = json.loads((root.parent / "out/meta.json").read_text())
    assert (meta["splits"], meta["source"]) == ({"train": 9, "test": 6}, {"folder": "images"})


def test_caps_keep_the_first_classes_and_images(root):
    arrays = prepare(root, classes=2, train_per_class=2, test_per_class=1)
    assert names(arrays, "train") == [f"train/n0{c}/n0{c}_{k}.JPEG" for c in (1, 2) for k in range(2)]
    assert names(arrays, "test") == ["val/n01/n01_0.JPEG", "val/n02/n02_0.JPEG"]


@pytest.mark.parametrize("threads", [1, 2])
def test_corrupt_images_are_skipped_and_counted_on_request(root, threads, caplog):
    (root / "train/n02/n02_1.JPEG").write_bytes(b"not an image")
    whole = (root / "val/n03/n03_0.JPEG").read_bytes()
    (root / "val/n03/n03_0.JPEG").write_bytes(whole[: len(whole) // 2])
    arrays = prepare(root, threads, corrupt="skip")
    lost = ["train/n02/n02_1.JPEG", "val/n03/n03_0.JPEG"]
    assert arrays.meta["source"]["skipped"] == lost
    assert arrays.meta["splits"] == {"train": 8, "test": 5}
    assert not set(lost) & {*names(arrays, "train"), *names(arrays, "test")}
    assert arrays.labels.tolist() == [0] * 3 + [1] * 2 + [2] * 3 + [0] * 2 + [1] * 2 + [2]
    assert "left out 2 images that cannot be decoded: train/n02/n02_1.JPEG, val/n03/n03_0.JPEG" in caplog.text


def test_the_policy_is_part_of_the_identity_and_the_path_is_not():
    ids = {data_id(ImageNet(kind="imagenet", **keys)) for keys in ({}, {"path": "elsewhere"}, {"corrupt": "skip"})}
    assert len(ids) == 2


def refused(root, words, **keys):
    with pytest.raises(UserError, match=words):
        prepare(root, **keys)
    assert not [path for path in (root.parent / "out").glob("*") if path.suffix != ".lock"]


def test_an_error_names_the_faulty_file_or_folder(root):
    refused(root, "holds 3 classes, but `classes` asks for the first 5", classes=5)
    (root / "val/n04").mkdir()
    refused(root, "train: lacks class 'n04'")
    save(root / "train/n04/0.JPEG")
    refused(root, r"val/n04: holds no images")
    (root / "val/n04").rmdir()
    save(root / "train/n05/0.JPEG")
    refused(root, r"val: lacks class 'n04' \(and 1 more\)")
    for name in ("n04", "n05"):
        (root / f"train/{name}/0.JPEG").write_text("x")
        save(root / f"val/{name}/0.JPEG")
    refused(root, "train/n04: holds no image that can be decoded", corrupt="skip")
    (root / "val").rename(root / "validation")
    refused(root, r"images/val: cannot be read: No such file or directory: expected .*/train/<class>/<file> and ")
    save(root / "val/ILSVRC2012_val_00000001.JPEG")
    refused(root, "val: holds no class folders, .* sort them by class first")
    refused(root.with_name("nowhere"), "nowhere/train: cannot be read")
