"""TinyImageNet, decoded straight from the official zip: nothing is extracted to disk."""

import io
import logging
import re
import stat
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from issl.data import faults, tree, zipped
from issl.data.arrays import Content, Rows
from issl.data.jpeg import SAME_COLOURS
from issl.errors import UserError
from issl.jobs import download
from issl.spec.data import TinyImageNet

log = logging.getLogger(__name__)

SIZE = 64
# zipfile's errors for a member that is damaged, encrypted or packed in an unknown way.
DAMAGED_MEMBER = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)

PARTIAL = "set `partial: true` for this data set if the archive lacks images on purpose, otherwise download it again"

Members = dict[str, list[str]]  # wnid -> names in the zip, in numeric order


def read(spec: TinyImageNet, progress: bool = False) -> Content:
    """Finds the images of the official layout; "test" is the official val split, the unlabelled one is not used.

    Classes are numbered in alphabetical order of their wnids. Images are ordered by class, then alphabetically by file
    name as in the released code, so that few-shot draws give the same images; caps keep the lowest numbers. The archive
    is downloaded if it is missing and the spec has a url.

    Raises UserError if the archive is missing, damaged or unsafe, its checksum is not the spec's, or it lacks images
    that the spec asks for (with ``partial: true``, only if a class lacks all of them), or contradicts itself.
    """
    archive = Path(spec.archive)
    if not archive.exists():
        _fetch(spec, archive, progress)
    md5 = _checksum(spec, archive)
    try:
        zip_file = zipfile.ZipFile(archive)
    except (*DAMAGED_MEMBER, struct.error) as error:
        raise UserError(
            f"{archive}: not a complete zip file ({error}): delete it, then download or copy it again"
        ) from error
    with zip_file:
        _refuse_unsafe(archive, zip_file.infolist())
        classes, train, test = _layout(spec, zip_file)
        member_of = {member.filename: member for member in zip_file.infolist()}

    classes = classes[: spec.classes]
    train = {wnid: sorted(train[wnid][: spec.train_per_class]) for wnid in classes}
    test = {wnid: sorted(test[wnid][: spec.test_per_class]) for wnid in classes}
    _check_counts(spec, classes, train, test)
    groups = [*train.values(), *test.values()]
    return Content(
        labels=np.repeat(np.tile(np.arange(len(classes)), 2), [len(names) for names in groups]),
        splits={"train": sum(map(len, train.values())), "test": sum(map(len, test.values()))},
        classes=classes,
        image_size=spec.image_size,
        open=partial(_open, archive, spec.image_size, [member_of[name] for names in groups for name in names]),
        source={"archive": archive.name, "md5": md5},
    )


def _fetch(spec: TinyImageNet, archive: Path, progress: bool) -> None:
    if spec.url is None:
        raise UserError(
            f"{archive}: no such file: put tiny-imagenet-200.zip there, set `archive` to its path, "
            "or set `url` to download it"
        )
    download.fetch(spec.url, archive, spec.md5, progress)


def _checksum(spec: TinyImageNet, archive: Path) -> str:
    try:
        md5 = download.md5_of(archive)
    except OSError as error:
        raise UserError(f"{archive}: cannot be read: {error.strerror}") from error
    if spec.md5 and md5 != spec.md5.lower():
        raise UserError(
            f"{archive}: its md5 is {md5}, not {spec.md5}: it is damaged or a different archive; "
            "replace it, or correct `md5` in the config (null skips the check)"
        )
    return md5


def _refuse_unsafe(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Nothing is extracted here, but people unpack archives elsewhere: one that escapes its folder is hostile."""
    seen = set()
    for member in members:
        name = member.filename
        steps = name.replace("\\", "/").split("/")  # some tools treat a backslash as a separator
        if steps[0] == "" or steps[0][1:2] == ":":
            raise UserError(f"{archive}: member '{name}' has an absolute name: do not use this archive")
        if ".." in steps:
            raise UserError(f"{archive}: member '{name}' leaves the archive's folder: do not use this archive")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{archive}: member '{name}' is a symbolic link: do not use this archive")
        if name in seen:
            raise UserError(f"{archive}: member '{name}' occurs twice: do not use this archive")
        seen.add(name)


def _layout(spec: TinyImageNet, zip_file: zipfile.ZipFile) -> tuple[list[str], Members, Members]:
    """All wnids in alphabetical order, and the train and test images of each.

    Raises UserError with every image and line of an index that contradicts the others.
    """
    archive, names = Path(spec.archive), zip_file.namelist()
    roots = [name.removesuffix("wnids.txt") for name in names if name.rpartition("/")[2] == "wnids.txt"]
    if len(roots) != 1:
        raise UserError(f"{archive}: not TinyImageNet: it holds {len(roots)} files called wnids.txt instead of one")
    root, wrong = roots[0], []
    classes = _wnids(_text(archive, zip_file, f"{root}wnids.txt"), wrong)
    class_of, line_of = _annotations(_text(archive, zip_file, f"{root}val/val_annotations.txt"), wrong)

    train_image = re.compile(re.escape(root) + r"train/([^/]+)/images/\1_(\d+)\.JPEG")
    test_image = re.compile(re.escape(root) + r"val/images/(val_(\d+)\.JPEG)")
    train: dict[str, dict[int, str]] = {wnid: {} for wnid in classes}
    test: dict[str, dict[int, str]] = {wnid: {} for wnid in classes}
    there, unused = set(), []
    for name in names:
        if match := train_image.fullmatch(name):
            split, wnid, of_class = train, match[1], f"class '{match[1]}'"
        elif match := test_image.fullmatch(name):
            there.add(match[1])
            split, wnid = test, class_of.get(match[1])
            of_class = f"class '{wnid}' (line {line_of.get(match[1])} of val_annotations.txt)"
        else:
            if not name.startswith(f"{root}test/") and _is_image(name):
                unused.append(name)
            continue
        if wnid is None:
            wrong.append(f"member '{name}' has no line in val_annotations.txt")
        elif wnid not in split:
            wrong.append(f"member '{name}' is of {of_class}, which is not in wnids.txt")
        elif (other := split[wnid].setdefault(int(match[2]), name)) != name:
            wrong.append(f"members '{other}' and '{name}' have the same number")
    absent = [name for name in class_of if name not in there]
    if absent and spec.partial:
        log.info("%s: %d of the images in val_annotations.txt are not there", archive, len(absent))
    elif absent:
        lines = faults.first([f"{name} (line {line_of[name]})" for name in absent])
        wrong.append(f"val_annotations.txt names images that are not there: {lines}: {PARTIAL}")
    misplaced = [name for name in unused if name.startswith((f"{root}train/", f"{root}val/"))]
    wrong += [f"member '{name}' is an image in a wrong place or of a wrong name" for name in misplaced]
    faults.refuse(f"{archive}: {message}" for message in wrong)
    tree.warn_unused(archive, unused)
    return classes, _in_order(train), _in_order(test)


def _wnids(text: str, wrong: list[str]) -> list[str]:
    """The classes in alphabetical order."""
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for wnid in line.split():
            if wnid in line_of:
                wrong.append(f"line {number} of wnids.txt repeats '{wnid}' of line {line_of[wnid]}")
            line_of.setdefault(wnid, number)
    return sorted(line_of)


def _annotations(text: str, wrong: list[str]) -> tuple[dict[str, str], dict[str, int]]:
    """The class of each val image, and the line that says so."""
    class_of: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, _, rest = line.strip().partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if not (name and wnid):
            if line.strip():
                wrong.append(f"line {number} of val_annotations.txt is not '<image><tab><class>...'")
        elif class_of.setdefault(name, wnid) != wnid:
            wrong.append(
                f"line {number} of val_annotations.txt gives '{name}' the class '{wnid}', "
                f"but line {line_of[name]} gives it '{class_of[name]}'"
            )
        line_of.setdefault(name, number)
    return class_of, line_of


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in Image.registered_extensions() and not path.name.startswith(".")


def _in_order(split: dict[str, dict[int, str]]) -> Members:
    return {wnid: [by_number[number] for number in sorted(by_number)] for wnid, by_number in split.items()}


def _text(archive: Path, zip_file: zipfile.ZipFile, name: str) -> str:
    try:
        return zip_file.read(name).decode()
    except KeyError:
        raise UserError(f"{archive}: not TinyImageNet: it lacks {name}") from None
    except DAMAGED_MEMBER as error:
        raise UserError(f"{archive}: member '{name}' is damaged ({error}): download the archive again") from error


def _check_counts(spec: TinyImageNet, classes: list[str], train: Members, test: Members) -> None:
    if len(classes) < 2 or (len(classes) < spec.classes and not spec.partial):
        hint = "at least two are needed" if spec.partial else PARTIAL
        raise UserError(f"{spec.archive}: expected {spec.classes} classes, found {len(classes)}: {hint}")
    for split, images, expected in (("train", train, spec.train_per_class), ("val", test, spec.test_per_class)):
        short = [wnid for wnid in classes if len(images[wnid]) < (1 if spec.partial else expected)]
        if short and spec.partial:
            raise UserError(f"{spec.archive}: class {short[0]} has no {split} image: every class needs at least one")
        if short:
            raise UserError(
                f"{spec.archive}: expected {expected} {split} images per class, found {len(images[short[0]])} in "
                f"{short[0]} (too few in {len(short)} of {len(classes)} classes): {PARTIAL}"
            )


def _open(archive: Path, size: int, members: list[zipfile.ZipInfo]) -> Rows:
    reader = zipped.Reader(archive)

    def rows(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, SIZE, SIZE, 3), np.uint8)
        for pixels, member in zip(images, members[start:stop]):
            _decode(reader, member, pixels)
        return images if size == SIZE else reduced(images, SIZE // size)

    return rows


def reduced(images: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of `factor` pixels a side, (n, H, W, 3) -> (n, H / factor, W / factor, 3), as Pillow reduces."""
    n, height, width, channels = images.shape
    squares = images.reshape(n, height // factor, factor, width // factor, factor, channels)
    return ((squares.sum((2, 4)) + factor**2 // 2) // factor**2).astype(np.uint8)


def _decode(reader: zipped.Reader, member: zipfile.ZipInfo, pixels: np.ndarray) -> None:
    """Writes one image to `pixels`, (64, 64, 3) uint8. Raises UserError that names the member."""
    where = f"{reader.path}: member '{member.filename}'"
    try:
        content = reader.read(member)
        if _decode_sound(content, pixels):
            return
        image = Image.open(io.BytesIO(content), formats=("JPEG",))
        if image.size != (SIZE, SIZE):
            raise UserError(f"{where} is {image.width} x {image.height} pixels, not {SIZE} x {SIZE}: wrong archive?")
        pixels[:] = image.convert("RGB")
    except UnidentifiedImageError as error:
        raise UserError(f"{where} is not a JPEG image: download the archive again") from error
    except (*DAMAGED_MEMBER, Image.DecompressionBombError) as error:
        raise UserError(f"{where} is damaged ({error}): download the archive again") from error


def _decode_sound(content: bytes, pixels: np.ndarray) -> bool:
    """Writes a JPEG image of the right size to `pixels`, bit for bit as Pillow does, but in a quarter of the time.

    False, with undefined `pixels`, for anything unusual or invalid, which is left to Pillow.
    """
    import simplejpeg  # only jobs of rule prepare decode these, and other environments may lack it

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if (height, width) != (SIZE, SIZE) or colours not in SAME_COLOURS:
            return False
        simplejpeg.decode_jpeg(content, "RGB", buffer=pixels)
    except ValueError:
        return False
    return True
