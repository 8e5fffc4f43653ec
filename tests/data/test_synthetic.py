"""Plaids: their identity, and that the class is in the gratings alone."""

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


def test_a_seed_gives_the_same_images_with_any_number_of_workers(tmp_path, monkeypatch):
    spec = Synthetic(kind="synthetic", train_per_class=5, test_per_class=3, classes=10)
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


def test_a_larger_data_set_contains_the_smaller_one():
    few, labels_of_few, n_few = drawn(train_per_class=3, test_per_class=2, classes=5)
    many, labels_of_many, n_many = drawn(train_per_class=6, test_per_class=2, classes=9)
    first = many[:n_many][labels_of_many[:n_many] == 4][:3]
    assert np.array_equal(few[:n_few][labels_of_few[:n_few] == 4], first)
    assert np.array_equal(few[n_few:], many[n_many:][labels_of_many[n_many:] < 5])


@pytest.mark.parametrize("settings", [{"classes": 2, "image_size": 8}, {"classes": 100, "image_size": 20}])
def test_sizes_and_numbers_of_classes_can_be_chosen(settings):
    images, labels, _ = drawn(train_per_class=2, test_per_class=1, **settings)
    assert images.shape == (3 * settings["classes"], settings["image_size"], settings["image_size"], 3)
    assert np.unique(labels).tolist() == list(range(settings["classes"]))


def spectrum(images: np.ndarray) -> np.ndarray:
    """Where the energy of each image is among the spatial frequencies, whatever its phases: (n, size^2)."""
    grey = images.astype(float).mean(-1)
    energy = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
    return (energy / energy.sum((1, 2), keepdims=True)).reshape(len(images), -1)


def test_the_class_is_in_the_frequencies_and_not_in_the_pixels():
    """Pixels depend on the phases, which are random, and an image's brightness says nothing about its class."""
    images, labels, n_train = drawn(classes=20, image_size=16, train_per_class=100, test_per_class=50)
    train, test = slice(None, n_train), slice(n_train, None)
    pixels = images[..., 0].reshape(len(images), -1) / 255 - 0.5
    linear = LogisticRegression(C=0.01, max_iter=200).fit(pixels[train], labels[train])
    assert linear.score(pixels[test], labels[test]) < 0.35  # chance: 0.05
    brightness = images.mean((1, 2, 3))[:, None]
    forest = RandomForestClassifier(50, random_state=0, min_samples_leaf=10).fit(brightness[train], labels[train])
    assert forest.score(brightness[test], labels[test]) < 0.2
    forest = RandomForestClassifier(100, random_state=0).fit(spectrum(images[train]), labels[train])
    assert forest.score(spectrum(images[test]), labels[test]) > 0.9


def test_a_mirrored_image_is_one_of_its_own_class():
    """Both signs of the angles are drawn, so flips change no class: the mean spectrum is symmetric."""
    images = np.stack([synthetic.draw(3, 16, seed=(0, 0, 3, k)) for k in range(2000)])
    mean, mirrored = spectrum(images).mean(0), spectrum(images[:, :, ::-1]).mean(0)
    other = spectrum(np.stack([synthetic.draw(4, 16, seed=(0, 0, 4, k)) for k in range(2000)])).mean(0)
    assert np.abs(mean - mirrored).sum() < 0.2 * np.abs(mean - other).sum()
