"""The images of a data set through frozen weights: every one encoded once, in shards."""

import logging
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from issl.data.arrays import Arrays, read
from issl.errors import UserError
from issl.jobs import device, provenance
from issl.jobs.execution import Execution
from issl.jobs.files import write_json
from issl.jobs.locks import locked
from issl.probing import encoders, images, shards
from issl.spec.protocol import Encoding
from issl.views import augment

log = logging.getLogger(__name__)


def featurize(encoding: Encoding, data: Path, out: Path, workers: int, execution: Execution) -> None:
    """Writes the features of all images, train rows first, float16, as a folder `out` of shards, and a JSON beside it.

    Clean images, in order, mixed precision, as in the authors' extraction. RAM stays at one shard. A job that was
    killed continues after its last whole shard, and its result is the same: batches never reach over the end of a
    shard. Waits while another process makes the same features, and then takes them. Raises UserError where the disk
    has no room for all of them, before any work; for a file that is no image; for a feature that is not finite.
    """
    with locked(out.with_name(f".{out.name}.lock")):
        if not (out.exists() and out.with_suffix(".json").exists()):
            _featurize(encoding, data, out, workers, execution)


def _featurize(encoding: Encoding, data: Path, out: Path, workers: int, execution: Execution) -> None:
    started, made_by = time.monotonic(), provenance.describe("featurize_weights")
    where = device.choose(execution)
    kind = device.precision(execution, where)
    arrays = read(data)
    # Snakemake removes what it knows when a job fails: the shards wait in a folder that it does not know.
    part = out.with_name(f"{out.name}.part")
    about = encoders.origin(encoding) | {"data": arrays.meta["sha256"], "precision": kind}
    shards.begin(part, about)
    left = shards.missing(part, shards.planned(arrays, encoding.batch_size), encoders.features(encoding))
    network = encoders.representation(encoding).to(where, memory_format=torch.channels_last) if left else None
    for start, stop in left:
        shards.write(part, start, _shard(network, arrays, encoding, range(start, stop), workers, where, kind))
        log.info("features of %d of %d images", stop, len(arrays.labels))
    # The folder last: killed in between, the next attempt finds every shard in its place and only has to rename it.
    write_json(out.with_suffix(".json"), about | device.usage(where, kind, started) | made_by)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)


@torch.no_grad()
def _shard(
    network: nn.Module, arrays: Arrays, encoding: Encoding, rows: range, workers: int, where: torch.device, kind: str
) -> np.ndarray:
    """Features of these rows, (n, dim) float16. Raises UserError where one is not finite."""
    z = np.empty((len(rows), encoders.features(encoding)), np.float16)
    done = 0
    for batch in images.batches(arrays, encoding, rows, workers):
        clean = augment.clean(batch.to(where).permute(0, 3, 1, 2))
        with device.autocast(where, kind):
            found = network(clean).to(torch.float16)
        if not found.isfinite().all():
            raise UserError(f"{encoding.weights}: features of images {rows[done]}... are not finite in float16")
        z[done : done + len(batch)] = found.cpu().numpy()
        done += len(batch)
    return z
