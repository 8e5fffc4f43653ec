"""Data sets of Hugging Face, from folders that their own package writes: pixels and labels are those given to it."""

import io
import sys

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from issl import data
from issl.errors import UserError
from issl.spec.data import HuggingFace, data_id

datasets = pytest.importorskip("datasets")

DRAWS = np.random.default_rng(0)
LABELS = {"train": [1, 0, 2, 2, 0], "test": [2, 0, 1]}
NAMES = ["cat", "dog", "owl"]


def spec(root, size=12, **settings):
    return HuggingFace(kind="huggingface", name="pets", image_size=size, path=str(root / "saved"), **settings)


def prepare(root, size=12, threads=1, **settings):
    return data.prepare(spec(root, size, **settings), root / "prepared", threads, progress=False)


def pixels(count, shape=(12, 12)):
    return DRAWS.integers(0, 256, (count, *shape, 3), np.uint8)


def column(images):
    """Images as the hub has them: encoded without loss, and not yet decoded."""
    files = []
    for image in images:
        Image.fromarray(image).save(file := io.BytesIO(), format="PNG")
        files.append({"bytes": file.getvalue(), "path": None})
    return files


def save(root, parts, label="label", image="image", feature=None):
    """Writes (images, labels) of each split; None are splits without labels."""
    saved = {}
    for split, (images, labels) in parts.items():
        features = {image: datasets.Image()}
        if labels is not None:
            features[label] = feature or datasets.ClassLabel(names=NAMES)
        content = {image: column(images)} | ({} if labels is None else {label: labels})
        saved[split] = datasets.Dataset.from_dict(content, datasets.Features(features))
    datasets.DatasetDict(saved).save_to_disk(root / "saved")


def usual(root, **settings):
    made = {split: pixels(len(labels)) for split, labels in LABELS.items()}
    save(root, {split: (made[split], LABELS[split]) for split in made}, **settings)
    return np.concatenate([*made.values()])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_saved_folder_holds_what_was_saved(tmp_path, threads):
    made = usual(tmp_path)
    arrays = prepare(tmp_path, threads=threads)
    assert np.array_equal(arrays.images, made)
    assert arrays.labels.tolist() == [*LABELS["train"], *LABELS["test"]]
    assert arrays.classes == NAMES and arrays.meta["splits"] == {"train": 5, "test": 3}


def test_rows_are_those_that_the_package_itself_gives(tmp_path):
    usual(tmp_path)
    arrays, theirs = prepare(tmp_path), datasets.load_from_disk(tmp_path / "saved")
    items = [item for split in ("train", "test") for item in theirs[split]]
    assert all(np.array_equal(ours, item["image"]) for ours, item in zip(arrays.images, items, strict=True))
    assert arrays.labels.tolist() == [item["label"] for item in items]


def test_columns_and_splits_can_have_other_names(tmp_path):
    made = pixels(5), pixels(3), pixels(4)
    labels = LABELS["train"], LABELS["test"]
    parts = {"fit": (made[0], labels[0]), "validation": (made[1], labels[1]), "rest": (made[2], None)}
    save(tmp_path, parts, label="species", image="photo")
    split = {"train": "fit", "test": "validation", "unlabelled": "rest"}
    arrays = prepare(tmp_path, image="photo", label="species", split=split)
    assert np.array_equal(arrays.images, np.concatenate(made))
    assert arrays.labels.tolist() == [*labels[0], *labels[1], -1, -1, -1, -1]
    assert arrays.meta["splits"] == {"train": 5, "test": 3, "unlabelled": 4}


def test_photographs_are_cropped_around_their_centre(tmp_path):
    images = pixels(6, (20, 40))
    save(tmp_path, {"train": (images[:3], [0, 1, 2]), "test": (images[3:], [0, 1, 2])})
    expected = [Image.fromarray(image).resize((10, 10), 3, (10, 0, 30, 20)) for image in images]
    assert np.array_equal(prepare(tmp_path, 10).images, [np.asarray(image) for image in expected])


@pytest.mark.parametrize(
    ("feature", "labels", "classes", "numbers"),
    [
        ("int64", [2, 0, 1], ["0", "1", "2"], [2, 0, 1]),
        ("string", ["b", "a", "c"], ["a", "b", "c"], [1, 0, 2]),
    ],
)
def test_labels_may_be_numbers_or_words(tmp_path, feature, labels, classes, numbers):
    parts = {split: (pixels(3), labels) for split in ("train", "test")}
    save(tmp_path, parts, feature=datasets.Value(feature))
    arrays = prepare(tmp_path)
    assert arrays.classes == classes and arrays.labels.tolist() == numbers * 2


def refused(root, words, **settings):
    with pytest.raises(UserError, match=words) as error:
        prepare(root, **settings)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_named_with_the_nearest(tmp_path):
    refused(tmp_path, "saved: no such folder: expected one that `save_to_disk` wrote, or set `repo`")
    usual(tmp_path)
    refused(tmp_path, "has no split 'tset', did you mean 'test'", split={"test": "tset"})
    refused(tmp_path, "split 'train' has no column 'imgae', did you mean 'image'.*: set `image`", image="imgae")
    refused(tmp_path, "split 'train' has no column 'fine', allowed: image, label: set `label`", label="fine")
    refused(tmp_path, "column 'label' of split 'train' holds no images: set `image`", image="label")


def test_a_split_that_was_saved_alone_is_refused(tmp_path):
    datasets.Dataset.from_dict({"label": [0]}).save_to_disk(tmp_path / "saved")
    refused(tmp_path, "holds one split without a name: save a DatasetDict with a train and a test split")


def test_a_folder_of_something_else_is_one_line(tmp_path):
    (tmp_path / "saved").mkdir()
    refused(tmp_path, "saved: cannot be read by `datasets`")


@pytest.mark.parametrize("label", [-1, None])
def test_an_image_without_a_label_is_refused(tmp_path, label):
    save(tmp_path, {"train": (pixels(3), [0, label, 1]), "test": (pixels(2), [0, 1])}, feature=datasets.Value("int64"))
    refused(tmp_path, f"image 1 of split 'train' has the label {label}: expected a number")


def test_a_class_that_only_one_split_has_is_refused(tmp_path):
    save(tmp_path, {"train": (pixels(3), [0, 1, 2]), "test": (pixels(2), [0, 1])})
    refused(tmp_path, "class 'owl' has no test images")


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    good = {"image": column(pixels(3)), "label": [0, 1, 2]}
    bad = {**good, "image": [*column(pixels(2)), {"bytes": b"no image", "path": None}]}
    parts = {split: datasets.Dataset.from_dict(each, features) for split, each in (("train", good), ("test", bad))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    refused(tmp_path, r"image 2 cannot be decoded \(unknown format\)")


def test_without_the_package_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    usual(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(tmp_path, r"data of kind huggingface need a package: python -m pip install .*\.\[huggingface\]")


def test_what_comes_from_the_hub_is_known_by_name_and_revision():
    def of(**settings):
        return HuggingFace(kind="huggingface", name="cifar", image_size=32, **settings)

    one = of(repo="uoft-cs/cifar10", revision="0b2714987fa478483af9968de7c934580d0bb9a2", path="here")
    assert data_id(one) == data_id(one.model_copy(update={"path": "there"}))
    assert data_id(one) != data_id(of(repo="uoft-cs/cifar10", revision="v2")) != data_id(of())
    with pytest.raises(ValidationError, match="`repo` and `revision`, its commit or tag, go together"):
        of(repo="uoft-cs/cifar10")
    with pytest.raises(ValidationError, match="`subset` is only for a data set of the hub"):
        of(subset="plain_text")
    assert HuggingFace.model_validate_json(one.canonical()).repo == one.repo


def test_the_hub_is_asked_for_this_name_and_revision(tmp_path, monkeypatch):
    usual(tmp_path)
    saved, asked = datasets.load_from_disk(tmp_path / "saved"), []
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **more: asked.append((given, more)) or saved)
    arrays = prepare(tmp_path, repo="some/pets", revision="abc", subset="small")
    assert asked == [(("some/pets", "small"), {"revision": "abc", "cache_dir": str(tmp_path / "saved")})]
    assert arrays.meta["source"] == {"huggingface": "some/pets", "revision": "abc"} and arrays.n_classes == 3
