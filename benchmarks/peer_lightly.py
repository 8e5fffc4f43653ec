"""Lightly's SimCLR example on the images of a prepared data set: prints its images a second as JSON.

The loop is that of lightly's own example in PyTorch: its transform, loss and projection head with their defaults, SGD,
a DataLoader over PIL images that drops the last batch, float32 in torch's default memory format. Only the encoder is
this project's, so that both train the same network.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from issl.data.arrays import Arrays, read
from issl.models import encoders
from issl.spec.encoder import ResNet

PREFETCHED = 2  # batches that a DataLoader keeps ready for each worker


class Pictures(Dataset):
    """The training images as PIL images, each as the views that lightly's transform makes of it, and its label."""

    def __init__(self, arrays: Arrays):
        self.images, self.labels = arrays.images, arrays.labels
        self.length = arrays.meta["splits"]["train"]
        self.image_size = arrays.image_size
        self.transform = SimCLRTransform(input_size=self.image_size)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> tuple[list[Tensor], int]:
        return self.transform(Image.fromarray(self.images[row])), int(self.labels[row])


class SimCLR(nn.Module):
    """Encoder and projector: images (B, 3, H, W) -> projections (B, 128)."""

    def __init__(self, image_size: int):
        super().__init__()
        spec = ResNet()
        self.backbone = encoders.build(spec, image_size)
        self.projection_head = SimCLRProjectionHead(spec.dim, spec.dim, 128)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection_head(self.backbone(images))


def train(data: Path, batch_size: int, workers: int, warm_up: int, timed: int) -> float:
    """Images a second over `timed` steps, after `warm_up` steps that do not count."""
    dataset = Pictures(read(data))
    # One long epoch: the few images here must not make it start its workers again and again, as no real data set does.
    # It is longer than what is timed, so that the workers have as much to do at the end as in the middle.
    drawn = (warm_up + timed + workers * PREFETCHED) * batch_size
    sampler = RandomSampler(dataset, replacement=True, num_samples=drawn)
    loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers, drop_last=True)
    model = SimCLR(dataset.image_size)
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)

    started = time.perf_counter()
    for step, ((x0, x1), _) in enumerate(loader):
        if step == warm_up:
            started = time.perf_counter()
        if step == warm_up + timed:
            break
        z0, z1 = model(x0), model(x1)
        loss = criterion(z0, z1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return timed * batch_size / (time.perf_counter() - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    for number in ("batch_size", "workers", "warm_up", "timed"):
        parser.add_argument(number, type=int)
    print(json.dumps({"images_per_second": train(**vars(parser.parse_args()))}))
