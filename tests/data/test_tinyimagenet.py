import hashlib
import io
import os
import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from issl import data
from issl.errors import UserError
from issl.spec.data import TinyImageNet, data_id

WNIDS = ("n03", "n01", "n02")  # not in alphabetical order, as in the official wnids.txt
ROOT = "tiny-imagenet-200/"


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue()


def pil(content: bytes) -> np.ndarray:
    """PIL's own decoding: the truth that the prepared arrays are compared with."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.fixture
def members() -> dict[str, bytes]:
    """Name -> content of a whole archive: 3 classes of 12 train and 2 val images; the first of n01 is greyscale."""
    random = np.random.default_rng(0)
    files, lines = {}, []
    for wnid in WNIDS:
        for k in reversed(range(12)):  # 0, 1, 10, 11, 2, ... would be the order of the names
            grey = wnid == "n01" and k == 0
            image = random.integers(0, 256, (64, 64) if grey else (64, 64, 3), np.uint8)
            files[f"{ROOT}train/{wnid}/images/{wnid}_{k}.JPEG"] = jpeg(image)
        files[f"{ROOT}train/{wnid}/{wnid}_boxes.txt"] = b"not an image"
    for k, wnid in enumerate((*WNIDS, *WNIDS)):
        files[f"{ROOT}val/images/val_{k}.JPEG"] = jpeg(random.integers(0, 256, (64, 64, 3), np.uint8))
        lines.append(f"val_{k}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    files[f"{ROOT}test/images/test_0.JPEG"] = b"the unlabelled split is never opened"
    files[f"{ROOT}val/val_annotations.txt"] = "".join(lines).encode()
    files[f"{ROOT}wnids.txt"] = "\n".join(WNIDS).encode()
    return files


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def spec_of(archive, **changes) -> TinyImageNet:
    counts = {"classes": 3, "train_per_class": 12, "test_per_class": 2}
    return TinyImageNet(kind="tinyimagenet", archive=str(archive), **(counts | changes))


@pytest.fixture
def prepare(tmp_path, members):
    """Prepares the fake archive, after a change to its members."""

    def run(changed=None, threads=1, **spec):
        archive = write_zip(tmp_path / "tiny.zip", members if changed is None else changed)
        return data.prepare(spec_of(archive, **spec), tmp_path / "out", threads, progress=False)

    return run


def refused(prepare, tmp_path, *words, **arguments):
    """The preparation fails with one line that holds all the words, and leaves no file."""
    with pytest.raises(UserError) as error:
        prepare(**arguments)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    out = tmp_path / "out"
    assert not [path for path in out.glob("*") if path.suffix != ".lock"]


def train_name(wnid, k):
    return f"{ROOT}train/{wnid}/images/{wnid}_{k}.JPEG"


def test_classes_and_images_are_in_alphabetical_order(prepare, members):
    arrays = prepare()
    assert arrays.classes == ["n01", "n02", "n03"]
    assert arrays.split("train") == slice(0, 36)
    assert arrays.split("test") == slice(36, 42)
    expected = [train_name(wnid, k) for wnid in arrays.classes for k in sorted(range(12), key=str)]
    expected += [f"{ROOT}val/images/val_{k}.JPEG" for k in (1, 4, 2, 5, 0, 3)]
    assert np.array_equal(arrays.images, np.stack([pil(members[name]) for name in expected]))
    assert arrays.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12 + [0, 0, 1, 1, 2, 2]


def test_greyscale_becomes_rgb(prepare):
    grey = prepare().images[0]
    assert np.ptp(grey) > 0
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize(
    "how",
    [{"quality": 30}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"progressive": True}, {"keep_rgb": True}],
    ids=str,
)
def test_every_kind_of_jpeg_decodes_as_in_pillow(prepare, members, how):
    names = [train_name("n01", k) for k in (0, 1, 10)]
    for name, mode in zip(names, ("L", "RGB", "CMYK")):
        buffer = io.BytesIO()
        Image.fromarray(pil(members[name])).convert(mode).save(buffer, "JPEG", **how)
        members[name] = buffer.getvalue()
    assert np.array_equal(prepare().images[:3], np.stack([pil(members[name]) for name in names]))


def test_damage_that_pillow_tolerates_is_tolerated(prepare, members):
    name = train_name("n01", 1)
    members[name] = members[name][:-2] + bytes(100) + members[name][-2:]  # zeros before the end: a warning of libjpeg
    assert np.array_equal(prepare().images[1], pil(members[name]))


def test_several_processes_give_the_arrays_of_one(prepare, monkeypatch):
    alone = prepare()
    monkeypatch.setattr("issl.data.arrays.CHUNK", 5)
    together = prepare(threads=2)
    assert together.meta == alone.meta
    assert np.array_equal(together.images, alone.images)


def test_caps_keep_the_lowest_numbered_images(prepare, tmp_path):
    everything = np.array(prepare().images)  # 0, 1, 10, 11, 2, ... of n01, then of n02
    with pytest.raises(UserError, match=r"meta\.json: a data set with another spec: choose another --out"):
        prepare(classes=2, train_per_class=3, test_per_class=1)
    shutil.rmtree(tmp_path / "out")
    capped = prepare(classes=2, train_per_class=3, test_per_class=1)
    assert capped.classes == ["n01", "n02"]
    assert capped.meta["splits"] == {"train": 6, "test": 2}
    assert np.array_equal(capped.images, everything[[0, 1, 4, 12, 13, 16, 36, 38]])


def test_meta_records_the_source_archive(prepare, tmp_path):
    arrays = prepare()
    md5 = hashlib.md5((tmp_path / "tiny.zip").read_bytes()).hexdigest()
    assert arrays.meta["source"] == {"archive": "tiny.zip", "md5": md5}
    assert prepare(md5=md5.upper()).meta == arrays.meta


def test_counts_must_be_those_of_the_spec(prepare, tmp_path, members):
    refused(prepare, tmp_path, "expected 13 train", "found 12 in n01", "`partial: true`", train_per_class=13)
    refused(prepare, tmp_path, "expected 3 val", "found 2 in n01", "3 of 3 classes", test_per_class=3)
    refused(prepare, tmp_path, "expected 4 classes, found 3", classes=4)
    del members[train_name("n02", 7)]
    refused(prepare, tmp_path, "found 11 in n02", "1 of 3 classes")


def test_partial_accepts_missing_images(prepare, members):
    del members[train_name("n02", 7)]
    arrays = prepare(partial=True, classes=200, train_per_class=500, test_per_class=50)
    assert arrays.meta["splits"] == {"train": 35, "test": 6}
    assert np.bincount(arrays.labels[:35]).tolist() == [12, 11, 12]
    assert np.array_equal(arrays.images[21], pil(members[train_name("n02", 8)]))


def test_partial_requires_an_image_of_every_class_and_split(prepare, tmp_path, members):
    val = {name: content for name, content in members.items() if "val_1." not in name and "val_4." not in name}
    refused(prepare, tmp_path, "class n01 has no val image", changed=val, partial=True)
    train = {name: content for name, content in members.items() if "n02_" not in name}
    refused(prepare, tmp_path, "class n02 has no train image", changed=train, partial=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_names_the_damaged_member(prepare, tmp_path, members, threads, monkeypatch):
    monkeypatch.setattr("issl.data.arrays.CHUNK", 5)
    name = train_name("n02", 7)
    cut = members | {name: members[name][:300]}
    refused(prepare, tmp_path, name, "damaged", changed=cut, threads=threads)
    refused(prepare, tmp_path, name, "not a JPEG", changed=members | {name: b"<html>"}, threads=threads)


def test_an_error_names_the_member_of_the_wrong_size(prepare, tmp_path, members):
    name = train_name("n02", 7)
    for height, width in ((64, 65), (32, 128)):  # the latter has as many pixels as is right
        content = jpeg(np.zeros((height, width, 3), np.uint8))
        refused(prepare, tmp_path, name, f"{width} x {height}", changed=members | {name: content})


def test_an_error_names_the_member_whose_bytes_changed(tmp_path, members):
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    content = members[train_name("n03", 4)]
    whole = archive.read_bytes()
    place = whole.index(content) + len(content) // 2
    archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(UserError, match=r"n03_4\.JPEG' is damaged \(Bad CRC"):
        data.prepare(spec_of(archive), tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "a\\..\\..\\evil", "\\evil"])
def test_members_outside_the_folder_are_refused(prepare, tmp_path, members, name):
    refused(prepare, tmp_path, f"member '{name}'", "do not use", changed=members | {name: b"x"})


def test_dots_inside_a_name_are_allowed(prepare, members):
    assert prepare(changed=members | {f"{ROOT}notes..txt": b"x"}).n_classes == 3


def test_symbolic_links_and_duplicates_are_refused(tmp_path, members):
    link = zipfile.ZipInfo(f"{ROOT}train/link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = write_zip(tmp_path / "link.zip", members)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc")
    with pytest.raises(UserError, match=r"train/link' is a symbolic link"):
        data.prepare(spec_of(archive), tmp_path / "out", progress=False)

    archive = write_zip(tmp_path / "double.zip", members)
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(f"{ROOT}wnids.txt", "n01")
    with pytest.raises(UserError, match=r"wnids\.txt' occurs twice"):
        data.prepare(spec_of(archive), tmp_path / "out", progress=False)


def test_a_file_that_is_not_the_archive_is_refused(prepare, tmp_path, members):
    archive = tmp_path / "tiny.zip"
    refused(prepare, tmp_path, "its md5 is", "not 0123", "`md5`", md5="0123")

    whole = archive.read_bytes()
    prepare_as_it_is = lambda: data.prepare(spec_of(archive), tmp_path / "out", progress=False)  # noqa: E731
    for content in (whole[: len(whole) // 2], b"<html>404</html>", b""):
        archive.write_bytes(content)
        refused(prepare_as_it_is, tmp_path, "tiny.zip", "not a complete zip file", "download or copy it again")
    archive.unlink()
    refused(prepare_as_it_is, tmp_path, "no such file", "tiny-imagenet-200.zip", "`url`")
    archive.mkdir()
    refused(prepare_as_it_is, tmp_path, "cannot be read")


def test_another_layout_is_refused(prepare, tmp_path, members):
    without = {name: content for name, content in members.items() if not name.endswith("wnids.txt")}
    refused(prepare, tmp_path, "not TinyImageNet", "0 files called wnids.txt", changed=without)
    without = {name: content for name, content in members.items() if "annotations" not in name}
    refused(prepare, tmp_path, "lacks", "val_annotations.txt", changed=without)
    stranger = f"{ROOT}train/n09/images/n09_0.JPEG"
    refused(prepare, tmp_path, stranger, "'n09'", changed=members | {stranger: b""})
    unlisted = f"{ROOT}val/images/val_6.JPEG"
    refused(prepare, tmp_path, unlisted, "no line", changed=members | {unlisted: b""})


def with_lines(members, name, change):
    """The members after a change to the lines of an index."""
    lines = members[f"{ROOT}{name}"].decode().splitlines()
    change(lines)
    return members | {f"{ROOT}{name}": "\n".join(lines).encode()}


@pytest.mark.parametrize("partial", [False, True])
def test_an_image_with_two_classes_is_refused(prepare, tmp_path, members, partial):
    changed = with_lines(members, "val/val_annotations.txt", lambda lines: lines.append("val_2.JPEG\tn01\t0\t0\t9\t9"))
    words = "line 7 of val_annotations.txt gives 'val_2.JPEG' the class 'n01', but line 3 gives it 'n02'"
    refused(prepare, tmp_path, words, changed=changed, partial=partial)


def test_a_line_that_occurs_twice_changes_nothing(prepare, members):
    expected = np.array(prepare().labels)
    changed = with_lines(members, "val/val_annotations.txt", lambda lines: lines.extend([lines[0], "", "  "]))
    assert np.array_equal(prepare(changed=changed).labels, expected)


@pytest.mark.parametrize("partial", [False, True])
def test_a_line_of_an_unknown_class_is_refused(prepare, tmp_path, members, partial):
    changed = with_lines(members, "val/val_annotations.txt", lambda lines: lines.__setitem__(3, "val_3.JPEG\tn09"))
    words = (
        f"member '{ROOT}val/images/val_3.JPEG' is of class 'n09' (line 4 of val_annotations.txt)",
        "not in wnids.txt",
    )
    refused(prepare, tmp_path, *words, changed=changed, partial=partial)


@pytest.mark.parametrize("partial", [False, True])
def test_all_images_without_an_annotation_are_named(prepare, tmp_path, members, partial):
    changed = with_lines(members, "val/val_annotations.txt", lambda lines: lines.__delitem__(slice(2, 4)))
    words = [f"member '{ROOT}val/images/val_{k}.JPEG' has no line in val_annotations.txt" for k in (2, 3)]
    refused(prepare, tmp_path, "2 faults", *words, changed=changed, partial=partial)


@pytest.mark.parametrize("partial", [False, True])
def test_a_line_without_a_class_is_refused(prepare, tmp_path, members, partial):
    changed = with_lines(members, "val/val_annotations.txt", lambda lines: lines.insert(2, "val_9.JPEG n01"))
    refused(prepare, tmp_path, "line 3 of val_annotations.txt is not '<image><tab>", changed=changed, partial=partial)


def test_annotated_images_that_are_not_there_are_refused_unless_the_archive_is_partial(
    prepare, tmp_path, members, caplog
):
    changed = with_lines(members, "val/val_annotations.txt", lambda lines: lines.append("val_8.JPEG\tn01"))
    del changed[f"{ROOT}val/images/val_4.JPEG"]
    words = "images that are not there: val_4.JPEG (line 5), val_8.JPEG (line 7): set `partial: true`"
    refused(prepare, tmp_path, words, changed=changed)
    caplog.set_level("INFO")
    assert prepare(changed=changed, partial=True).meta["splits"] == {"train": 36, "test": 5}
    assert "2 of the images in val_annotations.txt are not there" in caplog.text


@pytest.mark.parametrize("partial", [False, True])
def test_a_class_that_is_listed_twice_is_refused(prepare, tmp_path, members, partial):
    changed = with_lines(members, "wnids.txt", lambda lines: lines.append("n01"))
    refused(prepare, tmp_path, "line 4 of wnids.txt repeats 'n01' of line 2", changed=changed, partial=partial)


def test_an_archive_of_one_class_is_refused(prepare, tmp_path, members):
    one = {name: content for name, content in members.items() if "n02" not in name and "n03" not in name}
    one = {
        name: content for name, content in one.items() if "val_" not in name or name.endswith(("_1.JPEG", "_4.JPEG"))
    }
    one |= {f"{ROOT}wnids.txt": b"n01", f"{ROOT}val/val_annotations.txt": b"val_1.JPEG\tn01\nval_4.JPEG\tn01"}
    refused(prepare, tmp_path, "found 1: at least two are needed", changed=one, partial=True)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "train/n01/images/n01_20.png",
        "train/n01/n01_20.JPEG",
        "train/n01/images/n02_20.JPEG",
        "val/n01/val_1.JPEG",
    ],
)
def test_an_image_in_a_wrong_place_is_refused(prepare, tmp_path, members, partial, name):
    words = f"member '{ROOT}{name}' is an image in a wrong place or of a wrong name"
    refused(prepare, tmp_path, words, changed=members | {f"{ROOT}{name}": b"x"}, partial=partial)


def test_two_images_of_one_number_are_refused(prepare, tmp_path, members):
    names = [train_name("n01", k) for k in ("7", "07")]
    words = f"members '{names[0]}' and '{names[1]}' have the same number"
    refused(prepare, tmp_path, words, changed=members | {names[1]: members[names[0]]}, partial=True)


def test_images_outside_the_layout_are_named_in_the_log(prepare, members, caplog):
    others = {"extra/a.png": b"x", "__MACOSX/train/._n01_0.JPEG": b"x", f"{ROOT}readme.txt": b"x"}
    assert prepare(changed=members | others).n_classes == 3
    assert caplog.messages == [message for message in caplog.messages if message.endswith("not used: extra/a.png")]


@pytest.mark.parametrize("threads", [1, 2])
def test_all_damaged_members_are_in_one_message(prepare, tmp_path, members, threads, monkeypatch):
    monkeypatch.setattr("issl.data.arrays.CHUNK", 5)
    bad = [train_name("n01", 3), train_name("n02", 7), f"{ROOT}val/images/val_0.JPEG"]
    words = "3 faults: ", *(f"member '{name}' is not a JPEG image" for name in bad)
    refused(prepare, tmp_path, *words, changed=members | dict.fromkeys(bad, b"<html>"), threads=threads)


def test_a_zip_with_a_name_that_is_not_what_it_says_is_refused(tmp_path, members):
    archive = write_zip(tmp_path / "tiny.zip", members | {f"{ROOT}gr\u00fcn": b"x"})  # marked as UTF-8
    archive.write_bytes(archive.read_bytes().replace("gr\u00fcn".encode(), b"gr\xff\xfcn"))
    with pytest.raises(UserError, match="not a complete zip file"):
        data.prepare(spec_of(archive), tmp_path / "out", progress=False)


def test_a_missing_archive_is_downloaded_from_its_url(tmp_path, members, monkeypatch):
    calls = []

    def fetch(url, path, md5, progress):
        calls.append((url, md5))
        write_zip(Path(path), members)

    monkeypatch.setattr("issl.jobs.download.fetch", fetch)
    spec = spec_of(tmp_path / "tiny.zip", url="http://example.org/tiny.zip")
    for _ in range(2):
        assert data.prepare(spec, tmp_path / "out", progress=False).n_classes == 3
    assert calls == [("http://example.org/tiny.zip", None)]


@pytest.mark.parametrize("size", [32, 16])
def test_smaller_images_are_those_of_pillow_reduced(tmp_path, members, size):
    archive = write_zip(tmp_path / "tiny.zip", members)
    whole = data.prepare(spec_of(archive), tmp_path / "whole", progress=False)
    small = data.prepare(spec_of(archive, image_size=size), tmp_path / "small", progress=False)
    assert small.meta["image_size"] == size and data_id(spec_of(archive)) != data_id(spec_of(archive, image_size=size))
    assert np.array_equal(small.labels, whole.labels)
    for pixels, image in zip(small.images, whole.images):
        assert np.array_equal(pixels, np.asarray(Image.fromarray(image).reduce(64 // size)))


@pytest.mark.skipif("ISSL_TINYIMAGENET_ZIP" not in os.environ, reason="ISSL_TINYIMAGENET_ZIP names no archive")
def test_the_real_archive_has_the_documented_counts(tmp_path):
    archive = os.environ["ISSL_TINYIMAGENET_ZIP"]
    spec = TinyImageNet(kind="tinyimagenet", partial=True, archive=archive)
    arrays = data.prepare(spec, tmp_path / "out", threads=2, progress=False)
    assert arrays.n_classes == 200
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        root = next(name for name in names if name.endswith("wnids.txt")).removesuffix("wnids.txt")
        wnid_of = dict(
            line.split("\t")[:2] for line in file.read(f"{root}val/val_annotations.txt").decode().splitlines()
        )
        assert arrays.classes == sorted(file.read(f"{root}wnids.txt").decode().split())
        keys = {"train": [], "test": []}
        for name in names:
            file_name = name.rpartition("/")[2]
            if name.startswith(f"{root}train/") and name.endswith(".JPEG"):
                keys["train"].append((name.split("/")[-3], file_name, name))
            elif name.startswith(f"{root}val/") and name.endswith(".JPEG"):
                keys["test"].append((wnid_of[file_name], file_name, name))
        expected = sorted(keys["train"]) + sorted(keys["test"])
        assert arrays.meta["splits"] == {split: len(found) for split, found in keys.items()}
        assert [arrays.classes[label] for label in arrays.labels] == [wnid for wnid, _, _ in expected]
        for row in np.random.default_rng(0).choice(len(expected), 300, replace=False):
            assert np.array_equal(arrays.images[row], pil(file.read(expected[row][2])))
    assert hashlib.sha256(arrays.images).hexdigest() == arrays.meta["sha256"]["images"]
