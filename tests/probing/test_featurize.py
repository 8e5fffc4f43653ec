"""Features of published weights: torchvision's own pixels through plain modules, and jobs that are killed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from project import PROJECT
from small_hub import small
from torchvision.transforms import v2

from issl import hub
from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs import fingerprint
from issl.jobs.execution import Execution
from issl.probing import shards
from issl.probing.featurize import featurize
from issl.spec.protocol import Encoding

CPU = Execution(device="cpu", precision="32")


def features(encoding, folder, out, workers=0):
    featurize(encoding, folder, out, workers, CPU)
    n = len(read(folder).labels)
    return shards.Features(out, n, torch.device("cpu"), 1)(torch.arange(n))


def plain_pixels(encoding, folder):
    """The input of the encoder as a hub user makes it: Pillow and torchvision."""
    preprocess = hub.preprocessing(v2.Resize(encoding.resize), v2.CenterCrop(encoding.crop))
    root = Path(encoding.data.path)
    return torch.stack([preprocess(Image.open(root / name.decode())) for name in read(folder).images])


@torch.no_grad()
@pytest.mark.parametrize("weights", ["plain", "expanded"])
@pytest.mark.parametrize("workers", [0, 2])
def test_features_equal_a_hub_users_image_by_image(models, listed, encoding, tmp_path, weights, workers):
    z = features(encoding(weights), listed[0], tmp_path / "features", workers)
    expected = small(weights)(plain_pixels(encoding(weights), listed[0]))
    # Resampling differs from Pillow's by a level of 255 here and there.
    assert (z - expected).norm(dim=1).max() < 0.01 * expected.norm(dim=1).mean()
    assert expected.std(0).mean() > 0.1 * expected.abs().mean(), "features that hardly differ would show nothing"


@torch.no_grad()
def test_trunk_features_are_the_input_of_the_expanding_head(models, listed, encoding, tmp_path):
    z = features(encoding("expanded", layer="trunk"), listed[0], tmp_path / "features")
    seen = []
    encoder = small("expanded")
    encoder.resizer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    encoder(plain_pixels(encoding("expanded"), listed[0]))
    expected = seen[0].mean(dim=(2, 3))
    assert z.shape == (48, 64)
    assert (z - expected).norm(dim=1).max() < 0.01 * expected.norm(dim=1).mean()


@torch.no_grad()
def test_batch_norm_in_train_mode_uses_each_batch_of_a_split(models, listed, encoding, tmp_path):
    z = features(encoding(batch_norm="train"), listed[0], tmp_path / "features")
    pixels = plain_pixels(encoding(), listed[0])
    batches = [*pixels[:36].split(8), *pixels[36:].split(8)]  # no batch holds images of both splits
    expected = torch.cat([small("plain").train()(batch) for batch in batches])
    assert (z - expected).norm(dim=1).max() < 0.05 * expected.norm(dim=1).mean()
    evaluated = small("plain")(pixels)
    assert (z - evaluated).norm(dim=1).min() > 0.1 * expected.norm(dim=1).mean(), "the modes must differ"


@torch.no_grad()
def test_arrays_in_memory_are_resized(models, synthetic_arrays, tmp_path):
    folder, spec = synthetic_arrays
    encoding = Encoding(weights="plain", data=spec, resize=40, crop=32)
    z = features(encoding, folder, tmp_path / "features")
    preprocess = hub.preprocessing(v2.Resize(40), v2.CenterCrop(32))
    expected = small("plain")(torch.stack([preprocess(Image.fromarray(image)) for image in read(folder).images]))
    assert (z - expected).norm(dim=1).max() < 0.01 * expected.norm(dim=1).mean()


def test_features_record_their_provenance(models, listed, encoding, tmp_path):
    import json

    features(encoding(), listed[0], tmp_path / "features")
    about = json.loads((tmp_path / "features.json").read_text())
    assert about["encoding"]["weights"] == "plain" and about["precision"] == "32"
    assert about["data"] == read(listed[0]).meta["sha256"]
    assert about["code"] == fingerprint.current("featurize_weights")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "features",
        "features.json",
    ]


# --- jobs that are killed, disks that are full ---

KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from issl.probing import shards
from issl.probing.featurize import featurize
from issl.spec.protocol import Encoding
from issl.jobs.execution import Execution
from issl.spec.encoder import Encoder
from issl.spec.released import MODELS, Model
from issl import hub
from small_hub import PLAIN, small
MODELS["plain"] = Model(PLAIN, 1, "m2", "nowhere")
hub.load = small
shards.ROWS = 8
write, made = shards.write, []
def dying(*arguments):
    if len(made) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
    made.append(1)
shards.write = dying
encoding = Encoding.model_validate_json(sys.argv[1])
featurize(encoding, Path(sys.argv[2]), Path(sys.argv[3]), 0, Execution(device="cpu", precision="32"))
"""


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_a_killed_job_resumes_to_bit_identical_features(models, listed, encoding, tmp_path, monkeypatch, batch_norm):
    monkeypatch.setattr(shards, "ROWS", 8)
    asked = encoding(batch_norm=batch_norm)
    at_once = features(asked, listed[0], tmp_path / "at_once")
    out = tmp_path / "killed"
    spec = asked.model_dump_json(exclude={"data"}).rstrip("}") + f', "data": {listed[1].model_dump_json()[:-1]}'
    spec += f', "path": "{listed[1].path}"}}}}'
    arguments = [sys.executable, "-c", KILLED, spec, str(listed[0]), str(out)]
    root = f"{PROJECT}:{Path(__file__).parent}"
    done = subprocess.run(arguments, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists() and len(list((tmp_path / "killed.part").glob("*.npy"))) == 2

    written, write = [], shards.write
    monkeypatch.setattr(shards, "write", lambda *arguments: written.append(1) or write(*arguments))
    assert torch.equal(features(asked, listed[0], out), at_once)
    assert len(written) == 7 - 2, "36 training images and 12 test images are 5 and 2 shards"
    assert not (tmp_path / "killed.part").exists()


def test_shards_of_other_settings_are_remade(models, listed, encoding, tmp_path, monkeypatch):
    part = tmp_path / "features.part"
    shards.begin(part, {"encoding": "another"})
    shards.write(part, 0, np.zeros((36, 64), np.float16))
    z = features(encoding(), listed[0], tmp_path / "features")
    assert z[:36].abs().sum() > 0


def test_a_full_disk_is_one_line_before_any_work(models, listed, encoding, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 100, 6000))
    monkeypatch.setattr(hub, "load", lambda name: pytest.fail("work began"))
    with pytest.raises(UserError, match=r"no room for features: 0\.0 GB are needed, 0\.0 GB are free on that disk"):
        features(encoding(), listed[0], tmp_path / "features")


def test_a_corrupt_photograph_is_named(models, photographs, encoding, tmp_path):
    from issl import data
    from issl.spec.data import ImageNet

    root = tmp_path / "photographs"
    shutil.copytree(photographs, root)
    (root / "val/n1/02.png").write_bytes(b"not an image")
    spec = ImageNet(kind="imagenet", path=str(root))
    data.prepare(spec, tmp_path / "list", progress=False)
    with pytest.raises(UserError, match=r"val/n1/02\.png: not an image that can be decoded"):
        features(encoding(data=spec), tmp_path / "list", tmp_path / "features")


def test_moved_photographs_are_reported(models, listed, encoding, tmp_path):
    moved = encoding(data=listed[1].model_copy(update={"path": str(tmp_path / "elsewhere")}))
    with pytest.raises(UserError, match="elsewhere: the images are not there: set `path` of this data set"):
        features(moved, listed[0], tmp_path / "features")


MEASURED = """
import resource, sys
from pathlib import Path
from issl import data, hub
from issl.jobs.execution import Execution
from issl.probing import shards
from issl.probing.featurize import featurize
from issl.spec.protocol import Encoding
from issl.spec.released import MODELS, Model
from issl.spec.encoder import Encoder
from issl.spec.data import Synthetic
from small_hub import small
wide = Encoder(arch="resnet10", width=4, dim=8192, head="expand", bottleneck=8)
MODELS["wide"] = Model(wide, 1, "m2", "nowhere")
hub.load = small
shards.ROWS = 128
spec = Synthetic(kind="synthetic", classes=4, train_per_class=int(sys.argv[1]), test_per_class=8, image_size=8)
folder = Path(sys.argv[2])
data.prepare(spec, folder / "data", progress=False)
encoding = Encoding(weights="wide", data=spec, resize=32, crop=32, batch_size=64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
featurize(encoding, folder / "data", folder / "features", 0, Execution(device="cpu", precision="32"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    def peak(images):
        arguments = [sys.executable, "-c", MEASURED, str(images // 4), str(tmp_path / str(images))]
        root = f"{PROJECT}:{Path(__file__).parent}"
        environment = os.environ | {"PYTHONPATH": root}
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert peak(1536) - peak(256) < 10  # MB; their features are 25 and 4 MB
