"""Pretrained encoders by name or folder: those that the authors released, and those of our own runs.

An encoder comes in eval mode, with `preprocess`, which makes its input from an image, and `dim`, the dimension of its
representation. The released ones are DISSL ResNet-50 on ImageNet (Dubois et al. 2022, the table in their README).
"""

import json
import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from issl.config.validation import validate
from issl.data.download import fetch
from issl.errors import UserError, nearest
from issl.models import encoders, weights
from issl.spec.released import MODELS, Model
from issl.spec.run import RunSpec
from issl.views.augment import MEAN, STD

MIRROR = "ISSL_HUB_URL"  # environment: where the files lie instead, for machines that do not reach the release
RESIZE, CROP = 256, 224  # px, of the released models
WEIGHTS = "encoder.safetensors"  # in the folder of a run, and of an exported one


def load(model: str | Path, pretrained: bool = True, progress: bool = True) -> nn.Module:
    """The encoder `model` in eval mode: images (n, 3, H, W) -> representations (n, dim).

    `encoder.preprocess` maps an image, PIL or uint8 tensor (..., 3, H, W), to its input, float32 (..., 3, S, S);
    `encoder.dim` is the dimension. Weights of a released model are kept in ``torch.hub.get_dir()/checkpoints``.

    Args:
        model: a name in `MODELS`; or the folder of a finished run, e.g. ``results/runs/<run>/s1``; or what
            ``issl export`` wrote, its folder or its .safetensors file.
        pretrained: False gives an encoder with new weights, drawn from torch's global generator.
        progress: shows a bar while it downloads, on a terminal.

    Raises:
        UserError: unknown name, a folder that is not a run, no network, weights that are not this encoder's.
    """
    if str(model) in MODELS:
        return _released(str(model), pretrained, progress)
    path = Path(model)
    if not path.exists():
        raise UserError(f"'{model}' is neither a released model nor a folder, {nearest(model, MODELS)}")
    return _own(path, pretrained)


def _released(name: str, pretrained: bool, progress: bool) -> nn.Module:
    spec = MODELS[name].encoder
    encoder = encoders.build(spec, CROP)
    if pretrained:
        path = _downloaded(MODELS[name], progress)
        weights.fill(encoder, _published_names(weights.read_torch(path)), path)
    return _ready(encoder, spec.dim, preprocessing(v2.Resize(RESIZE), v2.CenterCrop(CROP)))


def _downloaded(model: Model, progress: bool) -> Path:
    """Its file, from torch's cache or downloaded into it; the name is the one under which torch.hub keeps it too."""
    file = model.url.rpartition("/")[2]
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    mirror = os.environ.get(MIRROR)
    if not path.exists():  # asked before `fetch` does, which wants to write: a cache may be read-only
        fetch(f"{mirror.rstrip('/')}/{file}" if mirror else model.url, path, model.md5, progress)
    return path


def _published_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the expanding head as the files have it, `resizer`, where it has the name of the authors' hub."""
    if any(key.startswith("resizer.") for key in tensors):
        return tensors
    return {key.replace("avgpool.0.", "resizer.", 1): tensor for key, tensor in tensors.items()}


def read_run(path: Path) -> tuple[RunSpec, dict[str, Tensor]]:
    """Settings and encoder weights of a run, from its folder or its .safetensors file.

    Both stand in the same file, so they cannot contradict each other. Raises UserError where it is not one of a run.
    """
    tensors, notes = weights.read_safetensors(_file(path))
    return _spec(notes, _file(path)), tensors


def read_spec(path: Path) -> RunSpec:
    """Settings of a run, likewise."""
    return _spec(weights.read_notes(_file(path)), _file(path))


def _spec(notes: dict[str, str], file: Path) -> RunSpec:
    try:
        content = json.loads(notes.get("spec", ""))
    except json.JSONDecodeError:
        raise UserError(f"{file}: does not say which run it is from; give the {WEIGHTS} that a run wrote") from None
    return validate(RunSpec, content, f"{file}: spec")


def _file(path: Path) -> Path:
    file = path / WEIGHTS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{path}: not the folder of a finished run: it has no {WEIGHTS}")
    return file


def _own(path: Path, pretrained: bool) -> nn.Module:
    run, tensors = read_run(path)
    size = run.data.image_size
    encoder = encoders.build(run.encoder, size)
    if pretrained:
        weights.fill(encoder, tensors, _file(path))
    as_image_folder = v2.Lambda(_central_square), v2.Resize(size, InterpolationMode.BICUBIC)
    return _ready(encoder, run.encoder.dim, preprocessing(*as_image_folder))


def _ready(encoder: nn.Module, dim: int, preprocess: v2.Compose) -> nn.Module:
    encoder.preprocess, encoder.dim = preprocess, dim
    return encoder.eval()


def preprocessing(*geometry: v2.Transform) -> v2.Compose:
    """RGB, then `geometry`, then ImageNet's normalisation.

    Maps a PIL image of any mode to float32 (3, S, S), and uint8 (..., 3, H, W) to float32 (..., 3, S, S).
    """
    last = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor())
    return v2.Compose([v2.RGB(), *geometry, *last])


def _central_square(image: Image.Image | Tensor) -> Image.Image | Tensor:
    return v2.functional.center_crop(image, [min(v2.functional.get_size(image))])
