"""Lays out TinyImageNet's archive as ImageNet comes, to rehearse everything that is done with ImageNet.

    python examples/mini_imagenet.py tiny-imagenet-200.zip data/mini_imagenet --classes 20

Makes ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, of 64 x 64 px. `examples/mini_imagenet.yaml` is the preset.
"""

import sys
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import click


@click.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--classes", type=click.IntRange(min=2), help="Only the first classes, by wnid.")
def main(archive: Path, folder: Path, classes: int | None) -> None:
    """Sorts the images of ARCHIVE into FOLDER by split and class."""
    if folder.exists():
        sys.exit(f"error: {folder}: is there already; delete it, or choose another place")
    with ZipFile(archive) as content:
        images = [PurePosixPath(name) for name in content.namelist() if name.endswith(".JPEG")]
        [annotations] = [name for name in content.namelist() if name.endswith("val/val_annotations.txt")]
        lines = [line.split("\t") for line in content.read(annotations).decode().splitlines()]
        val = {name: wnid for name, wnid, *_ in lines}
        wnids = sorted(set(val.values()))[:classes]
        for image in images:
            split = "train" if "train" in image.parts else "val" if "val" in image.parts else None
            wnid = image.parts[-3] if split == "train" else val.get(image.name)
            if split and wnid in wnids:
                target = folder / split / wnid / image.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read(str(image)))
    click.echo(f"{folder}: {len(wnids)} classes, {sum(1 for _ in folder.rglob('*.JPEG'))} images")


if __name__ == "__main__":
    main()
