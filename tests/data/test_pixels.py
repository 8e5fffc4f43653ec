"""Every kind of pixels that image files hold: the right RGB of 8 bits, or a refusal; never white in silence."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from issl import data
from issl.data.jpeg import decode
from issl.errors import UserError
from issl.spec.data import ImageFolder

SIDE = 16
DEEP = np.random.default_rng(0).permutation(np.linspace(0, 65535, SIDE * SIDE)).astype(np.uint16).reshape(SIDE, SIDE)
DEEP.flat[:6] = 0, 1, 128, 129, 65406, 65535
EIGHT = (DEEP.astype(np.float64) / 65535 * 255).round().astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
GREY = COLOURS[..., 0]


def in_folder(file):
    """The file through a data set of kind folder."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            place = file.parent / "set" / split / name
            place.mkdir(parents=True)
            (place / file.name).write_bytes(file.read_bytes())
            # Beside it one of its own, for the splits and classes must not be copies of each other.
            Image.fromarray(COLOURS + len(list(place.parents[1].rglob("*")))).save(place / "zzz.png")
    spec = ImageFolder(kind="folder", name="mine", path=str(file.parent / "set"), image_size=SIDE)
    return data.prepare(spec, file.parent / "out", progress=False).images[0]


WAYS = pytest.mark.parametrize("pixels_of", [in_folder, decode], ids=["folder", "photograph"])


def tiff(pixels: bytes, bits: int, photometric: int = 1, sample_format: int = 1, big: bool = False) -> bytes:
    """A grey TIFF of 16 x 16, written by hand."""
    order = ">" if big else "<"
    tags = {256: SIDE, 257: SIDE, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1, 278: SIDE, 279: len(pixels)}
    tags[339] = sample_format
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = (b"MM" if big else b"II") + struct.pack(order + "HIH", 42, 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + pixels


def packed(values) -> bytes:
    """12-bit values, two in three bytes."""
    pairs = values.reshape(-1, 2).astype(int)
    return b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in pairs.tolist())


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixels: bytes, depth: int, colour: int) -> bytes:
    """A PNG of 16 x 16, written by hand: `colour` is 0 for grey, 2 for RGB."""
    width = len(pixels) // SIDE
    rows = b"".join(b"\0" + pixels[start : start + width] for start in range(0, len(pixels), width))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


TWELVE = DEEP >> 4
DEEP_FILES = {
    "png": (png(DEEP.astype(">u2").tobytes(), 16, 0), EIGHT),
    "tiff, little-endian": (tiff(DEEP.astype("<u2").tobytes(), 16), EIGHT),
    "tiff, big-endian": (tiff(DEEP.astype(">u2").tobytes(), 16, big=True), EIGHT),
    "tiff, white is zero": (tiff((65535 - DEEP).astype("<u2").tobytes(), 16, photometric=0), EIGHT),
    "tiff, 12 bits": (tiff(packed(TWELVE), 12), (TWELVE / 4095 * 255).round().astype(np.uint8)),
    "pgm": (b"P5 16 16 65535\n" + DEEP.astype(">u2").tobytes(), EIGHT),
    "pgm up to 4095": (
        b"P5 16 16 4095\n" + TWELVE.astype(">u2").tobytes(),
        (TWELVE / 4095 * 255).round().astype(np.uint8),
    ),
}


@WAYS
@pytest.mark.parametrize("name", DEEP_FILES)
def test_grey_of_more_than_8_bits_is_scaled_to_8(tmp_path, pixels_of, name):
    content, expected = DEEP_FILES[name]
    (tmp_path / "deep").write_bytes(content)
    assert np.array_equal(pixels_of(tmp_path / "deep"), np.repeat(expected[..., None], 3, 2))


@WAYS
@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.jp2"])
def test_grey_of_16_bits_as_pillow_writes_it_is_scaled_to_8(tmp_path, pixels_of, name):
    Image.fromarray(DEEP).save(tmp_path / name)
    assert np.array_equal(pixels_of(tmp_path / name), np.repeat(EIGHT[..., None], 3, 2))


def test_a_png_of_mode_i_as_older_pillow_opens_it_is_scaled_too(tmp_path, monkeypatch):
    from PIL import PngImagePlugin

    (tmp_path / "deep.png").write_bytes(DEEP_FILES["png"][0])
    monkeypatch.setitem(PngImagePlugin._MODES, (16, 0), ("I", "I;16B"))
    assert Image.open(tmp_path / "deep.png").mode == "I"
    assert np.array_equal(decode(tmp_path / "deep.png")[..., 0], EIGHT)


@WAYS
def test_colours_of_16_bits_keep_their_upper_8(tmp_path, pixels_of):
    """As Pillow opens them, which is at most one level from the scaled value."""
    deep = np.stack([DEEP, DEEP[::-1], DEEP.T], 2)
    (tmp_path / "deep.png").write_bytes(png(deep.astype(">u2").tobytes(), 16, 2))
    found = pixels_of(tmp_path / "deep.png")
    assert np.array_equal(found, deep >> 8)
    assert np.abs(found - (deep / 257).round()).max() <= 1


FLOATS = np.linspace(0, 1, SIDE * SIDE, dtype="<f4")
UNDEFINED = {
    "floats.tif": (tiff(FLOATS.tobytes(), 32, sample_format=3), "TIFF with floats without a defined range"),
    "floats.pfm": (b"Pf\n16 16\n-1.0\n" + FLOATS.tobytes(), "PPM with floats without a defined range"),
    "long.tif": (tiff(DEEP.astype("<u4").tobytes(), 32), "TIFF with integers without a defined range"),
    "signed.tif": (tiff((DEEP >> 1).astype("<i2").tobytes(), 16, sample_format=2), "TIFF with integers without a"),
}


@WAYS
@pytest.mark.parametrize("name", UNDEFINED)
def test_pixels_of_no_defined_range_are_refused(tmp_path, pixels_of, name):
    content, words = UNDEFINED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: cannot .*{words}.*allowed: 8 bits, or 16-bit grey") as error:
        pixels_of(tmp_path / name)
    assert "\n" not in str(error.value)


@WAYS
@pytest.mark.parametrize("name", ["rgba.png", "la.png", "palette.png", "palette.gif"])
def test_transparency_is_dropped_and_the_colours_below_it_stay(tmp_path, pixels_of, name):
    """As torchvision's loader does: no ground is chosen."""
    alpha = Image.fromarray(np.tile(np.arange(0, 256, 16, dtype=np.uint8), (SIDE, 1)))
    colours, options = Image.fromarray(COLOURS), {}
    if name == "rgba.png":
        image, expected = colours.copy(), COLOURS
        image.putalpha(alpha)
    elif name == "la.png":
        image, expected = Image.fromarray(GREY), np.repeat(GREY[..., None], 3, 2)
        image.putalpha(alpha)
    else:
        image, options = colours.quantize(8), {"transparency": 0}
        expected = np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    image.save(tmp_path / name, **options)
    assert np.array_equal(pixels_of(tmp_path / name), expected)


@WAYS
def test_black_and_white_of_1_bit_become_0_and_255(tmp_path, pixels_of):
    Image.fromarray(GREY > 127).save(tmp_path / "bits.png")
    assert np.array_equal(pixels_of(tmp_path / "bits.png"), np.repeat(np.where(GREY > 127, 255, 0)[..., None], 3, 2))


@WAYS
def test_cmyk_mixes_its_inks_as_pillow_does(tmp_path, pixels_of):
    inks = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "inks.tif")
    expected = (255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255
    assert np.abs(pixels_of(tmp_path / "inks.tif") - expected).max() <= 1


@WAYS
@pytest.mark.parametrize("name", ["moving.gif", "pages.tif", "moving.png", "moving.webp"])
def test_the_first_frame_of_several_is_used(tmp_path, pixels_of, name):
    frames = [Image.fromarray(np.full((SIDE, SIDE, 3), level, np.uint8)) for level in (40, 90, 200)]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert (pixels_of(tmp_path / name) == 40).all()


@WAYS
@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_the_orientation_of_a_camera_is_ignored(tmp_path, pixels_of, name):
    """As torchvision's loader does: the pixels stay as they are stored."""
    upper = np.zeros((SIDE, SIDE, 3), np.uint8)
    upper[: SIDE // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upper).save(tmp_path / name, exif=exif)
    found = pixels_of(tmp_path / name)
    assert (found[: SIDE // 2] > 250).all() and (found[SIDE // 2 :] < 5).all()
