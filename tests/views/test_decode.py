"""Photographs against torchvision on PIL images, which the released code uses."""

import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as tv

from issl import data
from issl.errors import UserError
from issl.spec.augment import Augment
from issl.spec.data import ImageNet
from issl.views import augment, decode
from issl.views.random import generator

SHAPES = ((60, 80), (83, 51), (40, 40), (37, 200), (25, 31))  # larger and smaller than what they are resized to
VIEWS = [
    {"number": 2, "size": 32, "min_area": 0.14},
    {"number": 3, "size": 16, "min_area": 0.05, "max_area": 0.14},
]
SPEC = Augment(views=VIEWS, jitter=0.8, hue=0.2, gray=0.2, blur=True, blur_kernel="pillow")


def image(height, width, seed=0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    for split, name in itertools.product(("train", "val"), ("n01", "n02")):
        (root / split / name).mkdir(parents=True)
        for k, shape in enumerate(SHAPES * (8 if split == "train" else 1)):
            Image.fromarray(image(*shape, seed=k)).save(root / split / name / f"{k:02d}.JPEG", quality=95)
    return root


@pytest.fixture(scope="module")
def listed(place, tmp_path_factory):
    spec = ImageNet(kind="imagenet", path=str(place), image_size=28)
    return decode.of(data.prepare(spec, tmp_path_factory.mktemp("list"), progress=False), spec)


def pil(photos, row) -> Image.Image:
    return Image.open(photos.root / photos.files[row].decode()).convert("RGB")


def assert_same_picture(ours, theirs):
    """Fixed-point weights of two implementations round apart: by one level of 255, seldom two, in a few values."""
    apart = np.abs(np.asarray(ours, int) - np.asarray(theirs, int))
    assert apart.max() <= 2 and (apart > 0).mean() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("resize", "size"), [(32, 28), (256, 224), (37, 32)])
def test_the_central_square_equals_torchvisions(shape, resize, size):
    photo = image(*shape)
    expected = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(size)])(Image.fromarray(photo))
    ours = decode.central_square(photo, resize, size)
    assert ours.shape == (size, size, 3) and ours.dtype == np.uint8
    assert_same_picture(ours, expected)


@pytest.mark.parametrize("box", [(3, 5, 40, 60), (0, 0, 60, 80), (10, 20, 9, 12), (59, 79, 1, 1)])
@pytest.mark.parametrize("size", [16, 96])
def test_a_crop_equals_torchvisions(box, size):
    photo = image(60, 80)
    expected = tv.resized_crop(Image.fromarray(photo), *box, [size, size], transforms.InterpolationMode.BILINEAR)
    assert_same_picture(decode.crop(photo, box, size), expected)


def test_evaluation_resizes_to_256_for_224():
    assert (ImageNet(kind="imagenet").resize, ImageNet(kind="imagenet", image_size=28).resize) == (256, 32)


@pytest.mark.parametrize("workers", [0, 2])
def test_central_squares_come_in_the_order_of_the_rows(listed, workers, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 4)
    rows = [7, 3, 88, 41, 0, 12, 89, 5, 6, 7]
    chunks = list(decode.central_squares(listed, rows, workers))
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    expected = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    for row, ours in zip(rows, torch.cat(chunks)):
        assert_same_picture(ours, expected(pil(listed, row)))


def wanted(*rows, epoch=0):
    return decode.CropRequest(rows, "augment", 1, epoch)


def test_views_are_torchvisions_crops_with_the_draws_of_their_image(listed):
    ((large, small),) = decode.crops(listed, SPEC, [wanted(4, 50)], workers=0)
    assert (large.images.shape, small.images.shape) == ((2, 2, 3, 32, 32), (3, 2, 3, 16, 16))
    assert (len(large.draws), len(small.draws)) == (4, 6)
    for place, row in enumerate((4, 50)):
        photo, random = pil(listed, row), generator("augment", 1, 0, row)
        for group, views in ((SPEC.views[0], large), (SPEC.views[1], small)):
            drawn = augment.draw(
                SPEC, group.number, photo.height, photo.width, random, (group.min_area, group.max_area)
            )
            own = torch.arange(group.number) * 2 + place  # view by view, two images in each
            for name in ("crop", "flip", "brightness", "order", "sigma"):
                assert torch.equal(getattr(views.draws[own], name), getattr(drawn, name)), name
            for view, box in zip(views.images[:, place], drawn.crop.tolist()):
                expected = tv.resized_crop(
                    photo, *box, [group.size] * 2, transforms.InterpolationMode.BILINEAR, antialias=True
                )
                assert_same_picture(view.permute(1, 2, 0), expected)


def test_views_depend_on_seed_epoch_and_row_only(listed):
    together = next(decode.crops(listed, SPEC, [wanted(3, 9, 17, 60)], 0))
    apart = list(decode.crops(listed, SPEC, [wanted(60), wanted(9, 3)], workers=2))
    for group in (0, 1):
        assert torch.equal(together[group].images[:, 3], apart[0][group].images[:, 0])
        assert torch.equal(together[group].images[:, 1], apart[1][group].images[:, 0])
        assert torch.equal(together[group].draws.hue[0::4], apart[1][group].draws.hue[1::2])
    other = next(decode.crops(listed, SPEC, [wanted(3, 9, 17, 60, epoch=1)], 0))
    assert not torch.equal(together[0].images, other[0].images)


def test_crops_have_torchvisions_distribution():
    """Areas, ratios and centres of many crops of one shape: RandomResizedCrop draws them the same way."""
    torch.manual_seed(0)
    n, height, width = 4000, 375, 500
    for areas in ((0.08, 1.0), (0.14, 1.0), (0.05, 0.14)):
        ours = augment.draw(SPEC, n, height, width, generator("x", 0), areas).crop
        blank = Image.new("RGB", (width, height))
        theirs = torch.tensor(
            [transforms.RandomResizedCrop.get_params(blank, list(areas), [3 / 4, 4 / 3]) for _ in range(n)]
        )
        for measure in (
            lambda c: c[:, 2] * c[:, 3] / (height * width),
            lambda c: (c[:, 3] / c[:, 2]).log(),
            lambda c: c[:, 0] + c[:, 2] / 2,
            lambda c: c[:, 1] + c[:, 3] / 2,
        ):
            a, b = (measure(boxes.double()).sort().values for boxes in (ours, theirs))
            distance = (torch.searchsorted(b, a, right=True) / n - torch.arange(1, n + 1) / n).abs().max()
            assert distance < 1.95 * (2 / n) ** 0.5  # Kolmogorov-Smirnov at the level 0.001
        area = ours[:, 2] * ours[:, 3] / (height * width)
        assert areas[0] * 0.98 < area.min() and area.max() < min(1.02 * areas[1], 1.001)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_photograph_is_named_in_one_line(listed, place, tmp_path, workers):
    broken = decode.Photos(tmp_path, listed.files, listed.size, listed.resize)
    for name in listed.files[:3]:
        file = tmp_path / name.decode()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((place / name.decode()).read_bytes())
    file.write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        list(decode.central_squares(broken, range(3), workers))
    assert str(error.value).startswith(f"{file}: cannot be decoded as an image (unknown format): replace")


def test_photographs_whose_names_are_not_utf8_are_decoded(place, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    shutil.copytree(place, tmp_path / "odd")
    for split in ("train", "val"):
        (tmp_path / "odd" / split / "n01").rename(tmp_path / "odd" / split / odd)
        (tmp_path / "odd" / split / odd / "00.JPEG").rename(tmp_path / "odd" / split / odd / f"{odd}.JPEG")
    spec = ImageNet(kind="imagenet", path=str(tmp_path / "odd"), image_size=28)
    arrays = data.prepare(spec, tmp_path / "list", progress=False)
    assert arrays.classes == [odd, "n02"]
    row = arrays.images.tolist().index(b"train/caf\xe9/caf\xe9.JPEG")
    listed = decode.of(arrays, spec)
    expected = decode.central_square(np.array(Image.open(place / "train/n01/00.JPEG").convert("RGB")), 32, 28)
    for workers in (0, 1):
        assert np.array_equal(next(decode.central_squares(listed, [row], workers))[0], expected)
    (tmp_path / "odd/train" / odd / f"{odd}.JPEG").write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"train/caf\\udce9/caf\\udce9\.JPEG: cannot be decoded"):
            next(decode.central_squares(listed, [row], workers))


def test_photographs_of_16_bits_are_scaled_to_8(place, tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (28, 28)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    photos = decode.Photos(tmp_path, np.array([b"deep.png"]), 28, 28)
    expected = (deep / 65535 * 255).round().astype(np.uint8)
    assert np.array_equal(next(decode.central_squares(photos, [0], 0))[0], np.repeat(expected[..., None], 3, 2))


def test_moved_photographs_are_reported(place, tmp_path):
    spec = ImageNet(kind="imagenet", path=str(place))
    arrays = data.prepare(spec, tmp_path / "list", progress=False)
    with pytest.raises(UserError, match="the images are not there: set `path`"):
        decode.of(arrays, spec.model_copy(update={"path": str(tmp_path)}))


def test_decoding_does_not_touch_the_global_generator(listed):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(decode.central_squares(listed, range(3), workers=1))
    list(decode.crops(listed, SPEC, [wanted(1)], workers=0))
    assert torch.equal(before, torch.get_rng_state())


def test_a_dying_process_ends_its_workers(place, tmp_path):
    """They are deaf to SIGTERM, by which multiprocessing would ask them to end."""
    code = f"""
import multiprocessing
from issl import data
from issl.views import decode
from issl.spec.data import ImageNet
spec = ImageNet(kind="imagenet", path={str(place)!r})
listed = decode.of(data.prepare(spec, {str(tmp_path)!r}, progress=False), spec)
squares = decode.central_squares(listed, list(range(80)), workers=2)
next(squares)
print(*(child.pid for child in multiprocessing.active_children()))
raise SystemExit("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "done\n")
    workers = [int(process) for process in done.stdout.split()]
    assert len(workers) == 2 and not any(map(psutil.pid_exists, workers))
