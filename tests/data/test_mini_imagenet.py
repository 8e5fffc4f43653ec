"""The example that lays out TinyImageNet as ImageNet comes."""

import subprocess
import sys
from pathlib import Path

from test_tinyimagenet import ROOT, members, write_zip  # noqa: F401

from issl.data.datasets import imagenet
from issl.spec.data import ImageNet

SCRIPT = Path(__file__).parents[2] / "examples/mini_imagenet.py"


def lay_out(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_every_image_is_in_the_folder_of_its_class(tmp_path, members):  # noqa: F811
    folder = tmp_path / "mini"
    done = lay_out(write_zip(tmp_path / "tiny.zip", members), folder)
    assert done.returncode == 0 and done.stdout == f"{folder}: 3 classes, 42 images\n"
    wnid_of = dict(line.split("\t")[:2] for line in members[f"{ROOT}val/val_annotations.txt"].decode().splitlines())
    expected = {}
    for name, content in members.items():
        parts = name.removeprefix(ROOT).split("/")
        if name.endswith(".JPEG") and parts[0] == "train":
            expected[f"train/{parts[1]}/{parts[3]}"] = content
        elif name.endswith(".JPEG") and parts[0] == "val":
            expected[f"val/{wnid_of[parts[2]]}/{parts[2]}"] = content
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.JPEG")} == expected
    listed = imagenet.read(ImageNet(kind="imagenet", path=str(folder)))
    assert listed.splits == {"train": 36, "test": 6} and listed.classes == ["n01", "n02", "n03"]


def test_classes_can_be_limited_and_nothing_is_overwritten(tmp_path, members):  # noqa: F811
    archive, folder = write_zip(tmp_path / "tiny.zip", members), tmp_path / "mini"
    assert lay_out(archive, folder, "--classes", 2).returncode == 0
    assert sorted(path.name for path in (folder / "train").iterdir()) == ["n01", "n02"]
    done = lay_out(archive, folder)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {folder}: is there already")
