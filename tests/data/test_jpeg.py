import io
import re

import numpy as np
import pytest
from PIL import Image

from issl.data.jpeg import decode
from issl.errors import UserError


def photo(height=40, width=60, seed=0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


SAVED = {
    "photo.JPEG": (photo(), {}),
    "odd sizes.jpg": (photo(33, 47), {"subsampling": "4:2:0"}),
    "progressive.JPEG": (photo(), {"progressive": True}),
    "grey.JPEG": (photo().convert("L"), {}),
    "cmyk.JPEG": (photo().convert("CMYK"), {}),
    "n02105855_2933.JPEG": (photo(), {"format": "PNG"}),  # ImageNet has a PNG of this name
    "palette.gif": (photo().convert("P"), {}),
    "rotated.JPEG": (photo(), {"exif": Image.Exif()}),
}


@pytest.mark.parametrize("name", SAVED)
def test_every_format_decodes_as_in_pillow(tmp_path, name):
    image, options = SAVED[name]
    if "exif" in options:
        options["exif"][0x0112] = 6  # a camera held upright: torchvision's loader leaves the pixels as they are
    image.save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as expected:
        assert np.array_equal(decode(tmp_path / name), np.asarray(expected.convert("RGB")))


def sound() -> bytes:
    target = io.BytesIO()
    photo().save(target, "JPEG")
    return target.getvalue()


def test_trailing_bytes_are_ignored(tmp_path):
    (tmp_path / "a.JPEG").write_bytes(sound() + b"\x00\x01rest")
    assert np.array_equal(decode(tmp_path / "a.JPEG"), np.asarray(Image.open(io.BytesIO(sound()))))


BROKEN = {
    "cut off": (sound()[:-40], "truncated"),
    "empty": (b"", "unknown format"),
    "text": (b"not an image", "unknown format"),
    "header": (sound()[:20], "."),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_corrupt_file_is_named_in_one_line(tmp_path, case):
    content, reason = BROKEN[case]
    file = tmp_path / "n01/bad.JPEG"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}: cannot be decoded as an image \(.*{reason}"):
        decode(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.JPEG: .*No such file or directory"):
        decode(tmp_path / "gone.JPEG")
