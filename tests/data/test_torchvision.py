"""Any data set of torchvision, from small files in its format: pixels and labels are those that the files hold."""

import struct

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.io import savemat
from torchvision import datasets

from issl import data
from issl.errors import UserError
from issl.spec.data import Torchvision, data_id

DRAWS = np.random.default_rng(0)


def spec(root, name, size, **settings):
    return Torchvision(kind="torchvision", name=name, image_size=size, path=str(root), **settings)


def prepare(root, name, size, **settings):
    return data.prepare(spec(root, name, size, **settings), root / ".out", progress=False)


def idx(path, array):
    """The format of MNIST: magic number, dimensions, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def mnist(root, folder="MNIST", prefix=("train", "t10k")):
    """Files of five training and three test images; what they hold."""
    pixels, labels = DRAWS.integers(0, 256, (8, 28, 28), np.uint8), np.array([1, 0, 2, 2, 0, 0, 2, 1])
    for name, part in zip(prefix, (slice(5), slice(5, 8))):
        idx(root / folder / f"raw/{name}-images-idx3-ubyte", pixels[part])
        idx(root / folder / f"raw/{name}-labels-idx1-ubyte", labels[part])
    return pixels, labels


def test_mnist_holds_what_its_files_hold(tmp_path):
    pixels, labels = mnist(tmp_path)
    arrays = prepare(tmp_path, "MNIST", 28)
    assert arrays.meta["splits"] == {"train": 5, "test": 3}
    assert np.array_equal(arrays.images, np.repeat(pixels[..., None], 3, 3))  # grey as RGB
    assert arrays.labels.tolist() == labels.tolist()
    assert arrays.classes[:3] == ["0 - zero", "1 - one", "2 - two"]
    assert arrays.meta["source"] == {
        "torchvision": "MNIST",
        "arguments": {"train": {"train": True}, "test": {"train": False}},
    }


def test_images_are_resized_as_pillow_does_to_the_size_that_is_asked_for(tmp_path):
    pixels, _ = mnist(tmp_path)
    expected = [np.asarray(Image.fromarray(each).convert("RGB").resize((16, 16), 3)) for each in pixels]
    assert np.array_equal(prepare(tmp_path, "mnist", 16).images, expected)


def test_arguments_of_a_class_beside_its_usual_ones_can_be_given(tmp_path):
    pixels, labels = mnist(tmp_path, "EMNIST", ("emnist-digits-train", "emnist-digits-test"))
    split = {"train": {"split": "digits"}, "test": {"split": "digits"}}
    arrays = prepare(tmp_path, "emnist", 28, split=split)
    assert np.array_equal(arrays.images[..., 0], pixels) and arrays.labels.tolist() == labels.tolist()


def test_an_argument_that_has_to_be_given_is_named(tmp_path):
    refused(tmp_path, r"split\.train: EMNIST needs an argument 'split': give it as `split: {train: {split:", "emnist")


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """Three splits of SVHN; the pixels and labels of each."""
    made = {}
    for split, labels in (("train", [1, 10, 1]), ("test", [10, 1]), ("extra", [10, 10, 1, 1])):
        pixels = DRAWS.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels.transpose(1, 2, 3, 0), "y": np.array(labels)[:, None]})
        made[split] = pixels, [label % 10 for label in labels]  # in the files, ten means the digit zero
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)  # of the real files, by checksum
    return made


@pytest.mark.parametrize("train", ["train", "extra"])
def test_another_split_can_be_trained_on(tmp_path, svhn, train):
    arrays = prepare(tmp_path, "svhn", 32, split={"train": {"split": train}})
    pixels, labels = (np.concatenate(parts) for parts in zip(svhn[train], svhn["test"]))
    assert np.array_equal(arrays.images, pixels) and arrays.labels.tolist() == labels.tolist()
    assert arrays.meta["splits"] == {"train": len(svhn[train][1]), "test": 2}


def test_photographs_are_cropped_around_their_centre(tmp_path):
    sizes = {"train": (40, 20), "test": (24, 36)}
    for split, size in sizes.items():
        for label in ("negative", "positive"):
            path = tmp_path / f"rendered-sst2/{split}/{label}/0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(DRAWS.integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
    arrays = prepare(tmp_path, "RenderedSST2", 10)
    wide = Image.open(tmp_path / "rendered-sst2/train/positive/0.png").resize((10, 10), 3, (10, 0, 30, 20))
    high = Image.open(tmp_path / "rendered-sst2/test/negative/0.png").resize((10, 10), 3, (0, 6, 24, 30))
    assert arrays.labels.tolist() == [0, 1, 0, 1] and arrays.classes == ["negative", "positive"]
    assert np.array_equal(arrays.images[1], wide) and np.array_equal(arrays.images[2], high)


def test_photographs_with_the_splits_of_the_paper_can_be_decoded_to_train_on(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    lists = {"trainval": ["Beagle_1 2 2 1", "Abyssinian_5 1 1 1"], "test": ["Abyssinian_2 1 1 1", "Beagle_9 2 2 1"]}
    for path in (folder / "annotations", folder / "images"):
        path.mkdir(parents=True)
    for split, lines in lists.items():
        (folder / f"annotations/{split}.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            image = Image.fromarray(DRAWS.integers(0, 256, (12, 12, 3), np.uint8))
            image.save(folder / f"images/{line.split()[0]}.jpg", format="PNG")
    arrays = prepare(tmp_path, "pets", 12)
    official = [*datasets.OxfordIIITPet(tmp_path, "trainval"), *datasets.OxfordIIITPet(tmp_path, "test")]
    assert np.array_equal(arrays.images, [np.asarray(image) for image, _ in official])
    assert [arrays.classes[label] for label in arrays.labels] == ["Beagle", "Abyssinian", "Abyssinian", "Beagle"]


def refused(root, words, name, split=None, size=28):
    with pytest.raises(UserError, match=words) as error:
        prepare(root, name, size, **({"split": split} if split else {}))
    assert "\n" not in str(error.value)


def test_a_data_set_without_splits_is_refused(tmp_path):
    refused(tmp_path, "eurosat: torchvision does not divide it into training and test images", "eurosat")


def test_an_argument_that_the_class_lacks_is_named(tmp_path):
    mnist(tmp_path)
    refused(
        tmp_path, r"split\.test: MNIST has no argument 'trian', did you mean 'train'", "mnist", {"test": {"trian": 1}}
    )


def test_a_split_that_the_class_lacks_is_named(tmp_path, svhn):
    refused(tmp_path, r"svhn \(split=xtra\) cannot be read .*xtra", "svhn", {"train": {"split": "xtra"}})


def test_files_that_are_not_there_are_one_line(tmp_path):
    refused(tmp_path, "mnist .* cannot be read .* set `download: true`, or put it there", "mnist")
    refused(tmp_path, "torchvision cannot download it: put it there", "fer2013")


def test_items_that_are_no_image_with_a_class_are_refused(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    for path in (folder / "annotations/trimaps", folder / "images"):
        path.mkdir(parents=True)
    for split in ("trainval", "test"):
        (folder / f"annotations/{split}.txt").write_text("Abyssinian_1 1 1 1\nBeagle_1 2 2 1\n")
    for name in ("Abyssinian_1", "Beagle_1"):
        for path in (f"images/{name}.jpg", f"annotations/trimaps/{name}.png"):
            Image.new("RGB", (4, 4)).save(folder / path)
    split = {"train": {"target_types": "segmentation"}, "test": {"target_types": "segmentation"}}
    refused(tmp_path, "image 0 has no number of a class but PngImageFile", "oxfordiiitpet", split)


def test_a_class_that_only_one_split_has_is_refused(tmp_path):
    mnist(tmp_path)
    idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", np.array([0, 1, 1]))
    refused(tmp_path, "mnist: class '2 - two' has no test images", "mnist")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "shvn", "image_size": 32}, "torchvision has no data set 'shvn', did you mean 'svhn'"),
        ({"name": "svhn"}, "svhn needs an `image_size`"),
        ({"name": "pets", "split": {"train": {"split": "test"}}}, "leave `split` out"),
    ],
)
def test_a_mistake_in_the_config_is_named_before_anything_is_read(settings, says):
    with pytest.raises(ValidationError, match=says):
        Torchvision(kind="torchvision", **settings)


def test_capitals_of_a_name_and_the_place_are_not_part_of_the_identity():
    one, other = spec("a", "SVHN", 32), spec("b", "svhn", 32)
    assert data_id(one) == data_id(other) and hash(one)
    assert data_id(one) != data_id(spec("a", "svhn", 32, split={"train": {"split": "extra"}}))
