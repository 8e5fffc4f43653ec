"""Pretrained encoders by name or folder: the authors' released models, and our own runs.

An encoder is in eval mode. It has `dim`, the dimension of its representation, and when it is loaded for people also
`preprocess`, which turns an image into its input. The released models are DISSL ResNet-50s on ImageNet (Dubois et al.
2022, table in their README).
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from issl.errors import UserError, nearest
from issl.models import encoders, weights
from issl.spec.released import IMAGE_SIZE, MODELS, Model
from issl.spec.shape import Shape

if TYPE_CHECKING:
    from issl.spec.run import RunSpec

# pydantic, filelock and tqdm are imported only when needed: loading a file takes just torch and safetensors.

MIRROR = "ISSL_HUB_URL"  # environment: a mirror of the files, for machines that cannot reach the release
WEIGHTS = "encoder.safetensors"  # in the folder of a run or of an export


def load(model: str | Path, pretrained: bool = True, progress: bool = True) -> nn.Module:
    """The encoder `model` in eval mode: images (n, 3, H, W) -> representations (n, dim).

    `encoder.preprocess` maps an image, PIL or uint8 tensor (..., 3, H, W), to its input, float32 (..., 3, S, S);
    `encoder.dim` is the dimension. Weights of released models are cached in ``torch.hub.get_dir()/checkpoints``.

    Args:
        model: a name in `MODELS`, the folder of a finished run, e.g. ``results/runs/<run>/s1``, or the folder or
            .safetensors file that ``issl export`` wrote.
        pretrained: False gives random weights, drawn from torch's global generator.
        progress: show a progress bar while downloading, on a terminal.

    Raises:
        UserError: unknown name, a folder that is not a run, no network, or weights of another encoder.
    """
    from issl.models import preprocessing  # imports torchvision, which jobs do without

    encoder = network(model, pretrained, progress)
    if str(model) in MODELS:
        encoder.preprocess = preprocessing.of_released()
    else:
        encoder.preprocess = preprocessing.of_run(_settings_of(Path(model))[1])
    return encoder.eval()  # the transforms are modules too


def network(model: str | Path, pretrained: bool = True, progress: bool = True) -> nn.Module:
    """`load` without `preprocess`."""
    if str(model) in MODELS:
        return _released(str(model), pretrained, progress).eval()
    return _own(_existing(model), pretrained).eval()


def settings(model: str | Path) -> encoders.Settings:
    """The settings of the encoder `model`, without reading weights. Raises UserError as `load` does."""
    return MODELS[str(model)].encoder if str(model) in MODELS else _settings_of(_existing(model))[0]


def notes(model: str | Path) -> dict[str, str]:
    """The metadata of a run's weights file, without reading weights. Raises UserError as `load` does."""
    return weights.read_notes(_file(_existing(model)))


def channels(model: str | Path) -> int:
    """Channels of the encoder's maps, without reading weights. Raises UserError as `load` does."""
    found = settings(model)
    if isinstance(getattr(found, "channels", None), int):  # of a ResNet, by its width alone
        return found.channels
    with torch.device("meta"):
        return network(model, pretrained=False).channels


def _existing(model: str | Path) -> Path:
    path = Path(model)
    if not path.exists():
        raise UserError(f"'{model}' is neither a released model nor a folder, {nearest(model, MODELS)}")
    return path


def _released(name: str, pretrained: bool, progress: bool) -> nn.Module:
    spec = MODELS[name].encoder
    encoder = encoders.build(spec, IMAGE_SIZE)
    if pretrained:
        path = _downloaded(MODELS[name], progress)
        weights.fill(encoder, _published_names(weights.read_torch(path)), path)
    return encoder


def _downloaded(model: Model, progress: bool) -> Path:
    """The model's file in torch's cache, downloaded if necessary; torch.hub uses the same file name."""
    file = model.url.rpartition("/")[2]
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    mirror = os.environ.get(MIRROR)
    if not path.exists():  # before `fetch`, which writes: a cache may be read-only
        from issl.jobs.download import fetch

        fetch(f"{mirror.rstrip('/')}/{file}" if mirror else model.url, path, model.md5, progress)
    return path


def _published_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the expanding head from its name in the authors' hub to `resizer`, as in their files."""
    if any(key.startswith("resizer.") for key in tensors):
        return tensors
    return {key.replace("avgpool.0.", "resizer.", 1): tensor for key, tensor in tensors.items()}


def read_run(path: Path) -> tuple["RunSpec", dict[str, Tensor]]:
    """Settings and encoder weights of a run, from its folder or its .safetensors file.

    Both are in one file, so they always match. Raises UserError if it is not a run's file.
    """
    tensors, notes = weights.read_safetensors(_file(path))
    return _spec(notes, _file(path)), tensors


def _settings_of(path: Path) -> tuple[encoders.Settings, int]:
    """Settings of a run's encoder, and its image size in pixels, from its folder or .safetensors file."""
    return _settings(weights.read_notes(_file(path)), _file(path))


def _settings(notes: dict[str, str], file: Path) -> tuple[encoders.Settings, int]:
    if "encoder" not in notes:  # written by an older version
        run = _spec(notes, file)
        return run.encoder, run.data.image_size
    try:
        content, size = json.loads(notes["encoder"]), int(notes["image_size"])
        if content["arch"].startswith("resnet"):
            return Shape(**content), size
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: invalid metadata ({error}); pretrain again") from None
    return _spec(notes, file).encoder, size


def _spec(notes: dict[str, str], file: Path) -> "RunSpec":
    from issl.config.validation import validate
    from issl.spec.run import RunSpec

    try:
        content = json.loads(notes.get("spec", ""))
    except json.JSONDecodeError:
        raise UserError(f"{file}: does not name its run; give the {WEIGHTS} that a run wrote") from None
    return validate(RunSpec, content, f"{file}: spec")


def _file(path: Path) -> Path:
    file = path / WEIGHTS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{path}: not the folder of a finished run: it has no {WEIGHTS}")
    return file


def _own(path: Path, pretrained: bool) -> nn.Module:
    tensors, notes = weights.read_safetensors(_file(path))
    encoder = encoders.build(*_settings(notes, _file(path)))
    if pretrained:
        weights.fill(encoder, tensors, _file(path))
    return encoder
