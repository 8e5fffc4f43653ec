import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from issl import data
from issl.data.datasets import synthetic
from issl.spec.data import Synthetic


def drawn(**settings) -> tuple[np.ndarray, np.ndarray, int]:
    """Images, labels, and how many of them are for training."""
    content = synthetic.read(Synthetic(kind="synthetic", **settings))
    return content.open()(0, len(content.labels)), content.labels, content.splits["train"]


@pytest.fixture(scope="module")
def sample():
    return drawn(train_per_class=100, test_per_class=50)


def test_a_seed_gives_the_same_images_with_any_number_of_workers(tmp_path, monkeypatch):
    spec = Synthetic(kind="synthetic", train_per_class=5, test_per_class=3)
    one = data.prepare(spec, tmp_path / "one", threads=1, progress=False)
    monkeypatch.setattr("issl.data.arrays.CHUNK", 7)
    two = data.prepare(spec, tmp_path / "two", threads=2, progress=False)
    assert one.meta == two.meta
    assert np.array_equal(one.images, two.images)
    assert one.meta["splits"] == {"train": 50, "test": 30}
    assert one.labels.tolist() == np.repeat([*range(10), *range(10)], [5] * 10 + [3] * 10).tolist()


def test_images_differ_between_seeds_splits_and_classes():
    images, _, n_train = drawn(train_per_class=4, test_per_class=4)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    other, _, _ = drawn(train_per_class=4, test_per_class=4, seed=1)
    assert not any(np.array_equal(a, b) for a, b in zip(images, other))
    assert not np.array_equal(images[:n_train], images[n_train:])


def test_a_larger_data_set_begins_with_the_smaller_one():
    few, labels_of_few, _ = drawn(train_per_class=3, test_per_class=2)
    many, labels_of_many, _ = drawn(train_per_class=6, test_per_class=2)
    assert np.array_equal(few[:30][labels_of_few[:30] == 4], many[:60][labels_of_many[:60] == 4][:3])
    assert np.array_equal(few[30:], many[60:])


@pytest.mark.parametrize("settings", [{"classes": 2, "image_size": 8}, {"classes": 64, "image_size": 20}])
def test_sizes_and_numbers_of_classes_can_be_chosen(settings):
    images, labels, _ = drawn(train_per_class=2, test_per_class=1, **settings)
    assert images.shape == (3 * settings["classes"], settings["image_size"], settings["image_size"], 3)
    assert np.unique(labels).tolist() == list(range(settings["classes"]))


def test_every_class_is_a_distinct_pair_of_shape_and_texture():
    for classes in range(2, 65):
        side = int(np.ceil(np.sqrt(classes)))
        pairs = {(label % side, (label // side + label) % side) for label in range(classes)}
        assert len(pairs) == classes


def test_pixels_and_colours_do_not_reveal_the_class(sample):
    images, labels, n_train = sample
    train, test = slice(None, n_train), slice(n_train, None)
    pixels = images.reshape(len(images), -1) / 255 - 0.5
    linear = LogisticRegression(C=0.01, max_iter=100).fit(pixels[train], labels[train])
    assert linear.score(pixels[test], labels[test]) < 0.3

    histograms = np.stack([[np.bincount(c // 32, minlength=8) for c in im.reshape(-1, 3).T] for im in images])
    colours = histograms.reshape(len(images), -1)
    forest = RandomForestClassifier(100, random_state=0).fit(colours[train], labels[train])
    assert forest.score(colours[test], labels[test]) < 0.3


def test_shape_and_texture_reveal_the_class(sample):
    """How the edges' energy spreads over directions, in grey: it knows kinds of texture, but no colour or place."""
    images, labels, n_train = sample
    grey = images.mean(-1)
    dy, dx = np.gradient(grey, axis=(1, 2))
    angle, energy = np.arctan2(dy, dx) % np.pi, np.hypot(dx, dy) ** 3
    bins = (angle / np.pi * 12).astype(int) % 12
    spread = np.stack([(energy * (bins == b)).sum((1, 2)) for b in range(12)], axis=1)
    spread /= spread.sum(1, keepdims=True)
    train, test = slice(None, n_train), slice(n_train, None)
    forest = RandomForestClassifier(100, random_state=0).fit(spread[train], labels[train])
    assert forest.score(spread[test], labels[test]) > 0.4
