"""Layouts that people really have, for both kinds that read <split>/<class>/<file>."""

import itertools
import logging
import os

import numpy as np
import pytest
from PIL import Image

from issl import data
from issl.data.faults import SHOWN
from issl.errors import UserError
from issl.jobs import logs
from issl.spec.data import ImageFolder, ImageNet

SPECS = {"folder": {"name": "mine", "image_size": 8}, "imagenet": {}}


@pytest.fixture(params=SPECS)
def kind(request):
    return request.param


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "images"
    for number, (split, name) in enumerate(itertools.product(("train", "val"), ("ant", "cat"))):
        for k in range(2):
            save(root / split / name / f"{k}.png", 20 * number + k)
    return root


def save(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


def prepare(kind, root, **keys):
    model = {"folder": ImageFolder, "imagenet": ImageNet}[kind]
    return data.prepare(model(kind=kind, path=str(root), **SPECS[kind], **keys), root.parent / "out", progress=False)


def refusal(kind, root, **keys) -> str:
    """The one line with which a data set is refused."""
    with pytest.raises(UserError) as error:
        prepare(kind, root, **keys)
    assert len(str(error.value).splitlines()) == 1
    assert not (root.parent / "out/images.npy").exists()
    return str(error.value)


def test_images_without_class_folders_are_not_one_class(kind, tmp_path):
    for split, k in itertools.product(("train", "val"), range(3)):
        save(tmp_path / f"set/{split}/images/{k}.png")
    assert refusal(kind, tmp_path / "set") == (
        f"{tmp_path}/set: holds only one class, 'images', but at least two are needed: is this the layout "
        "<split>/<class>/<file>?"
    )


def test_loose_images_beside_the_class_folders_are_refused(kind, root):
    save(root / "train/loose.JPG")
    save(root / "train/more.tiff")
    save(root / "val/other.webp")
    message = refusal(kind, root)
    assert f"{root}/train: holds images beside the class folders, expected {root}/train/<class>/<file>" in message
    assert "remove it: loose.JPG, more.tiff;" in message and message.endswith("remove it: other.webp")


def test_a_folder_inside_a_class_is_refused(kind, root):
    save(root / "train/cat/tabby/1.png")
    (root / "val/ant/empty").mkdir()
    message = refusal(kind, root)
    assert f"{root}/train/cat/tabby: is a folder in a class: expected {root}/train/cat/<file>" in message
    assert f"{root}/val/ant/empty: is a folder" in message


@pytest.mark.parametrize("place", ["train/cat", "train", "val/ant"])
def test_links_to_nothing_to_themselves_and_pipes_are_refused(kind, root, place):
    (root / place / "gone").symlink_to(root / "nowhere")
    (root / place / "loop").symlink_to("loop")
    os.mkfifo(root / place / "pipe")
    message = refusal(kind, root)
    for name in ("gone", "loop", "pipe"):
        assert f"{root}/{place}/{name}: is a broken link or not a file: repair or remove it" in message


def test_links_to_files_and_folders_are_followed(kind, root, tmp_path):
    (root / "train/cat").rename(tmp_path / "cats")
    (root / "train/cat").symlink_to(tmp_path / "cats")
    (root / "val/ant/1.png").rename(tmp_path / "1.png")
    (root / "val/ant/1.png").symlink_to(tmp_path / "1.png")
    assert prepare(kind, root).labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_all_differences_between_the_splits_are_in_one_line(kind, root):
    save(root / "train/dog/0.png")
    save(root / "val/elk/0.png")
    (root / "train/fox").mkdir()
    message = refusal(kind, root)
    assert message.startswith("3 faults: ")
    assert f"{root}/val: lacks class 'dog' (and 1 more)" in message
    assert f"{root}/train: lacks class 'elk': both splits need the same classes" in message
    assert f"{root}/train/fox: holds no images: every class needs at least one" in message


def test_a_split_without_classes_is_refused(kind, root):
    (root / "val").rename(root / "old")
    (root / "val").mkdir()
    assert refusal(kind, root) == f"{root}/val: holds no class folders, expected {root}/val/<class>/<file>"
    for k in range(4):
        (root / f"val/{k}.JPEG").write_text("x")
    assert refusal(kind, root).endswith(": its 4 files come in one folder, sort them by class first")


def test_what_is_not_used_is_named_on_one_line_of_the_log(kind, root, caplog):
    for name in ("README", "train/classes.txt", "val/Thumbs.db", ".git", "train/.DS_Store"):
        (root / name).write_text("x")
    save(root / "extra/ant/0.png")
    (root / "train/.ipynb_checkpoints").mkdir()
    assert len(prepare(kind, root).labels) == 8
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line == f"{root}: not used: README, extra, train/classes.txt, val/Thumbs.db"


def test_a_val_split_beside_the_test_split_is_named_as_not_used(root, caplog):
    save(root / "test/ant/0.png", 90)
    save(root / "test/cat/0.png", 91)
    assert prepare("folder", root).meta["splits"] == {"train": 4, "test": 2}
    assert f"{root}: not used: val" in caplog.text


ODD = [b"caf\xe9", b"\xff\xfe", "grün".encode(), "日本".encode(), b"a b", b"it's", b"-x", b"100%", b"new\nline", b"[1]"]


def test_names_that_are_not_utf8_work(kind, tmp_path):
    root, level, expected = tmp_path / "set", 0, []
    for split in ("train", "val"):
        for label, name in enumerate(sorted(map(os.fsdecode, ODD))):
            for file in sorted(os.fsdecode(odd + b".png") for odd in ODD):
                save(root / split / name / file, level := level + 1)
                expected.append((level, label, os.fsencode(f"{split}/{name}/{file}")))
    levels, labels, files = zip(*expected)
    arrays = prepare(kind, root)
    assert arrays.labels.tolist() == list(labels)
    assert [os.fsencode(name) for name in arrays.classes] == [os.fsencode(n) for n in sorted(map(os.fsdecode, ODD))]
    if kind == "folder":
        assert arrays.images[:, 0, 0, 0].tolist() == list(levels)
    else:
        assert tuple(arrays.images.tolist()) == files


def test_a_name_that_is_not_utf8_is_escaped_in_messages_and_logs(kind, root, tmp_path, logging_as_before):
    odd = os.fsdecode(b"caf\xe9")
    (root / "train/cat" / odd).mkdir()
    (root / odd).write_text("x")
    assert rf"{root}/train/cat/caf\udce9: is a folder" in refusal(kind, root)
    (root / "train/cat" / odd).rmdir()
    with logs.to_file(tmp_path / "log"):
        prepare(kind, root)
    assert r"not used: caf\udce9" in (tmp_path / "log").read_text("utf-8")


def test_an_undecodable_image_whose_name_is_not_utf8_is_left_out_and_named(root, caplog):
    odd = os.fsdecode(b"caf\xe9.JPEG")
    (root / "train/cat" / odd).write_bytes(b"")
    arrays = prepare("imagenet", root, corrupt="skip")
    assert arrays.meta["source"]["skipped"] == [f"train/cat/{odd}"] and len(arrays.labels) == 8
    assert r"cannot be decoded: train/cat/caf\udce9.JPEG" in caplog.text


def test_classes_without_a_sound_image_are_all_named(root):
    for k in range(2):
        (root / f"train/cat/{k}.png").write_bytes(b"x")
        (root / f"val/ant/{k}.png").write_bytes(b"x")
    message = refusal("imagenet", root, corrupt="skip")
    for folder in ("train/cat", "val/ant"):
        assert f"{root}/{folder}: holds no image that can be decoded" in message


@pytest.mark.parametrize("threads", [1, 2])
def test_all_bad_images_of_a_folder_are_in_one_message(root, threads, monkeypatch):
    monkeypatch.setattr("issl.data.arrays.CHUNK", 3)
    bad = ["train/ant/1.png", "train/cat/0.png", "val/cat/1.png"]
    for file in bad:
        (root / file).write_bytes(b"")
    spec = ImageFolder(kind="folder", path=str(root), **SPECS["folder"])
    with pytest.raises(UserError) as error:
        data.prepare(spec, root.parent / "out", threads, progress=False)
    faults = [f"{root}/{file}: cannot be decoded as an image (unknown format): replace or remove it" for file in bad]
    assert str(error.value) == "3 faults: " + "; ".join(faults)


def test_after_twenty_bad_images_the_others_are_counted(root):
    for k in range(33):
        (root / f"train/ant/x{k:02d}.png").write_bytes(b"")
    message = refusal("folder", root)
    assert message.startswith("33 faults: ") and message.endswith("; and 13 more")
    assert [f"x{k:02d}.png" in message for k in range(33)] == [True] * SHOWN + [False] * 13


def test_a_file_that_is_no_image_is_refused_before_a_training_meets_it(root):
    """Only files without the name of an image are decoded early: there are millions of the others."""
    for name in ("Thumbs.db", "README"):
        (root / "val/ant" / name).write_text("not an image")
    save(root / "train/ant/2.png", 70)
    (root / "train/ant/2.png").rename(root / "train/ant/no_suffix")
    assert refusal("imagenet", root) == (
        f"2 faults: {root}/val/ant/README: is not an image: remove it, or set `corrupt: skip` for this data set; "
        f"{root}/val/ant/Thumbs.db: is not an image: remove it, or set `corrupt: skip` for this data set"
    )
    for name in ("Thumbs.db", "README"):
        (root / "val/ant" / name).unlink()
    assert prepare("imagenet", root).meta["splits"] == {"train": 5, "test": 4}
