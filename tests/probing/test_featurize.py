"""Features: torchvision's own pixels through plain modules, and jobs that are killed."""

import json
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
from safetensors.torch import save_file
from small_hub import PLAIN, small
from torchvision.transforms import v2

from issl import hub
from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs import fingerprint
from issl.jobs.execution import Execution
from issl.models import encoders, preprocessing
from issl.probing import images, shards
from issl.probing.featurize import featurize
from issl.spec.encoding import Encoding
from issl.spec.objective import SimCLR
from issl.spec.run import RunSpec, file_notes
from issl.views import augment
from issl.views.augment import MEAN, STD

CPU = Execution(device="cpu", precision="32")


def features(encoding, folder, out, encoder="plain", workers=0):
    featurize(encoder, encoding, folder, out, workers, CPU)
    n = len(read(folder).labels)
    return shards.Features(out, n, torch.device("cpu"), 1)(torch.arange(n))


def plain_pixels(encoding, folder):
    """The input of the encoder as a hub user makes it: Pillow and torchvision."""
    preprocess = preprocessing.preprocessing(v2.Resize(encoding.resize), v2.CenterCrop(encoding.crop))
    root = Path(encoding.data.path)
    return torch.stack([preprocess(Image.open(root / name.decode())) for name in read(folder).images])


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["plain", "expanded"])
@pytest.mark.parametrize("workers", [0, 2])
def test_features_equal_a_hub_users_image_by_image(models, listed, encoding, tmp_path, encoder, workers):
    z = features(encoding(), listed[0], tmp_path / "features", encoder, workers)
    expected = small(encoder)(plain_pixels(encoding(), listed[0]))
    # Resampling differs from Pillow's by a level of 255 here and there.
    assert (z - expected).norm(dim=1).max() < 0.01 * expected.norm(dim=1).mean()
    assert expected.std(0).mean() > 0.1 * expected.abs().mean(), "features that hardly differ would show nothing"


@torch.no_grad()
def test_trunk_features_are_the_input_of_the_expanding_head(models, listed, encoding, tmp_path):
    z = features(encoding(layer="trunk"), listed[0], tmp_path / "features", "expanded")
    seen = []
    encoder = small("expanded")
    encoder.resizer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    encoder(plain_pixels(encoding(), listed[0]))
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
    encoding = Encoding(data=spec, resize=40, crop=32)
    z = features(encoding, folder, tmp_path / "features")
    preprocess = preprocessing.preprocessing(v2.Resize(40), v2.CenterCrop(32))
    expected = small("plain")(torch.stack([preprocess(Image.fromarray(image)) for image in read(folder).images]))
    assert (z - expected).norm(dim=1).max() < 0.01 * expected.norm(dim=1).mean()


@torch.no_grad()
def test_arrays_of_the_asked_size_are_taken_as_they_are(models, synthetic_arrays, tmp_path, monkeypatch):
    folder, spec = synthetic_arrays
    monkeypatch.setattr(images, "central_squares", lambda *_: pytest.fail("an image was resized"))
    z = features(Encoding(data=spec, resize=16, crop=16, batch_size=7), folder, tmp_path / "features")
    pixels = torch.from_numpy(np.array(read(folder).images)).permute(0, 3, 1, 2) / 255
    clean = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(z, small("plain")(clean), rtol=1e-3, atol=1e-4)  # they are kept in float16


def test_resizing_arrays_to_their_own_size_would_change_nothing(synthetic_arrays):
    folder, spec = synthetic_arrays
    arrays, encoding = read(folder), Encoding(data=spec, resize=16, crop=16)
    [squares] = images.batches(arrays, encoding, range(60), 0)
    assert torch.equal(squares, images.central_squares(arrays.images, encoding))


def test_features_record_their_provenance(models, listed, encoding, tmp_path):
    features(encoding(), listed[0], tmp_path / "features")
    about = json.loads((tmp_path / "features.json").read_text())
    assert (about["encoder"], about["precision"]) == ("plain", "32") and about["seconds"] > 0
    assert about["encoding"] == json.loads(encoding().canonical())
    assert about["data"] == read(listed[0]).meta["sha256"]
    assert about["code"] == fingerprint.current(
        "featurize", "issl.models.encoders", "issl.spec.encoder:ResNet", "issl.spec.data:ImageNet"
    )
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
from issl.spec.encoding import Encoding
from issl.jobs.execution import Execution
from issl.spec.encoder import ResNet
from issl.spec.released import MODELS, Model
from issl import hub
from small_hub import PLAIN, small
MODELS["plain"] = Model(PLAIN, 1, "m2", "nowhere")
hub.network = small
shards.ROWS = 8
write, made = shards.write, []
def dying(*arguments):
    if len(made) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
    made.append(1)
shards.write = dying
encoding = Encoding.model_validate_json(sys.argv[1])
featurize("plain", encoding, Path(sys.argv[2]), Path(sys.argv[3]), 0, Execution(device="cpu", precision="32"))
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


def test_shards_of_other_settings_are_remade(models, listed, encoding, tmp_path):
    part = tmp_path / "features.part"
    shards.begin(part, {"encoding": "another"})
    shards.write(part, 0, np.zeros((36, 64), np.float16))
    z = features(encoding(), listed[0], tmp_path / "features")
    assert z[:36].abs().sum() > 0


def test_shards_of_the_same_run_pretrained_again_are_remade(synthetic_arrays, tmp_path):
    """Its folder has the same name, and other weights."""
    folder, spec = synthetic_arrays
    run = RunSpec(data=spec, objective=SimCLR(name="simclr"), encoder=PLAIN)
    encoding, weights = Encoding(data=spec, resize=16, crop=16), tmp_path / "s0/encoder.safetensors"

    def pretrained(seed):
        torch.manual_seed(seed)
        encoder = encoders.build(PLAIN, 16).eval()
        weights.parent.mkdir(exist_ok=True)
        save_file(encoder.state_dict(), weights, metadata=file_notes(run, 0))
        return encoder

    pretrained(0)
    features(encoding, folder, tmp_path / "features", str(weights.parent))
    (tmp_path / "features").rename(tmp_path / "features.part")  # as if the job had died before its last step
    encoder = pretrained(1)
    z = features(encoding, folder, tmp_path / "features", str(weights.parent))
    clean = augment.clean(torch.from_numpy(np.array(read(folder).images)).permute(0, 3, 1, 2))
    with torch.no_grad():
        torch.testing.assert_close(z, encoder(clean), rtol=1e-3, atol=1e-3)


def test_features_that_are_there_are_not_made_again(models, listed, encoding, tmp_path, monkeypatch):
    """Another process made them while this one waited for its lock."""
    first = features(encoding(), listed[0], tmp_path / "features")
    monkeypatch.setattr(hub, "network", lambda name: pytest.fail("work began"))
    assert torch.equal(features(encoding(), listed[0], tmp_path / "features"), first)


def test_an_encoder_that_is_refused_leaves_nothing_behind(synthetic_arrays, tmp_path):
    folder, spec = synthetic_arrays
    run = RunSpec(data=spec, objective=SimCLR(name="simclr"), encoder=PLAIN)
    (tmp_path / "s0").mkdir()
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "s0/encoder.safetensors", metadata=file_notes(run, 0))
    with pytest.raises(UserError, match="not the 72 tensors of this encoder: 71 missing"):
        features(Encoding(data=spec, resize=16, crop=16), folder, tmp_path / "features", str(tmp_path / "s0"))
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["s0"]


def test_a_feature_beyond_float16_is_refused(models, listed, encoding, tmp_path, monkeypatch):
    class Exploding(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * 1e6

    monkeypatch.setattr(hub, "network", lambda name: Exploding())
    with pytest.raises(UserError, match=r"plain: features of images from row 0 on are not finite in float16"):
        features(encoding(), listed[0], tmp_path / "features")


def test_a_full_disk_is_one_line_before_any_work(models, listed, encoding, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 100, 6000))
    monkeypatch.setattr(hub, "network", lambda name: pytest.fail("work began"))
    with pytest.raises(UserError, match=r"features need 0\.0 GB, but only 0\.0 GB are free on that disk"):
        features(encoding(), listed[0], tmp_path / "features")


def test_a_corrupt_photograph_is_named(models, photographs, encoding, tmp_path):
    from issl import data
    from issl.spec.data import ImageNet

    root = tmp_path / "photographs"
    shutil.copytree(photographs, root)
    (root / "val/n1/02.png").write_bytes(b"not an image")
    spec = ImageNet(kind="imagenet", path=str(root))
    data.prepare(spec, tmp_path / "list", progress=False)
    with pytest.raises(UserError, match=r"val/n1/02\.png: cannot be decoded as an image"):
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
from issl.spec.encoding import Encoding
from issl.spec.released import MODELS, Model
from issl.spec.encoder import ResNet
from issl.spec.data import Synthetic
from small_hub import small
wide = ResNet(arch="resnet10", width=4, dim=8192, head="expand", bottleneck=8)
MODELS["wide"] = Model(wide, 1, "m2", "nowhere")
hub.network = small
shards.ROWS = 128
spec = Synthetic(kind="synthetic", classes=4, train_per_class=int(sys.argv[1]), test_per_class=8, image_size=8)
folder = Path(sys.argv[2])
data.prepare(spec, folder / "data", progress=False)
encoding = Encoding(data=spec, resize=32, crop=32, batch_size=64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
featurize("wide", encoding, folder / "data", folder / "features", 0, Execution(device="cpu", precision="32"))
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
