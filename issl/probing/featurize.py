"""Encodes every clean image of a data set once, for all probes; features are written in shards."""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from issl.data.arrays import Arrays, read
from issl.errors import UserError
from issl.jobs import devices, memory, provenance, utilisation
from issl.jobs.execution import Execution
from issl.jobs.files import write_json
from issl.jobs.locks import locked
from issl.jobs.records import refuse_other
from issl.probing import encoders, images, pairs, shards, spread
from issl.spec.encoding import Encoding

log = logging.getLogger(__name__)


def featurize(encoder: str, encoding: Encoding, data: Path, out: Path, workers: int, execution: Execution) -> None:
    """Writes the features of all images, train rows first, float16, to a folder `out` of shards and a JSON beside it.

    `encoder` is the name of a released model, or the folder of a run. Clean images, in order, mixed precision, not
    normalised, as in the authors' extraction. RAM holds one shard. A killed job continues after its last complete
    shard, with the same result: batches never cross the end of a shard. Waits while another process makes the same
    features, and then uses them. Raises UserError for other data than the encoding's, for features of something else
    in `out`, and if the disk lacks space for all features (before any work), a file is not an image, or a feature is
    not finite.
    """
    if out.suffix:
        raise UserError(f"--out {out}: must be a folder without an ending: beside it stands its record, <name>.json")
    arrays, dim = read(data, encoding.data), encoders.features(encoder, encoding)
    about = encoders.origin(encoder, encoding) | {"data": arrays.meta["sha256"]}
    with locked(out.with_name(f".{out.name}.lock")):
        if out.exists():
            refuse_other(out.with_suffix(".json"), "features", about)
        if not (out.exists() and out.with_suffix(".json").exists()):
            _featurize(encoder, encoding, arrays, dim, about, out, workers, execution)


def _featurize(
    encoder: str,
    encoding: Encoding,
    arrays: Arrays,
    dim: int,
    about: Mapping[str, Any],
    out: Path,
    workers: int,
    execution: Execution,
) -> None:
    started, made_by = time.monotonic(), provenance.describe("featurize", *encoders.parts(encoder), type(encoding.data))
    device = devices.choose(execution)
    precision = devices.precision(execution, device)
    # Snakemake removes declared outputs when a job fails, so shards are collected in an undeclared folder.
    part, about = out.with_name(f"{out.name}.part"), {**about, "precision": precision}
    shards.discard_others(part, about)
    left = shards.missing(part, shards.planned(arrays, encoding.batch_size), dim)
    # Either may raise: before anything is written.
    network, views = encoders.representation(encoder, encoding), encoders.augmentation(encoder)
    shards.begin(part, about)
    encode = _Encode(encoder, network.to(device, memory_format=torch.channels_last), device, precision)
    with utilisation.Watch(device) as watch, memory.reused(device):
        for start, stop in left:
            z = np.empty((stop - start, dim), np.float16)
            done = 0
            for batch in images.batches(arrays, encoding, range(start, stop), workers):
                z[done : done + len(batch)] = encode(batch, start + done)
                done += len(batch)
            shards.write(part, start, z)
            log.info("features of %d of %d images", stop, arrays.n_labelled)
    # The folder last: if the job is killed in between, the next attempt finds all shards and only renames it.
    measures = spread.of(shards.Features(part, arrays.n_labelled, device, 0), arrays)
    measures |= pairs.of(views, encoding, arrays, device, encode.of_views, workers)
    usage = devices.usage(device, precision, started, watch.percent)
    write_json(out.with_suffix(".json"), about | measures | usage | made_by)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)


class _Encode:
    """The frozen encoder: (B, S, S, 3) uint8 -> (B, dim) float16."""

    def __init__(self, name: str, network: nn.Module, device: torch.device, precision: str):
        self.name, self.network, self.device, self.precision = name, network, device, precision

    @torch.no_grad()
    def __call__(self, squares: Tensor, first: int) -> np.ndarray:
        """Raises UserError if a feature is not finite; `first` is the row number of the first image."""
        z = self.of_views(images.inputs(squares, self.device)).to(torch.float16)
        if not z.isfinite().all():
            raise UserError(f"{self.name}: features of images from row {first} on are not finite in float16")
        return z.cpu().numpy()

    @torch.no_grad()
    def of_views(self, views: Tensor) -> Tensor:
        """Representations of normalised images on the device, (B, 3, S, S) -> (B, dim)."""
        with devices.autocast(self.device, self.precision):
            return self.network(views)
