"""The hub: released weights over HTTP, our own runs, torch.hub; the truth is torchvision's ResNet-50."""

import dataclasses
import hashlib
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from project import PROJECT
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torchvision import transforms
from torchvision.models import resnet50
from torchvision.transforms import v2
from web import serving

import hubconf
from issl import data, hub
from issl.data.datasets import READERS
from issl.errors import UserError
from issl.jobs.execution import Execution
from issl.models import encoders, preprocessing
from issl.probing.encoders import representation
from issl.spec.data import ImageFolder
from issl.spec.encoding import Encoding
from issl.spec.run import RunSpec
from issl.training.pretrain import pretrain
from issl.views import augment

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
# name -> dimension, tensors, epochs, views: the table of the authors' README
RELEASED = {
    "dissl_resnet50_dNone_e100_m2": (2048, 318, 100, "m2"),
    "dissl_resnet50_d8192_e100_m2": (8192, 336, 100, "m2"),
    "dissl_resnet50_d8192_e100_m6": (8192, 336, 100, "m6"),
    "dissl_resnet50_dNone_e400_m2": (2048, 318, 400, "m2"),
    "dissl_resnet50_dNone_e400_m6": (2048, 318, 400, "m6"),
    "dissl_resnet50_d8192_e400_m6": (8192, 336, 400, "m6"),
    "dissl_resnet50_d8192_e800_m8": (8192, 336, 800, "m8"),
}
# and those that came with the paper on the decomposition of risk (SSL-Risk-Decomposition, v0.1)
LATER = {
    "dissl_resnet50_d4096_e100_m2": (4096, 336, 100, "m2"),
    **{
        f"dissl_resnet50_dNone_e100_m2_{variant}": (2048, 318, 100, "m2")
        for variant in ("augSmall", "augLarge", "headTLinSLin", "headTMlpSMlp")
    },
}
VARIANTS = {
    **{"augSmall": ", weaker augmentation", "augLarge": ", stronger augmentation"},
    **{"headTLinSLin": ", linear teacher", "headTMlpSMlp": ", MLP student"},
}
FIRST, SECOND = (
    "Invariant-Self-Supervised-Learning/releases/download/v1.0.0-alpha",
    "SSL-Risk-Decomposition/releases/download/v0.1",
)
EVERY = RELEASED | LATER
SMALL, LARGE = "dissl_resnet50_dNone_e100_m2", "dissl_resnet50_d8192_e400_m6"


class Expansion(nn.Module):
    """The expanding block as the paper's code computes it, (n, 2048, h, w) -> (n, dim, h, w)."""

    def __init__(self, dim):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2048, 512, 1, bias=False), nn.BatchNorm2d(512)
        self.conv2, self.bn2 = nn.Conv2d(512, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512)
        self.conv3, self.bn3 = nn.Conv2d(512, dim, 1, bias=False), nn.BatchNorm2d(dim)
        self.copies = dim // 2048

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + torch.cat([x] * self.copies, dim=1))


def theirs(dim):
    """torchvision's ResNet-50 as the authors' hub changes it, with statistics that matter: images -> (n, dim)."""
    torch.manual_seed(dim)
    model = resnet50()
    model.fc = nn.Identity()
    if dim > 2048:
        model.avgpool = nn.Sequential(Expansion(dim), model.avgpool)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1), nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1), nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def published(state):
    """The names in the released files."""
    return {key.replace("avgpool.0.", "resizer."): tensor for key, tensor in state.items()}


def skeleton(dim):
    """A released state dict in a few kilobytes: each tensor is one number, seen in its full shape."""
    with torch.device("meta"):
        state = published(theirs(dim).state_dict())
    return {
        key: torch.full((), number % 7, dtype=tensor.dtype).expand(tensor.shape)
        for number, (key, tensor) in enumerate(state.items())
    }


@pytest.fixture(scope="session")
def skeletons():
    return {dim: skeleton(dim) for dim in (2048, 4096, 8192)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Folder of torch's cache for weights, not there yet; emptied at the end, as files are large."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("ISSL_HUB_URL", raising=False)
    yield tmp_path / "torch/hub/checkpoints"
    shutil.rmtree(tmp_path / "torch", ignore_errors=True)


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch, cache):
    """Serves `server.folder` as a mirror of the release; `server.asked` notes each request."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(partial(Handler, directory=folder)) as server:
        server.folder = folder
        monkeypatch.setenv("ISSL_HUB_URL", f"{server.url}/")
        yield server
    shutil.rmtree(folder)


def refusal(*arguments, **options):
    with pytest.raises(UserError) as error:
        hub.load(*arguments, **options)
    line = str(error.value)
    assert "\n" not in line
    return line


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


# --- released models ---


def test_the_models_equal_those_of_both_releases():
    assert list(hub.MODELS) == list(EVERY)
    for name, (dim, _, epochs, views) in EVERY.items():
        model = hub.MODELS[name]
        assert (model.encoder.arch, model.encoder.dim, model.epochs, model.views) == ("resnet50", dim, epochs, views)
        assert model.encoder.head == ("none" if dim == 2048 else "expand")
        assert model.url == f"https://github.com/YannDubs/{FIRST if name in RELEASED else SECOND}/{name}.torch"
        with pytest.raises(dataclasses.FrozenInstanceError):
            model.md5 = "0"


@pytest.mark.parametrize("name", EVERY)
def test_each_is_downloaded_and_loaded_strictly(server, cache, skeletons, name):
    dim, tensors, _, _ = EVERY[name]
    torch.save(skeletons[dim], server.folder / f"{name}.torch")
    encoder = hub.load(name, progress=False)
    state = encoder.state_dict()
    assert len(state) == tensors and state.keys() == skeletons[dim].keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in skeletons[dim].items())
    assert encoder.dim == dim
    assert not any(module.training for module in encoder.modules())
    assert server.asked == [f"/{name}.torch"]
    assert files(cache) == [f"{name}.torch"]


@pytest.mark.parametrize("dim", [2048, 8192])
def test_the_forward_pass_equals_torchvisions(server, dim):
    """Files of full size, 90 and 119 MB."""
    model, name = theirs(dim), SMALL if dim == 2048 else LARGE
    file = server.folder / f"{name}.torch"
    torch.save(published(model.state_dict()), file)
    assert file.stat().st_size > (90e6 if dim == 2048 else 119e6)
    encoder = hub.load(name, progress=False)
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(300, 260, 3), dtype=np.uint8))
    images = torch.stack([encoder.preprocess(image), encoder.preprocess(image.rotate(90))])
    with torch.no_grad():
        expected, z = model(images), encoder(images)
    assert z.shape == (2, dim) and expected.std() > 0.01
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(z[0], z[1], rtol=1e-2)


def test_the_authors_spelling_of_names_is_accepted(cache, skeletons):
    cache.mkdir(parents=True)
    spelt = {key.replace("resizer.", "avgpool.0."): tensor for key, tensor in skeletons[8192].items()}
    assert sum(key.startswith("avgpool.0.") for key in spelt) == 18
    torch.save(spelt, cache / f"{LARGE}.torch")
    state = hub.load(LARGE).state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in skeletons[8192].items())

    torch.save(skeletons[8192] | spelt, cache / f"{LARGE}.torch")
    assert "18 surplus (avgpool.0.conv1.weight, " in refusal(LARGE)


def test_new_weights_need_no_file(cache):
    torch.manual_seed(0)
    encoder = hub.load(SMALL, pretrained=False)
    assert encoder.dim == 2048 and not encoder.training
    assert encoder.conv1.weight.std() > 0
    assert not cache.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("bn1.bias"), "not the 318 tensors of this encoder: 1 missing (bn1.bias)"),
        (lambda state: state.update({"fc.bias": torch.zeros(1000)}), "1 surplus (fc.bias)"),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
            "1 of another shape (conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7))",
        ),
    ],
    ids=["missing", "surplus", "shape"],
)
def test_weights_that_do_not_fit_are_refused_by_name(cache, skeletons, change, says):
    cache.mkdir(parents=True)
    state = dict(skeletons[2048])
    change(state)
    torch.save(state, cache / f"{SMALL}.torch")
    line = refusal(SMALL)
    assert line.startswith(f"{cache / SMALL}.torch: ") and says in line


def test_weights_of_the_other_dimension_are_refused_by_name(cache, skeletons):
    cache.mkdir(parents=True)
    torch.save(skeletons[2048], cache / f"{LARGE}.torch")
    torch.save(skeletons[8192], cache / f"{SMALL}.torch")
    assert "18 missing (resizer.conv1.weight, resizer.bn1.weight, resizer.bn1.bias, ...)" in refusal(LARGE)
    assert "18 surplus (resizer.conv1.weight, " in refusal(SMALL)


def test_an_unknown_name_suggests_the_nearest():
    assert "did you mean 'dissl_resnet50_d8192_e400_m6'?" in refusal("dissl_resnet50_d8192_e400m6")
    assert "allowed: dissl_resnet50_d4096_e100_m2, " in refusal("resnet")


# --- downloading ---


def test_without_a_network_the_error_says_which_file_to_put_where(cache, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("ISSL_HUB_URL", url)
    line = refusal(SMALL, progress=False)
    for words in (
        f"{url}/{SMALL}.torch: ",
        "Connection refused",
        f"download it by hand and save it as {cache / SMALL}.to",
    ):
        assert words in line
    assert files(cache) == []


def test_without_a_mirror_the_release_is_downloaded(cache, monkeypatch):
    asked = []

    def fetch(url, path, md5, progress):
        asked.append((url, path, md5, progress))
        raise UserError("no network")

    monkeypatch.setattr("issl.jobs.download.fetch", fetch)
    refusal(SMALL, progress=False)
    assert asked == [(hub.MODELS[SMALL].url, cache / f"{SMALL}.torch", None, False)]


def test_a_file_missing_from_the_server_is_named(server, cache):
    line = refusal(SMALL, progress=False)
    assert f"{server.url}/{SMALL}.torch: the server answers 404" in line and str(cache / f"{SMALL}.torch") in line
    assert files(cache) == []


def test_a_cached_file_is_used_without_network_or_writes(server, cache, skeletons):
    cache.mkdir(parents=True)
    torch.save(skeletons[2048], cache / f"{SMALL}.torch")
    assert hub.load(SMALL).dim == 2048
    assert server.asked == []
    assert [path.name for path in cache.iterdir()] == [f"{SMALL}.torch"]  # no lock: the folder may be read-only


def test_a_known_checksum_is_verified(server, cache, skeletons, monkeypatch):
    file = server.folder / f"{SMALL}.torch"
    torch.save(skeletons[2048], file)
    model = hub.MODELS[SMALL]
    monkeypatch.setitem(hub.MODELS, SMALL, dataclasses.replace(model, md5="0" * 32))
    assert f"not {'0' * 32}" in refusal(SMALL, progress=False)
    assert files(cache) == []
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(hub.MODELS, SMALL, dataclasses.replace(model, md5=md5))
    assert hub.load(SMALL, progress=False).dim == 2048


# --- preprocessing ---


@pytest.mark.parametrize("size", [(300, 260), (224, 500), (32, 32)])
def test_preprocessing_equals_torchvisions(size):
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8))
    usual = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    out = hub.load(SMALL, pretrained=False).preprocess(image)
    assert type(out) is torch.Tensor and out.shape == (3, 224, 224)
    torch.testing.assert_close(out, usual(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_preprocessing_scales_16_bit_grey_to_8_bits(mode):
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    image = Image.fromarray(values).convert("I").convert("I;16") if mode == "I;16" else Image.fromarray(values)
    if mode == "I;16B":
        image = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    plain = Image.fromarray((values.astype(np.float64) / 65535 * 255).round().astype(np.uint8))
    preprocess = preprocessing.preprocessing()
    assert torch.equal(preprocess(image), preprocess(plain)) and preprocess(plain).std() > 0.5


@pytest.mark.parametrize("mode", ["I", "F"])
def test_preprocessing_refuses_values_without_a_range(mode):
    with pytest.raises(UserError, match=f"a PIL image of mode {mode}: scale its values to 8 bits first"):
        preprocessing.preprocessing()(Image.new(mode, (8, 8), 300))


def test_preprocessing_accepts_images_of_every_mode():
    preprocess = preprocessing.preprocessing(v2.Resize(40), v2.CenterCrop(32))
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(50, 60), dtype=np.uint8))
    expected = preprocess(image.convert("RGB"))
    for mode in ("L", "LA", "RGBA", "P"):
        torch.testing.assert_close(preprocess(image.convert(mode)), expected)
    batch = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).expand(2, 3, 50, 60)
    out = preprocess(batch)
    assert out.shape == (2, 3, 32, 32)
    torch.testing.assert_close(out[0], expected, rtol=0, atol=0.02)  # a level of 255: PIL and torch round apart


# --- our own runs ---


@pytest.fixture(scope="module")
def own(tmp_path_factory, synthetic):
    """Folder and settings of a finished run of two epochs."""
    run = RunSpec.model_validate(
        {
            "data": json.loads((synthetic / "meta.json").read_text())["spec"],
            "objective": {"name": "cissl", "hidden": 32, "out": 16},
            "encoder": {"arch": "resnet10", "width": 8, "head": "expand", "dim": 128, "bottleneck": 16},
            "optim": {"epochs": 2, "batch_size": 32, "warmup_epochs": 1},
        }
    )
    folder = tmp_path_factory.mktemp("own") / "s1"
    pretrain(run, 1, synthetic, folder, Execution(device="cpu", progress=False))
    return folder, run


@pytest.mark.parametrize("kind", [str, Path])
def test_an_own_run_gives_the_features_of_its_probes(own, synthetic, kind):
    folder, run = own
    encoder = hub.load(kind(folder))
    assert encoder.dim == 128 and not any(module.training for module in encoder.modules())
    arrays = data.read(synthetic)
    images = torch.from_numpy(arrays.images[:6].copy()).permute(0, 3, 1, 2)
    plain = encoders.build(run.encoder, 16).eval()
    plain.load_state_dict(load_file(folder / "encoder.safetensors"))
    with torch.no_grad():
        expected = plain(augment.clean(images))
        probed = representation(str(folder), Encoding(data=run.data, resize=16, crop=16))
        torch.testing.assert_close(probed(augment.clean(images)), expected, rtol=0, atol=0)
        one_by_one = torch.stack([encoder.preprocess(Image.fromarray(image)) for image in arrays.images[:6]])
        torch.testing.assert_close(encoder(one_by_one), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(encoder.preprocess(images)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(90, 90), (90, 130), (131, 90), (10, 12), (16, 16)])
def test_an_own_run_prepares_images_as_its_data_set_does(own, tmp_path, size):
    """Squares equally; else to 2 levels of 255 on noise, as the data set's crop may end within a pixel.

    Scaling before cropping would be off by more than 6 levels.
    """
    pixels = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / split / "a/1.png")
    content = READERS["folder"](ImageFolder(kind="folder", name="f", image_size=16, path=str(tmp_path)))
    prepared = augment.clean(torch.from_numpy(content.open()(0, 1)).permute(0, 3, 1, 2))[0]
    ours = hub.load(own[0]).preprocess(Image.fromarray(pixels))
    assert ours.shape == (3, 16, 16)
    if size[0] == size[1]:
        torch.testing.assert_close(ours, prepared)
    assert (ours - prepared).abs().mean() * 0.226 * 255 < 2


def test_an_own_run_can_be_loaded_with_new_weights(own):
    torch.manual_seed(0)
    new, old = hub.load(own[0], pretrained=False), hub.load(own[0])
    assert new.state_dict().keys() == old.state_dict().keys()
    assert not torch.equal(new.conv1.weight, old.conv1.weight)


def test_a_run_of_an_older_version_says_what_its_encoder_looks_like_in_its_settings_alone(own, tmp_path):
    folder, run = own
    file = tmp_path / "encoder.safetensors"
    save_file(load_file(folder / "encoder.safetensors"), file, metadata={"spec": run.canonical(), "seed": "1"})
    old, new = hub.load(file), hub.load(folder)
    assert old.dim == 128 and all(
        torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values())
    )
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8))
    assert torch.equal(old.preprocess(image), new.preprocess(image))


def test_weights_are_loaded_without_what_reads_settings_or_downloads(own, cache, skeletons):
    """For users who have torch, torchvision, safetensors and Pillow alone."""
    cache.mkdir(parents=True)
    torch.save(skeletons[2048], cache / f"{SMALL}.torch")
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(own[0]), SMALL], cwd=PROJECT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["128", "2048"]


BARE = """
import sys
sys.modules |= dict.fromkeys(("click", "filelock", "pydantic", "pytorch_lightning", "sklearn", "snakemake", "yaml"))
from issl import hub
for name in sys.argv[1:]:
    print(hub.load(name).dim)
"""


def test_a_folder_that_is_not_a_run_is_one_line(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: not the folder of a finished run: it has no encoder.safetensors"
    assert "neither a released model nor a folder" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        (None, "does not name its run"),
        ({"spec": "{"}, "does not name its run"),
        ({"spec": '{"data": {"kind": "synthetic"}, "optm": {}}'}, "spec: optm: unknown key, did you mean 'optim'?"),
        (
            {"spec": '{"data": {"kind": "synthetic"}, "objective": {"name": "simclr"}}'},
            "not the 120 tensors of this encoder: 119 missing (conv1.weight, bn1.weight, bn1.bias, ...)",
        ),
        ({"encoder": "{", "image_size": "16"}, "invalid metadata"),
        ({"encoder": '{"arch": "resnet10", "dim": 64, "depth": 3}', "image_size": "16"}, "'depth'"),
        ({"encoder": '{"arch": "resnet10", "dim": 64}'}, "invalid metadata ('image_size')"),
    ],
)
def test_weights_that_belong_to_no_run_are_one_line(tmp_path, notes, says):
    save_file({"bn1.running_mean": torch.zeros(64)}, tmp_path / "encoder.safetensors", metadata=notes)
    line = refusal(tmp_path)
    assert line.startswith(f"{tmp_path}/encoder.safetensors: ") and says in line


def test_damaged_weights_of_a_run_are_one_line(own, tmp_path):
    file = tmp_path / "encoder.safetensors"
    file.write_bytes((own[0] / "encoder.safetensors").read_bytes()[:-100])
    assert refusal(tmp_path).startswith(f"{file}: cannot be read")


# --- torch.hub ---

USER = """
import json, sys, torch
repository, full, *names = sys.argv[1:]
options = dict(source="local", progress=False)
dims = {}
for name in names:
    encoder = torch.hub.load(repository, name, pretrained=False, **options)
    assert not encoder.training
    dims[name] = encoder.dim
encoder = torch.hub.load(repository, full, **options)
with torch.no_grad():
    z = encoder(encoder.preprocess(torch.zeros(1, 3, 300, 300, dtype=torch.uint8)))
import issl
print(json.dumps({"dims": dims, "z": list(z.shape), "bias": encoder.bn1.bias.tolist(), "issl": issl.__file__,
    "heavy": sorted({"pytorch_lightning", "snakemake", "pandas", "matplotlib", "wandb"} & sys.modules.keys())}))
"""


def test_hubconf_offers_the_models_and_nothing_else():
    offered = [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")]
    assert sorted(offered) == sorted(EVERY)  # what torch.hub.list shows
    for name in offered:
        signature = inspect.signature(getattr(hubconf, name))
        assert [(each.name, each.default) for each in signature.parameters.values()] == [
            ("pretrained", True),
            ("progress", True),
        ]
        dim, _, epochs, views = EVERY[name]
        crops = {"m2": "2x224", "m6": "2x160 + 4x96", "m8": "2x224 + 6x96"}[views]
        assert getattr(hubconf, name).__doc__ == (
            f"DISSL, {dim} dimensions, {epochs} epochs, views {crops} px{VARIANTS.get(name.split('_m2_')[-1], '')}."
        )


@pytest.mark.slow
def test_torch_hub_loads_from_a_local_clone(server, skeletons, tmp_path):
    torch.save(skeletons[8192], server.folder / f"{LARGE}.torch")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, "-c", USER, PROJECT, LARGE, *EVERY]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["dims"] == {name: facts[0] for name, facts in EVERY.items()}
    assert said["z"] == [1, 8192]
    assert said["bias"] == skeletons[8192]["bn1.bias"].tolist()
    assert said["issl"] == str(PROJECT / "issl/__init__.py")
    assert said["heavy"] == []
