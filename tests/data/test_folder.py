import numpy as np
import pytest
from PIL import Image

from issl import data
from issl.errors import UserError
from issl.spec.data import ImageFolder


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "images"
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "ant"):
            for k in range(count):
                save(root / split / name / f"{k}.png", random.integers(0, 256, (16, 16, 3), np.uint8))
    (root / "train" / "cat" / ".hidden").write_text("x")
    return root


def prepare(root, threads=1, size=16):
    spec = ImageFolder(kind="folder", name="mine", path=str(root), image_size=size)
    return data.prepare(spec, root.parent / "out", threads, progress=False)


@pytest.mark.parametrize("threads", [1, 2])
def test_classes_and_files_are_in_alphabetical_order(root, threads, monkeypatch):
    monkeypatch.setattr("issl.data.arrays.CHUNK", 3)
    arrays = prepare(root, threads)
    files = [root / "train" / name / f"{k}.png" for name in ("ant", "cat") for k in range(3)]
    files += [root / "val" / name / f"{k}.png" for name in ("ant", "cat") for k in range(2)]
    assert arrays.classes == ["ant", "cat"]
    assert arrays.meta["splits"] == {"train": 6, "test": 4}
    assert arrays.labels.tolist() == [0] * 3 + [1] * 3 + [0] * 2 + [1] * 2
    assert np.array_equal(arrays.images, np.stack([np.asarray(Image.open(file)) for file in files]))


def test_other_shapes_are_resized_and_centre_cropped(root):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (200, 100, 50)  # the middle square
    save(root / "train" / "ant" / "0.png", wide)
    save(root / "train" / "ant" / "1.png", np.ascontiguousarray(wide.swapaxes(0, 1)))
    save(root / "train" / "ant" / "2.png", np.full((7, 9), 90, np.uint8))
    images = prepare(root, size=10).images
    assert images.shape[1:] == (10, 10, 3)
    assert (images[0, :, 2:-2] == (200, 100, 50)).all()
    assert (images[1, 2:-2] == (200, 100, 50)).all()
    assert (images[2] == 90).all()


def test_a_test_folder_takes_precedence_over_val(root):
    for name in ("ant", "cat"):
        save(root / "test" / name / "only.png", np.zeros((16, 16, 3), np.uint8))
    assert prepare(root).meta["splits"]["test"] == 2


def refused(root, words):
    with pytest.raises(UserError, match=words):
        prepare(root)
    assert not [path for path in (root.parent / "out").glob("*") if path.suffix != ".lock"]


def test_an_error_names_the_faulty_file_or_folder(root):
    (root / "val" / "ant" / "notes.txt").write_text("x")
    refused(root, r"notes\.txt: cannot be decoded as an image")
    (root / "val" / "ant" / "notes.txt").unlink()
    (root / "val" / "dog").mkdir()
    refused(root, "dog: holds no images")
    save(root / "val" / "dog" / "0.png", np.zeros((4, 4, 3), np.uint8))
    refused(root, "train: lacks class 'dog'")
    (root / "val").rename(root / "validation")
    refused(root, "test: cannot be read: No such file")
    (root / "test").mkdir()
    refused(root, "test: holds no class folders")
    refused(root.with_name("nowhere"), "train: cannot be read")
