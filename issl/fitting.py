"""Trains an encoder on images in memory: `issl.fit`, for a script or a notebook, without config or workflow."""

import gc
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from issl import hub
from issl.config.validation import validate
from issl.data import arrays
from issl.errors import UserError
from issl.jobs import devices
from issl.jobs.execution import Execution
from issl.models import encoders
from issl.models.preprocessing import eight_bits
from issl.spec.encoder import ResNet
from issl.spec.run import RunSpec
from issl.spec.shape import channels
from issl.training.pretrain import pretrain

Images = NDArray[np.uint8] | Tensor | Sequence[Image.Image]
Settings = str | Mapping[str, Any]  # the name of a method or an architecture, or all its settings

ARCHITECTURES = get_args(ResNet.model_fields["arch"].annotation)
BATCH = 256  # images


class Fitted(NamedTuple):
    """A trained encoder."""

    network: nn.Module  # in eval mode; with `preprocess` and `dim`, as from `issl.hub.load`
    run: RunSpec  # every setting, defaults included
    history: pd.DataFrame  # a row for each epoch: loss, its terms, and what was monitored on images held out

    def transform(self, images: Images, batch_size: int = BATCH) -> NDArray[np.float32]:
        """Representations of images, (n, dim) float32.

        Takes what `fit` takes, of any size: of each image the central square, resized to that of the training images.
        """
        device = next(self.network.parameters()).device
        pixels = _pixels(images)
        with torch.inference_mode():
            encoded = [
                self.network(self.network.preprocess(part.contiguous()).to(device)) for part in pixels.split(batch_size)
            ]
        return torch.cat(encoded).float().cpu().numpy()


def fit(
    images: Images,
    labels: Sequence[Hashable] | None = None,
    method: Settings = "dissl",
    encoder: Settings = "resnet18",
    *,
    epochs: int = 100,
    augment: Mapping[str, Any] | None = None,
    optim: Mapping[str, Any] | None = None,
    held_out: float = 0.1,
    seed: int = 1,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
) -> Fitted:
    """Trains an encoder on images without labels, as rule `pretrain` does with the same settings.

    Args:
        images: square images of one size: uint8 (n, S, S, 3), or (n, S, S) for grey ones; a uint8 tensor
            (n, 3, S, S); or PIL images.
        labels: for monitoring alone, as the column `online_acc` of the history; any n words or numbers.
        method: a name of `issl.spec.objective`, or a mapping with `name` and its settings, such as
            ``{"name": "dissl", "classes": 1024}``.
        encoder: an architecture of `issl.spec.encoder`, or a mapping with `arch` and its settings.
        epochs: over the images that are not held out.
        augment: settings of `issl.spec.augment`.
        optim: settings of `issl.spec.optim`. Unless it says otherwise, a batch has 256 images, the first tenth of the
            epochs is a warm-up, and the rate changes at every step.
        held_out: share of the images on which the training is monitored.
        seed: of the initial weights, the order, the views and the choice of images to hold out.
        device: "auto", "gpu" or "cpu".
        precision: "auto", "bf16", "fp16" or "32".
        out: folder for checkpoints and results; the same call continues there after an interruption, and returns at
            once when it has finished. `issl.hub.load` loads it. Without one, nothing is kept.

    Raises:
        UserError: a setting that is unknown or impossible, images of other forms, labels of another number, a folder
            with the results of something else, no GPU, a loss that is not finite.
    """
    squares = _pixels(images).permute(0, 2, 3, 1).contiguous().numpy()  # (n, S, S, 3)
    if squares.shape[1] != squares.shape[2]:
        raise UserError(f"images: {len(squares)} of {squares.shape[2]} x {squares.shape[1]} px; cut squares from them")
    classes, numbers = _classes(labels, len(squares))
    n_test = max(1, round(held_out * len(squares)))
    n_train = len(squares) - n_test
    if n_train < 2:
        raise UserError(f"images: {len(squares)} images, {n_test} of them held out, leave {n_train} to train on")
    run = _run(method, encoder, squares.shape[1], n_train, epochs, augment or {}, optim or {})
    if not isinstance(run.encoder, ResNet):
        encoders.check(run.encoder, squares.shape[1], [squares.shape[1]])
    execution = validate(Execution, {"device": device, "precision": precision, "progress": False}, "fit")
    order = np.random.default_rng(seed).permutation(len(squares))
    with tempfile.TemporaryDirectory(prefix="issl-") as temporary:
        content = arrays.Content(
            labels=numbers[order],
            splits={"train": n_train, "test": n_test},
            classes=classes,
            image_size=squares.shape[1],
            open=lambda: lambda start, stop: squares[order[start:stop]],
            source={"name": "images in memory"},
            parallel=False,
        )
        arrays.write(Path(temporary, "data"), content, run.data)
        folder = Path(out or Path(temporary, "run"))
        pretrain(run, seed, Path(temporary, "data"), folder, execution)
        gc.collect()  # Lightning's trainer and the module refer to each other, and would keep the images, also on a GPU
        history = pd.read_csv(folder / "history.csv") if run.epochs else pd.DataFrame()
        network = hub.load(folder).to(devices.choose(execution))
    if labels is None:
        history = history[[name for name in history if "online" not in name]]
    return Fitted(network, run, history)


def _run(
    method: Settings,
    encoder: Settings,
    size: int,
    images: int,
    epochs: int,
    augment: Mapping[str, Any],
    optim: Mapping[str, Any],
) -> RunSpec:
    """The run of these settings, with what depends on the images and the encoder filled in."""
    objective = {"name": method} if isinstance(method, str) else dict(method)
    shape = {"arch": encoder} if isinstance(encoder, str) else dict(encoder)
    if shape.get("arch", "resnet18") in ARCHITECTURES and shape.get("head", "none") == "none":
        shape = {"dim": channels(shape.get("arch", "resnet18"), shape.get("width", 64))} | shape
    usual = {"batch_size": min(BATCH, images), "warmup_epochs": epochs // 10, "lr_interval": "step"}
    content = {
        "data": {"kind": "folder", "name": "in_memory", "image_size": size},  # its checksum tells it from others
        "objective": objective,
        "encoder": shape,
        "augment": dict(augment),
        "optim": {**usual, "epochs": epochs, **optim},
    }
    return validate(RunSpec, content, "fit")


def _classes(labels: Sequence[Hashable] | None, images: int) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the classes, and the number of each image's class; one class for all without labels."""
    given = np.zeros(images, np.int64) if labels is None else np.asarray(labels)
    if given.shape != (images,):
        raise UserError(f"labels: must be one for each of the {images} images, not an array {given.shape}")
    names, numbers = np.unique(given, return_inverse=True)
    return [str(name) for name in names], numbers.astype(np.int64)


def _pixels(images: Images) -> Tensor:
    """Images as uint8 (n, 3, H, W). Raises UserError for other forms."""
    if isinstance(images, Tensor):
        pixels = images
    elif isinstance(images, np.ndarray):
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        pixels = pixels.movedim(-1, 1) if pixels.ndim == 4 else pixels.unsqueeze(1)
    else:
        sizes = {image.size for image in images}
        if len(sizes) != 1:
            raise UserError(f"images: must have one size, not {len(sizes)}")
        pixels = torch.from_numpy(np.stack([np.asarray(eight_bits(image).convert("RGB")) for image in images])).movedim(
            -1, 1
        )
    if pixels.dtype != torch.uint8:
        raise UserError(f"images: must be uint8, from 0 to 255, not {str(pixels.dtype).removeprefix('torch.')}")
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise UserError(
            f"images: must be an array (n, S, S, 3) or (n, S, S), or a tensor (n, 3, S, S), not {tuple(images.shape)}"
        )
    return pixels.expand(-1, 3, -1, -1)
