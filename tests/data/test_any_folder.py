"""Random folders: `prepare` gives exactly the images that are there, or one line that says what is wrong."""

import io
import os
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps

from issl import data
from issl.errors import UserError
from issl.spec.data import ImageFolder, ImageNet

SIZE = 8
ODD = (b"a", b"b", b"B", "ü".encode(), b"\xe9", b"x y", b"train", b"-", b"\n", b"c.png")
NAMES = [os.fsdecode(name) for name in ODD]
SUFFIXES = [".png", ".JPEG", ".tif", ".bmp", "", ".txt", ".webp", ".gif"]
MODES = {
    "1": ("PNG", "TIFF", "GIF"),
    "L": ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"),
    "LA": ("PNG", "TIFF", "WEBP"),
    "P": ("PNG", "GIF", "BMP", "TIFF"),
    "RGB": ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"),
    "RGBA": ("PNG", "TIFF", "WEBP"),
    "CMYK": ("JPEG", "TIFF"),
    "YCbCr": ("JPEG", "TIFF"),
    "I;16": ("PNG", "TIFF", "JPEG2000", "PPM"),
    "I": ("TIFF",),
    "F": ("TIFF",),
}
GARBAGE = [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"P5 9 9 255\n", b"BM"]


def encoded(draw: random.Random, trouble: float) -> bytes:
    """An image of any mode in a format that has it, with pixels of no defined range or damage at this rate."""
    mode = draw.choice(["I", "F"] if draw.random() < trouble / 4 else [*MODES][:-2])
    shape = draw.choice([(8, 8), (1, 1), (5, 9), (30, 4)])
    noise = np.random.default_rng(draw.randrange(2**32))
    if mode in ("I;16", "I"):
        image = Image.fromarray(noise.integers(0, 65536, shape).astype(np.uint16 if mode == "I;16" else np.int32))
    elif mode == "F":
        image = Image.fromarray(noise.random(shape, np.float32))
    else:
        image = Image.fromarray(noise.integers(0, 256, (*shape, 3), np.uint8)).convert(mode)
    target = io.BytesIO()
    image.save(target, draw.choice(MODES[mode]))
    content = target.getvalue()
    return damaged(content, draw) if draw.random() < trouble / 4 else content


def damaged(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content))
    match draw.randrange(4):
        case 0:
            return draw.choice(GARBAGE)
        case 1:
            return content[:place]
        case 2:
            return content[:place] + draw.randbytes(3) + content[place + 3 :]
    return content[:place] + content[place + draw.randrange(9) :]


def grow(root, draw: random.Random, trouble: float):
    """A data set in `root`, with trouble of each kind at this rate."""
    names = draw.sample(NAMES, draw.randint(1 if draw.random() < trouble else 2, 4))
    other = draw.choice(["val", "test"])
    for split in ("train", other):
        for name in names:
            if draw.random() < trouble / 4:
                continue
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for k in range(draw.randint(0 if draw.random() < trouble else 1, 3)):
                content = encoded(draw, trouble)
                (root / split / name / f"{draw.choice(NAMES)}{k}{draw.choice(SUFFIXES)}").write_bytes(content)
    folders = [path for path in (root, *root.rglob("*")) if path.is_dir()]
    while draw.random() < trouble:
        name = draw.choice([*NAMES, ".hidden", "README", "val", "test"]) + draw.choice(SUFFIXES)
        place = draw.choice(folders) / name
        if place.exists() or place.is_symlink():
            continue
        match draw.randrange(6):
            case 0:
                place.symlink_to(draw.choice([root / "nowhere", name, root, draw.choice(folders)]))
            case 1:
                place.mkdir()
            case 2:
                os.mkfifo(place)
            case _:
                place.write_bytes(draw.choice([encoded(draw, trouble), draw.choice(GARBAGE)]))


def truth(file) -> np.ndarray | None:
    """The pixels by Pillow and arithmetic, for an image that Pillow decodes and whose range is defined."""
    try:
        with Image.open(file) as image:
            values = np.asarray(image).astype(float)
            if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                return None
            if image.mode.startswith("I"):
                return np.repeat((values / 65535 * 255).round().astype(np.uint8)[..., None], 3, 2)
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def there(root, other):
    """(split, class, file) of each visible file, two folders deep, in order."""
    return [
        (split, name, file)
        for split in ("train", other)
        for name in visible(root / split)
        if (root / split / name).is_dir()
        for file in visible(root / split / name)
    ]


def visible(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def check(kind, root, draw, caplog) -> str:
    """Prepares a random folder and compares it with what is on the disk; says how it went."""
    grow(root, draw, draw.choice([0, 0.1, 0.3, 0.6]))
    other = "test" if kind == "folder" and (root / "test").is_dir() else "val"
    settings = {"folder": {"name": "f", "image_size": SIZE}, "imagenet": {"corrupt": draw.choice(["stop", "skip"])}}
    model = {"folder": ImageFolder, "imagenet": ImageNet}[kind]
    spec = model(kind=kind, path=str(root), **settings[kind])
    caplog.clear()
    try:
        arrays = data.prepare(spec, root.parent / "out", progress=False)
    except UserError as error:
        message = str(error)
        assert message and len(message.splitlines()) == 1 and message.encode() and message.isprintable()
        plain = is_plain(root, other)
        bad = plain and [image for image in there(root, other) if truth(root.joinpath(*image)) is None]
        assert not plain or bad, f"refused without a reason: {message}"
        return "refused"
    images = there(root, other)
    if kind == "imagenet" and spec.corrupt == "skip":
        kept = [image for image in images if truth(root.joinpath(*image)) is not None]
        lost = [os.path.join(*image) for image in images if image not in kept]  # noqa: PTH118 names, not paths
        assert lost == arrays.meta["source"]["skipped"]
        images = kept
    names = sorted({name for _, name, _ in images})
    assert arrays.classes == names and len(names) > 1
    assert arrays.labels.tolist() == [names.index(name) for _, name, _ in images]
    counts = Counter(split for split, _, _ in images)
    assert arrays.meta["splits"] == {"train": counts["train"], "test": counts[other]} and min(counts.values()) > 0
    if kind == "imagenet":
        assert arrays.images.tolist() == [os.fsencode("/".join(image)) for image in images]
    else:
        for image, pixels in zip(images, arrays.images):
            expected = truth(root.joinpath(*image))
            assert expected is not None, image
            fitted = ImageOps.fit(Image.fromarray(expected), (SIZE, SIZE), Image.Resampling.BICUBIC)
            assert np.array_equal(pixels, np.asarray(fitted)), image
    used = {root.joinpath(*image) for image in images}
    for path in root.rglob("*"):  # each other visible file is named in the log
        inside = path.relative_to(root).parts
        if path.is_dir() or path in used or any(part.startswith(".") for part in inside):
            continue
        assert "not used" in caplog.text or "left out" in caplog.text, path
    return "prepared"


def is_plain(root, other) -> bool:
    """Whether the folder is in the layout: at least two classes, the same in both splits, only files in them."""
    of_split = {}
    for split in ("train", other):
        if not (root / split).is_dir():
            return False
        folders = [root / split / name for name in visible(root / split)]
        if not all(folder.is_dir() and visible(folder) for folder in folders):
            return False
        if not all((folder / name).is_file() for folder in folders for name in visible(folder)):
            return False
        of_split[split] = {folder.name for folder in folders}
    return of_split["train"] == of_split[other] and len(of_split["train"]) > 1


def fuzz(tmp_path, caplog, kind, seeds) -> Counter:
    outcomes = Counter()
    for seed in seeds:
        root = tmp_path / str(seed) / "set"
        root.mkdir(parents=True)
        outcomes[check(kind, root, random.Random(seed), caplog)] += 1
    return outcomes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["folder", "imagenet"])
def test_a_random_folder_is_read_exactly_or_refused_in_one_line(tmp_path, caplog, kind):
    outcomes = fuzz(tmp_path, caplog, kind, range(100))
    assert min(outcomes["prepared"], outcomes["refused"]) > 15, outcomes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["folder", "imagenet"])
def test_many_random_folders_are_read_exactly_or_refused_in_one_line(tmp_path, caplog, kind):
    outcomes = fuzz(tmp_path, caplog, kind, range(1000, 2500))
    assert min(outcomes["prepared"], outcomes["refused"]) > 200, outcomes
