import dataclasses
import hashlib
import json
import subprocess
import sys
from collections import namedtuple
from functools import partial

import numpy as np
import pytest

from issl import data
from issl.data import arrays
from issl.data.arrays import Content
from issl.data.datasets import READERS
from issl.errors import UserError
from issl.jobs import fingerprint
from issl.spec.data import Synthetic

SPEC = Synthetic(kind="synthetic", classes=2, seed=3)
FILES = ["images.npy", "labels.npy", "meta.json"]


def content(n_train=6, n_test=4, size=8, fail_at=None) -> Content:
    def rows(start, stop):
        if fail_at is not None and stop > fail_at:
            raise UserError("member 'x' is damaged")
        numbers = np.arange(start, stop, dtype=np.uint8)[:, None, None, None]
        return np.broadcast_to(numbers, (stop - start, size, size, 3))

    labels = np.arange(n_train + n_test) % 2
    splits = {"train": n_train, "test": n_test}
    return Content(labels, splits, ["a", "b"], size, lambda: rows, {"archive": "x"}, parallel=False)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_arrays_read_back_as_written(tmp_path):
    arrays.write(tmp_path / "deep" / "folder", content(), SPEC)
    found = data.read(tmp_path / "deep" / "folder")
    assert found.images.dtype == np.uint8
    assert found.images.shape == (10, 8, 8, 3)
    assert found.images[:, 3, 2, 1].tolist() == list(range(10))
    assert isinstance(found.images, np.memmap)
    assert not found.images.flags.writeable
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 1] * 5
    assert (found.n_classes, found.classes, found.image_size) == (2, ["a", "b"], 8)
    assert (found.split("train"), found.split("test")) == (slice(0, 6), slice(6, 10))
    with pytest.raises(UserError, match="no split 'tests', did you mean 'test'"):
        found.split("tests")


def test_meta_records_the_spec_and_the_checksums(tmp_path):
    arrays.write(tmp_path, content(), SPEC)
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta == {
        "spec": {"kind": "synthetic", "classes": 2, "seed": 3},
        "splits": {"train": 6, "test": 4},
        "classes": ["a", "b"],
        "image_size": 8,
        "sha256": {
            "images": hashlib.sha256(np.load(tmp_path / "images.npy").tobytes()).hexdigest(),
            "labels": hashlib.sha256(np.load(tmp_path / "labels.npy").tobytes()).hexdigest(),
        },
        "source": {"archive": "x"},
        "code": fingerprint.current("prepare", "issl.spec.data:Synthetic"),
    }


def test_preparing_records_the_reader_of_the_data_set(tmp_path):
    data.prepare(Synthetic(kind="synthetic", classes=2, train_per_class=2, test_per_class=2), tmp_path, progress=False)
    meta = json.loads((tmp_path / "meta.json").read_text())
    parts = "issl.spec.data:Synthetic", "issl.data.datasets.synthetic"
    assert meta["code"] == fingerprint.current("prepare", *parts)
    assert meta["code"]["modules"].keys() >= set(parts)


def test_writing_again_gives_the_same_bytes(tmp_path):
    def contents():
        arrays.write(tmp_path, content(), SPEC)
        return [(tmp_path / name).read_bytes() for name in FILES]

    assert contents() == contents()
    assert files(tmp_path) == FILES


def test_an_error_while_writing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "CHUNK", 2)
    with pytest.raises(UserError, match="damaged"):
        arrays.write(tmp_path, content(fail_at=5), SPEC)
    assert files(tmp_path) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_the_messages_of_all_bad_images_come_in_their_order(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(arrays, "CHUNK", 4)
    bad = [0, 3, 7, 9]
    with pytest.raises(UserError) as error:
        arrays.write(tmp_path, dataclasses.replace(content(), open=partial(faulty, bad), parallel=True), SPEC, threads)
    assert str(error.value) == "4 faults: 0 is bad; 3 is bad; 7 is bad; 9 is bad"
    assert files(tmp_path) == []


def faulty(bad):
    def rows(start, stop):
        for row in range(start, stop):
            if row in bad:
                raise UserError(f"{row} is bad")
        return np.zeros((stop - start, 8, 8, 3), np.uint8)

    return rows


def test_an_error_keeps_the_previous_arrays(tmp_path, monkeypatch):
    arrays.write(tmp_path, content(), SPEC)
    monkeypatch.setattr(arrays, "CHUNK", 2)
    with pytest.raises(UserError, match="damaged"):
        arrays.write(tmp_path, content(n_train=50, fail_at=40), SPEC)
    assert files(tmp_path) == FILES
    assert len(data.read(tmp_path).images) == 10


def test_a_kill_between_the_renames_is_detected_and_repaired(tmp_path, monkeypatch):
    arrays.write(tmp_path, content(), SPEC)
    with pytest.raises(KeyboardInterrupt), arrays._all_or_nothing(tmp_path) as part:
        for path in part.values():
            path.write_bytes(b"new")
        monkeypatch.setattr(type(tmp_path), "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"meta\.json is missing"):
        data.read(tmp_path)
    arrays.write(tmp_path, content(), SPEC)
    assert files(tmp_path) == FILES
    assert len(data.read(tmp_path).images) == 10


def test_leftovers_of_a_killed_process_are_overwritten(tmp_path):
    for name in FILES:
        (tmp_path / f".part-{name}").write_bytes(b"old" * 1000)
    arrays.write(tmp_path, content(), SPEC)
    assert files(tmp_path) == FILES


@pytest.mark.parametrize("missing", FILES)
def test_an_error_names_the_missing_file(tmp_path, missing):
    arrays.write(tmp_path, content(), SPEC)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is missing: prepare it first"):
        data.read(tmp_path)
    with pytest.raises(UserError, match="prepare it first"):
        data.read(tmp_path / "nowhere")


def test_files_of_different_data_sets_are_refused(tmp_path):
    arrays.write(tmp_path / "a", content(), SPEC)
    arrays.write(tmp_path / "b", content(n_train=7), SPEC)
    meta = json.loads((tmp_path / "a/meta.json").read_text())

    def broken(name, payload):
        folder = tmp_path / "mixed"
        folder.mkdir(exist_ok=True)
        for file in FILES:
            (folder / file).write_bytes((tmp_path / "a" / file).read_bytes())
        (folder / name).write_bytes(payload)
        with pytest.raises(UserError) as error:
            data.read(folder)
        return str(error.value)

    assert "images.npy holds uint8 (11, 8, 8, 3)" in broken("images.npy", (tmp_path / "b/images.npy").read_bytes())
    assert "labels.npy holds int64 (11,)" in broken("labels.npy", (tmp_path / "b/labels.npy").read_bytes())
    whole = (tmp_path / "a/images.npy").read_bytes()
    assert "cannot be read" in broken("images.npy", whole[:-100])
    assert "cannot be read" in broken("images.npy", b"")
    assert "cannot be read" in broken("meta.json", b"{")
    assert "lacks 'splits'" in broken("meta.json", json.dumps({"spec": {}}).encode())
    assert "lacks 'spec'" in broken("meta.json", b"[]")
    labels = np.load(tmp_path / "a/labels.npy")
    np.save(tmp_path / "other.npy", labels[::-1])
    assert "does not have the checksum" in broken("labels.npy", (tmp_path / "other.npy").read_bytes())
    assert meta["splits"] == {"train": 6, "test": 4}


def test_a_full_disk_or_read_only_folder_is_reported_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        arrays.write(tmp_path / "file" / "below", content(), SPEC)
    usage = namedtuple("usage", "free")(100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs \d+\.\d MB, but only 0\.0 MB are free"):
        arrays.write(tmp_path / "out", content(), SPEC)


def test_preparing_uses_bounded_memory(tmp_path):
    """The private memory of the process grows by a few chunks, not by the data set (300 MB)."""
    code = f"""
import numpy as np
from issl.data import arrays
from issl.spec.data import Synthetic
from issl.data.arrays import Content
from issl.data.datasets import READERS
def private():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
peak = 0
def rows(start, stop):
    global peak
    peak = max(peak, private())
    return np.full((stop - start, 128, 128, 3), start // 128, np.uint8)
content = Content(np.zeros(6400, int), {{"train": 6000, "test": 400}}, ["a"], 128, lambda: rows, {{}}, parallel=False)
before = private()
arrays.write({str(tmp_path)!r}, content, Synthetic(kind="synthetic"))
print(max(peak, private()) - before)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 60


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, issl.data; print([m for m in ('torch', 'torchvision', 'sklearn') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_every_kind_of_spec_has_a_reader():
    from typing import get_args

    from issl.spec.data import DataSpec

    kinds = {get_args(model.model_fields["kind"].annotation)[0] for model in get_args(get_args(DataSpec)[0])}
    assert kinds == set(READERS)


def test_loaded_arrays_are_read_only(tmp_path):
    arrays.write(tmp_path, content(), SPEC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.read(tmp_path).labels = None


@pytest.mark.parametrize(
    ("classes", "splits", "words"),
    [
        (["a"], {"train": 6, "test": 4}, "holds only one class, 'a', but at least two are needed"),
        ([], {"train": 0, "test": 0}, "holds no class, but at least two are needed"),
        (["a", "b"], {"train": 10, "test": 0}, "holds no test images"),
        (["a", "b"], {"train": 0, "test": 10}, "holds no train images"),
    ],
)
def test_a_data_set_with_nothing_to_tell_apart_is_refused(tmp_path, monkeypatch, classes, splits, words):
    degenerate = dataclasses.replace(content(), classes=classes, splits=splits)
    monkeypatch.setitem(READERS, "synthetic", lambda spec, progress: degenerate)
    with pytest.raises(UserError, match=f"synthetic: {words}"):
        data.prepare(SPEC, tmp_path, progress=False)
