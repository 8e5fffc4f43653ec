"""TinyImageNet from the official zip, decoded straight out of it: nothing is extracted to disk."""

import io
import re
import stat
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from issl.data import download, zipped
from issl.data.arrays import Content, Rows
from issl.data.jpeg import SAME_COLOURS
from issl.errors import UserError
from issl.spec.data import TinyImageNet

SIZE = 64
# What zipfile raises for a member that is damaged, encrypted or packed in a way it does not know.
DAMAGED_MEMBER = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)

Members = dict[str, list[str]]  # wnid -> names in the zip, in numeric order


def read(spec: TinyImageNet, progress: bool = False) -> Content:
    """Finds the images of the official layout; "test" is the official val split, the unlabelled one is not used.

    A class index is the place of its wnid in alphabetical order. Images stand class by class, in the alphabetical order
    of their file names as in the released code, so that few-shot draws are the same images; caps keep those of lowest
    number. The archive is downloaded if it is absent and the spec has a url.

    Raises UserError for an archive that is absent, damaged, unsafe, another one than its checksum says, or that lacks
    images which the spec asks for (with ``partial: true`` only if a class lacks all of them).
    """
    archive = Path(spec.archive)
    if not archive.exists():
        _fetch(spec, archive, progress)
    md5 = _checksum(spec, archive)
    try:
        with zipfile.ZipFile(archive) as zip_file:
            _refuse_unsafe(archive, zip_file.infolist())
            classes, train, test = _layout(archive, zip_file)
            member_of = {member.filename: member for member in zip_file.infolist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{archive}: not a complete zip file ({error}): delete it and download it again, or copy it anew"
        ) from error

    classes = classes[: spec.classes]
    train = {wnid: sorted(train[wnid][: spec.train_per_class]) for wnid in classes}
    test = {wnid: sorted(test[wnid][: spec.test_per_class]) for wnid in classes}
    _check_counts(spec, classes, train, test)
    groups = [*train.values(), *test.values()]
    return Content(
        labels=np.repeat(np.tile(np.arange(len(classes)), 2), [len(names) for names in groups]),
        splits={"train": sum(map(len, train.values())), "test": sum(map(len, test.values()))},
        classes=classes,
        image_size=SIZE,
        open=partial(_open, archive, [member_of[name] for names in groups for name in names]),
        source={"archive": archive.name, "md5": md5},
    )


def _fetch(spec: TinyImageNet, archive: Path, progress: bool) -> None:
    if spec.url is None:
        raise UserError(
            f"{archive}: no such file: put tiny-imagenet-200.zip there, set `archive` to where it is, "
            "or set `url` to have it downloaded"
        )
    download.fetch(spec.url, archive, spec.md5, progress)


def _checksum(spec: TinyImageNet, archive: Path) -> str:
    try:
        md5 = download.md5_of(archive)
    except OSError as error:
        raise UserError(f"{archive}: cannot be read: {error.strerror}") from error
    if spec.md5 and md5 != spec.md5.lower():
        raise UserError(
            f"{archive}: its md5 is {md5}, not {spec.md5}: it is damaged or another archive; "
            "replace it, or correct `md5` in the config (null skips the check)"
        )
    return md5


def _refuse_unsafe(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Nothing is extracted here, but people unpack such archives elsewhere: one that escapes its folder is hostile."""
    seen = set()
    for member in members:
        name = member.filename
        steps = name.replace("\\", "/").split("/")  # some tools take a backslash for a separator
        if steps[0] == "" or steps[0][1:2] == ":":
            raise UserError(f"{archive}: member '{name}' has an absolute name: do not use this archive")
        if ".." in steps:
            raise UserError(f"{archive}: member '{name}' leaves the archive's folder: do not use this archive")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{archive}: member '{name}' is a symbolic link: do not use this archive")
        if name in seen:
            raise UserError(f"{archive}: member '{name}' is there twice: do not use this archive")
        seen.add(name)


def _layout(archive: Path, zip_file: zipfile.ZipFile) -> tuple[list[str], Members, Members]:
    """All wnids in alphabetical order, and the train and test images of each."""
    names = zip_file.namelist()
    roots = [name.removesuffix("wnids.txt") for name in names if name.rpartition("/")[2] == "wnids.txt"]
    if len(roots) != 1:
        raise UserError(f"{archive}: not TinyImageNet: it holds {len(roots)} files called wnids.txt instead of one")
    root = roots[0]
    classes = sorted(_text(archive, zip_file, f"{root}wnids.txt").split())
    annotations = _text(archive, zip_file, f"{root}val/val_annotations.txt").splitlines()
    class_of = {columns[0]: columns[1] for line in annotations if len(columns := line.split("\t")) > 1}

    train_image = re.compile(re.escape(root) + r"train/([^/]+)/images/\1_(\d+)\.JPEG")
    test_image = re.compile(re.escape(root) + r"val/images/(val_(\d+)\.JPEG)")
    train: dict[str, dict[int, str]] = {wnid: {} for wnid in classes}
    test: dict[str, dict[int, str]] = {wnid: {} for wnid in classes}
    for name in names:
        if match := train_image.fullmatch(name):
            split, wnid = train, match[1]
        elif match := test_image.fullmatch(name):
            split, wnid = test, class_of.get(match[1])
        else:
            continue
        if wnid is None:
            raise UserError(f"{archive}: member '{name}' has no line in val_annotations.txt")
        if wnid not in split:
            raise UserError(f"{archive}: member '{name}' is of class '{wnid}', which is not in wnids.txt")
        split[wnid][int(match[2])] = name
    return classes, _in_order(train), _in_order(test)


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
    hint = "set `partial: true` for this data set if the archive lacks images on purpose, or else download it again"
    if not classes or (len(classes) < spec.classes and not spec.partial):
        raise UserError(f"{spec.archive}: expected {spec.classes} classes, found {len(classes)}: {hint}")
    for split, images, expected in (("train", train, spec.train_per_class), ("val", test, spec.test_per_class)):
        short = [wnid for wnid in classes if len(images[wnid]) < (1 if spec.partial else expected)]
        if short and spec.partial:
            raise UserError(f"{spec.archive}: class {short[0]} has no {split} image: every class needs at least one")
        if short:
            raise UserError(
                f"{spec.archive}: expected {expected} {split} images per class, found {len(images[short[0]])} in "
                f"{short[0]} (too few in {len(short)} of {len(classes)} classes): {hint}"
            )


def _open(archive: Path, members: list[zipfile.ZipInfo]) -> Rows:
    reader = zipped.Reader(archive)

    def rows(start: int, stop: int) -> np.ndarray:
        images = np.empty((stop - start, SIZE, SIZE, 3), np.uint8)
        for pixels, member in zip(images, members[start:stop]):
            _decode(reader, member, pixels)
        return images

    return rows


def _decode(reader: zipped.Reader, member: zipfile.ZipInfo, pixels: np.ndarray) -> None:
    """Writes one image to `pixels`, (64, 64, 3) uint8. Raises UserError naming the member."""
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
    """Writes a JPEG image of the right size to `pixels`, bit by bit as Pillow does, but in a quarter of the time.

    False, with anything in `pixels`, for all that is unusual or not quite sound: Pillow says whether it will do.
    """
    import simplejpeg  # of all jobs only those of rule prepare decode, and only their environment has it

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if (height, width) != (SIZE, SIZE) or colours not in SAME_COLOURS:
            return False
        simplejpeg.decode_jpeg(content, "RGB", buffer=pixels)
    except ValueError:
        return False
    return True
