"""Data sets whose splits or classes are copies: nothing is learned from them, or scored on them."""

import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from issl import data
from issl.errors import UserError
from issl.spec.data import ImageFolder, ImageNet


@pytest.fixture
def root(tmp_path):
    """Two classes of three images in both splits; all images differ."""
    draws = np.random.default_rng(0)
    for split, name, k in itertools.product(("train", "val"), ("ant", "cat"), range(3)):
        place = tmp_path / "set" / split / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (8, 8, 3), np.uint8)).save(place / f"{k}.png")
    return tmp_path / "set"


def prepare(root, kind="folder"):
    specs = {"folder": ImageFolder(kind="folder", name="mine", image_size=8, path=str(root))}
    specs["imagenet"] = ImageNet(kind="imagenet", path=str(root))
    return data.prepare(specs[kind], root.parent / "out", progress=False)


def replace(old, new):
    shutil.rmtree(old)
    shutil.copytree(new, old)


def test_a_test_split_of_training_images_is_refused(root):
    replace(root / "val", root / "train")
    (root / "val/ant/0.png").rename(root / "val/ant/other name.png")
    with pytest.raises(UserError, match="set: every test image is a copy of a training image"):
        prepare(root)
    assert not (root.parent / "out/meta.json").exists()


def test_two_classes_with_the_same_images_are_refused(root):
    for split in ("train", "val"):
        replace(root / split / "cat", root / split / "ant")
    with pytest.raises(UserError, match="set: classes 'ant' and 'cat' have the same images"):
        prepare(root)


def test_some_copies_are_counted_in_the_log(root, caplog):
    shutil.copy(root / "train/ant/0.png", root / "val/ant/0.png")
    shutil.copy(root / "train/ant/1.png", root / "train/cat/1.png")
    assert prepare(root).meta["splits"] == {"train": 6, "test": 6}
    assert "1 of 6 test images are copies of training images" in caplog.text
    assert "1 images are in more than one class" in caplog.text


def test_no_copies_are_not_mentioned(root, caplog):
    prepare(root)
    assert "cop" not in caplog.text and "more than one class" not in caplog.text


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
@pytest.mark.parametrize(("link", "target"), [("val", "train"), ("train/cat", "train/ant"), ("val/cat", "train/cat")])
def test_folders_that_are_one_by_a_link_are_refused(root, kind, link, target):
    shutil.rmtree(root / link)
    (root / link).symlink_to(root / target)
    with pytest.raises(UserError, match=f"{root / link}.*: is the same folder as {root / target}.*, by a link"):
        prepare(root, kind)
