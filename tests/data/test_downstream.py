"""torchvision's data sets, from tiny folders in their layouts on disk: files, labels and splits are torchvision's."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from issl import data
from issl.errors import UserError
from issl.spec.data import Torchvision, data_id


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)).save(path)


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def prepare(root, name):
    return data.prepare(Torchvision(kind="torchvision", name=name, path=str(root)), root / ".out", progress=False)


def rows(root, arrays, split):
    """(file, class) of each image of a split."""
    part = arrays.split(split)
    return [
        (file.decode(), arrays.classes[label]) for file, label in zip(arrays.images[part], arrays.labels[part].tolist())
    ]


def torchvisions(dataset):
    """The pixels and classes of a torchvision data set."""
    return [(np.asarray(image), dataset.classes[label]) for image, label in dataset]


def agrees(root, arrays, split, *parts):
    """Whether images and classes are those of torchvision's splits, one after the other."""
    expected = [each for part in parts for each in torchvisions(part)]
    found = [(np.asarray(Image.open(root / file).convert("RGB")), name) for file, name in rows(root, arrays, split)]
    return len(found) == len(expected) > 0 and all(
        np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1] for ours, theirs in zip(found, expected)
    )


def test_food101_reads_the_official_splits(tmp_path):
    listed = {
        "train": {"pie": ["pie/1", "pie/2"], "apple": ["apple/7"]},
        "test": {"apple": ["apple/8"], "pie": ["pie/3"]},
    }
    for split, classes in listed.items():
        path = tmp_path / f"food-101/meta/{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(classes))
        for seed, name in enumerate(file for files in classes.values() for file in files):
            save(tmp_path / f"food-101/images/{name}.jpg", seed)
    arrays = prepare(tmp_path, "food101")
    assert rows(tmp_path, arrays, "train") == [
        *(("food-101/images/pie/1.jpg", "pie"), ("food-101/images/pie/2.jpg", "pie")),
        ("food-101/images/apple/7.jpg", "apple"),
    ]
    assert all(agrees(tmp_path, arrays, split, datasets.Food101(tmp_path, split)) for split in ("train", "test"))
    assert arrays.meta["source"] == {"torchvision": "food101"}


def test_aircraft_trains_on_its_train_split_only(tmp_path):
    folder = tmp_path / "fgvc-aircraft-2013b/data"
    write(folder / "variants.txt", ["707-320", "A 300"])
    lists = {"train": ["01 A 300", "02 707-320"], "val": ["03 A 300"], "test": ["04 707-320", "05 A 300"]}
    for split, lines in lists.items():
        write(folder / f"images_variant_{split}.txt", lines)
    for number in range(1, 6):
        save(folder / f"images/0{number}.jpg", number)
    arrays = prepare(tmp_path, "aircraft")
    assert arrays.meta["splits"] == {"train": 2, "test": 2}
    assert all(agrees(tmp_path, arrays, split, datasets.FGVCAircraft(tmp_path, split)) for split in ("train", "test"))


def test_dtd_uses_the_first_partition_without_val(tmp_path):
    folder = tmp_path / "dtd/dtd"
    parts = {
        "train1": ["dotted/a.jpg", "woven/b.jpg"],
        "val1": ["woven/c.jpg"],
        "test1": ["woven/d.jpg", "dotted/e.jpg"],
    }
    parts |= {"train2": ["dotted/e.jpg"]}
    for split, names in parts.items():
        write(folder / f"labels/{split}.txt", names)
        for name in names:
            save(folder / "images" / name, hash(name) % 100)
    arrays = prepare(tmp_path, "dtd")
    assert [file for file, _ in rows(tmp_path, arrays, "train")] == [f"dtd/dtd/images/{n}" for n in parts["train1"]]
    assert all(agrees(tmp_path, arrays, split, datasets.DTD(tmp_path, split)) for split in ("train", "test"))


def test_pets_train_on_trainval(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    write(folder / "annotations/trainval.txt", ["Beagle_1 2 2 1", "Abyssinian_5 1 1 1"])
    write(folder / "annotations/test.txt", ["Abyssinian_2 1 1 1", "Beagle_9 2 2 1"])
    for seed, name in enumerate(("Beagle_1", "Abyssinian_5", "Abyssinian_2", "Beagle_9")):
        save(folder / f"images/{name}.jpg", seed)
    arrays = prepare(tmp_path, "pets")
    assert agrees(tmp_path, arrays, "train", datasets.OxfordIIITPet(tmp_path, "trainval"))
    assert agrees(tmp_path, arrays, "test", datasets.OxfordIIITPet(tmp_path, "test"))


def test_cars_read_the_official_splits(tmp_path):
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    kinds = [("fname", object), ("class", np.int32)]
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(["AM General", "Acura"], object)})
    for path, prefix in (("devkit/cars_train_annos.mat", "train"), ("cars_test_annos_withlabels.mat", "test")):
        annotations = np.array([("1.jpg", 2), ("2.jpg", 1), ("3.jpg", 2)], kinds)
        savemat(folder / path, {"annotations": annotations})
        for number in (1, 2, 3):
            save(folder / f"cars_{prefix}/{number}.jpg", number)
    arrays = prepare(tmp_path, "cars")
    assert rows(tmp_path, arrays, "train")[:2] == [
        ("stanford_cars/cars_train/1.jpg", "Acura"),
        ("stanford_cars/cars_train/2.jpg", "AM General"),
    ]
    assert all(agrees(tmp_path, arrays, split, datasets.StanfordCars(tmp_path, split)) for split in ("train", "test"))


def test_flowers_train_on_train_and_val(tmp_path, monkeypatch):
    folder = tmp_path / "flowers-102"
    for number in range(1, 8):
        save(folder / f"jpg/image_0000{number}.jpg", number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[3, 1, 2, 1, 2, 3, 1]])})
    savemat(folder / "setid.mat", {"trnid": [[2, 3]], "valid": [[1, 7]], "tstid": [[5, 6, 4]]})
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)  # of the real files, by checksum
    arrays = prepare(tmp_path, "flowers102")
    parts = [datasets.Flowers102(tmp_path, split) for split in ("train", "val", "test")]
    assert agrees(tmp_path, arrays, "train", *parts[:2]) and agrees(tmp_path, arrays, "test", parts[2])
    assert len(arrays.classes) == 102


@pytest.fixture
def caltech(tmp_path):
    for name, count in (("BACKGROUND_Google", 33), ("Faces", 31), ("accordion", 36)):
        for k in range(count):
            save(tmp_path / f"caltech101/101_ObjectCategories/{name}/image_{k:04d}.jpg", k)
    return tmp_path


def test_caltech101_trains_on_30_images_a_class_background_included(caltech):
    arrays = prepare(caltech, "caltech101")
    assert arrays.classes == ["BACKGROUND_Google", "Faces", "accordion"]
    train, test = (rows(caltech, arrays, split) for split in ("train", "test"))
    assert np.bincount(arrays.labels[arrays.split("train")]).tolist() == [30, 30, 30]
    assert np.bincount(arrays.labels[arrays.split("test")]).tolist() == [3, 1, 6]
    assert len({*train, *test}) == 100
    assert all(file.split("/")[2] == name for file, name in (*train, *test))
    draws = np.random.RandomState(0)  # the draws of numpy.random.seed(0), class by class
    first, _, last = (set(draws.choice(count, 30, replace=False).tolist()) for count in (33, 31, 36))
    assert {int(file[-8:-4]) for file, name in train if name == "BACKGROUND_Google"} == first
    assert {int(file[-8:-4]) for file, name in train if name == "accordion"} == last


def test_a_class_of_caltech101_without_test_images_is_named(caltech):
    (caltech / "caltech101/101_ObjectCategories/Faces/image_0000.jpg").unlink()
    with pytest.raises(UserError, match="Faces: holds 30 images, but needs more than 30"):
        prepare(caltech, "caltech101")


def test_files_of_caltech101_that_are_no_images_are_named_in_the_log(caltech, caplog):
    write(caltech / "caltech101/101_ObjectCategories/BACKGROUND_Google/tmp", ["x"])  # as in the real archive
    assert prepare(caltech, "caltech101").meta["splits"] == {"train": 90, "test": 10}
    assert "not used: caltech101/101_ObjectCategories/BACKGROUND_Google/tmp" in caplog.text


@pytest.fixture
def pets(tmp_path):
    """A folder with the names and labels of its images, which the test may change."""
    folder = tmp_path / "oxford-iiit-pet"

    def lay_out(train, test):
        for split, lines in (("trainval", train), ("test", test)):
            write(folder / f"annotations/{split}.txt", lines)
            for line in lines:
                save(folder / f"images/{line.split()[0]}.jpg")
        return folder / "images"

    return lay_out


def test_listed_images_that_are_not_there_are_all_named(tmp_path, pets):
    images = pets(["Beagle_1 2 2 1", "Abyssinian_5 1 1 1"], ["Abyssinian_2 1 1 1", "Beagle_9 2 2 1"])
    for name in ("Beagle_1", "Abyssinian_2"):
        (images / f"{name}.jpg").unlink()
    with pytest.raises(UserError) as error:
        prepare(tmp_path, "pets")
    absent = [f"{images}/{name}.jpg: is listed, but not there: restore it" for name in ("Beagle_1", "Abyssinian_2")]
    assert str(error.value) == "2 faults: " + "; ".join(absent)


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        ("pets", "oxford-iiit-pet/annotations/trainval.txt", b"\xff\n"),
        ("pets", "oxford-iiit-pet/annotations/trainval.txt", b"Beagle_1 2\n"),
        ("food101", "food-101/meta/train.json", b"[]"),
        ("food101", "food-101/meta/train.json", b"{"),
    ],
)
def test_a_damaged_list_is_one_line(tmp_path, pets, name, path, content):
    pets(["Beagle_1 2 2 1", "Abyssinian_5 1 1 1"], ["Abyssinian_2 1 1 1", "Beagle_9 2 2 1"])
    (tmp_path / "food-101/images").mkdir(parents=True)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is missing or damaged"):
        prepare(tmp_path, name)


def test_an_image_that_is_listed_in_two_classes_is_refused(tmp_path, pets):
    images = pets(["Beagle_1 2 2 1", "Abyssinian_5 1 1 1"], ["Abyssinian_5 2 1 1", "Beagle_9 1 2 1"])
    with pytest.raises(UserError, match=f"{images}/Abyssinian_5.jpg: is listed in two classes, '.*' and '.*': replace"):
        prepare(tmp_path, "pets")


def test_a_class_that_only_one_of_the_splits_has_is_refused(tmp_path, pets):
    pets(["Beagle_1 2 2 1", "Abyssinian_5 1 1 1"], ["Abyssinian_2 1 1 1"])
    with pytest.raises(UserError, match="class 'Beagle' has no test images"):
        prepare(tmp_path, "pets")


def test_names_that_are_not_utf8_are_kept_as_bytes(caltech):
    name = b"image_0000\xe9.jpg"
    folder = caltech / "caltech101/101_ObjectCategories/Faces"
    (folder / "image_0000.jpg").rename(folder / os.fsdecode(name))
    listed = prepare(caltech, "caltech101").images.tolist()
    assert listed.count(b"caltech101/101_ObjectCategories/Faces/" + name) == 1


def test_cifar100_is_decoded_into_arrays(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3072), np.uint8)
    for split, part in (("train", slice(3)), ("test", slice(3, 5))):
        content = {"data": pixels[part], "fine_labels": [7, 99, 0][: len(pixels[part])]}
        (folder / split).write_bytes(pickle.dumps(content))
    names = [f"class {label}" for label in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    monkeypatch.setattr(datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *arguments: True)
    arrays = prepare(tmp_path, "cifar100")
    assert arrays.meta["splits"] == {"train": 3, "test": 2} and arrays.classes == names
    assert np.array_equal(arrays.images, pixels.reshape(5, 3, 32, 32).transpose(0, 2, 3, 1))
    assert arrays.labels.tolist() == [7, 99, 0, 7, 99]


NAMES = ("cifar100", "food101", "cars", "aircraft", "dtd", "pets", "caltech101", "flowers102")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_data_set_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match=f"{name} is missing or damaged .*: set `download: true`, or put it there"):
        prepare(tmp_path, name)


def test_the_path_is_not_part_of_the_identity():
    here, there = (Torchvision(kind="torchvision", name="dtd", path=path) for path in ("a", "b"))
    assert data_id(here) == data_id(there) != data_id(Torchvision(kind="torchvision", name="pets"))
    assert data_id(here).startswith("dtd-")
