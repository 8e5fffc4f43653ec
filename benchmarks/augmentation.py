"""Views a second: ours beside torchvision's pipeline on PIL images, and beside kornia's on a batch.

All draw the recipe of SimCLR at strength 1 on the synthetic images of the package at 64 px: objects of two colours on
a wavy ground, with noise. Each turn gives two views of every image of a batch, normalised, as a training step needs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.measure import Row, Turn, compared, take_turns
from issl.data.datasets import synthetic
from issl.spec.augment import Augment
from issl.spec.data import Synthetic
from issl.views.augment import ASPECT_RATIOS, MEAN, STD, two_views

BATCH, SIZE = 256, 64
SECONDS = 1.0  # a turn repeats its batch for at least as long
RECIPE = Augment()
JITTER = (RECIPE.jitter, RECIPE.jitter, RECIPE.jitter, RECIPE.hue)
AREA = (RECIPE.min_area, 1.0)

PIL = Row("augment_pil", "views/s", "ratio >= 1", "torchvision on PIL images; one thread and one process each")
KORNIA = Row("augment_kornia", "views/s", "ratio >= 1", "kornia, per-sample parameters; same batch, all cores each")
KORNIA_GPU = Row("augment_kornia_gpu", "views/s", "ratio >= 1", "kornia, per-sample parameters; same batch, same GPU")
NAMES = (PIL.name, KORNIA.name, KORNIA_GPU.name)


def views(rounds: int) -> list[Row]:
    """One core against PIL, all cores against kornia, and the GPU, if there is one, against kornia."""
    on_gpu = (
        _beside_kornia(KORNIA_GPU, "cuda", rounds)
        if torch.cuda.is_available()
        else replace(KORNIA_GPU, not_measured="no CUDA device")
    )
    return [_beside_pil(rounds), _beside_kornia(KORNIA, "cpu", rounds), on_gpu]


def _measured(row: Row, ours: list[float], peer: list[float], **details: Any) -> Row:
    return compared(row, ours, peer, 1, images="issl.data.datasets.synthetic, 64 px", batch=BATCH, **details)


# --- turns -----------------------------------------------------------------------------------------------------------


def _images() -> Tensor:
    """(BATCH, 3, SIZE, SIZE) uint8, of 16 classes in random order."""
    spec = Synthetic(kind="synthetic", classes=16, train_per_class=BATCH // 16, test_per_class=1, image_size=SIZE)
    drawn = torch.from_numpy(synthetic.read(spec).open()(0, BATCH))
    return drawn[torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))].permute(0, 3, 1, 2)


def _turn(make: Callable[[], object], threads: int, wait: Callable[[], None]) -> float:
    """Views a second of `make`, which gives two views of each image of the batch."""
    torch.set_num_threads(threads)
    wait()
    made, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        make()
        wait()
        made += 2 * BATCH
    return made / (time.perf_counter() - started)


def _ours(images: Tensor, threads: int, wait: Callable[[], None]) -> Turn:
    generator = torch.Generator().manual_seed(0)
    return partial(_turn, lambda: two_views(images, RECIPE, generator), threads, wait)


def _no_wait() -> None:
    """A CPU has done its work when the call returns."""


# --- torchvision -----------------------------------------------------------------------------------------------------


def _beside_pil(rounds: int) -> Row:
    """The peer's images are PIL images already, and its views need not become a batch: it is spared both."""
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import to_pil_image

    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, AREA, ASPECT_RATIOS, InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(RECIPE.flip_p),
            transforms.RandomApply([transforms.ColorJitter(*JITTER)], RECIPE.jitter_p),
            transforms.RandomGrayscale(RECIPE.gray),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = _images()
    pictures = [to_pil_image(image) for image in images]

    def make() -> list[Tensor]:
        return [pipeline(picture) for picture in (*pictures, *pictures)]

    threads = torch.get_num_threads()
    try:
        ours, peer = take_turns(_ours(images, 1, _no_wait), partial(_turn, make, 1, _no_wait), rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    return _measured(PIL, ours, peer, threads=1)


# --- kornia, in a process of its own, so that no peer is imported where the project is measured ----------------------


def _beside_kornia(row: Row, device: str, rounds: int) -> Row:
    try:
        peers.install("kornia", "kornia_rs")
    except peers.Unavailable as error:
        return replace(row, not_measured=str(error))
    command = [sys.executable, "-m", "benchmarks.augmentation", device, str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=peers.environment(), check=True)
    return _measured(row, **json.loads(done.stdout.splitlines()[-1]))


def _turns_with_kornia(device: str, rounds: int) -> dict[str, Any]:
    """The figures of both on one device, and what they hold for."""
    from kornia import augmentation

    # Crops by resampling, which works on the whole batch; kornia's other way cuts image by image, and is slower.
    pipeline = torch.nn.Sequential(
        augmentation.RandomResizedCrop((SIZE, SIZE), AREA, ASPECT_RATIOS, resample="bicubic", cropping_mode="resample"),
        augmentation.RandomHorizontalFlip(p=RECIPE.flip_p),
        augmentation.ColorJitter(*JITTER, p=RECIPE.jitter_p),
        augmentation.RandomGrayscale(p=RECIPE.gray),
        augmentation.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ).to(device)
    images = _images().to(device)
    wait = torch.cuda.synchronize if device == "cuda" else _no_wait
    threads = len(os.sched_getaffinity(0))

    @torch.no_grad()
    def make() -> Tensor:
        return pipeline(torch.cat([images, images]) / 255)

    ours, peer = take_turns(_ours(images, threads, wait), partial(_turn, make, threads, wait), rounds=rounds)
    versions = {name: version for name, version in peers.installed().items() if name.startswith("kornia")}
    return {"ours": ours, "peer": peer, "threads": threads, "peers": versions}


if __name__ == "__main__":
    print(json.dumps(_turns_with_kornia(sys.argv[1], int(sys.argv[2]))))
