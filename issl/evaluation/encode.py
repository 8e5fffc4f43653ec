"""The images of a data set through published weights: every one encoded once, in shards."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from issl import augment, device, hub, provenance
from issl.config import Execution
from issl.data.arrays import Arrays, read
from issl.errors import UserError
from issl.evaluation import images, shards
from issl.evaluation.spec import Encoding, encoding_id
from issl.files import write_json
from issl.sharing import alone

log = logging.getLogger(__name__)


def encode(encoding: Encoding, data: Path, out: Path, workers: int, execution: Execution) -> None:
    """Writes the features of all images, train rows first, float16, as a folder `out` of shards, and a JSON beside it.

    Clean images, in order, mixed precision, as in the authors' extraction. RAM stays at one shard. A job that was
    killed continues after its last whole shard, and its result is the same: batches never reach over the end of a
    shard. Waits while another process makes the same features, and then takes them. Raises UserError where the disk
    has no room for all of them, before any work; for a file that is no image; for a feature that is not finite.
    """
    with alone(out.with_name(f".{out.name}.lock")):
        if not (out.exists() and out.with_suffix(".json").exists()):
            _encode(encoding, data, out, workers, execution)


def _encode(encoding: Encoding, data: Path, out: Path, workers: int, execution: Execution) -> None:
    started, made_by = time.monotonic(), provenance.describe("encode")
    where = device.choose(execution)
    kind = device.precision(execution, where)
    arrays = read(data)
    # Snakemake removes what it knows when a job fails: the shards wait in a folder that it does not know.
    part = out.with_name(f"{out.name}.part")
    about = {"encoding": json.loads(encoding.canonical()), "data": arrays.meta["sha256"], "precision": kind}
    shards.begin(part, about)
    dim = hub.MODELS[encoding.weights].encoder
    left = shards.missing(part, shards.planned(arrays, encoding.batch_size), _dim(encoding))
    encoder = representation(encoding).to(where, memory_format=torch.channels_last)
    for start, stop in left:
        shards.write(part, start, _shard(encoder, arrays, encoding, range(start, stop), workers, where, kind))
        log.info("features of %d of %d images", stop, len(arrays.labels))
    out.parent.mkdir(parents=True, exist_ok=True)
    part.rename(out)
    write_json(out.with_suffix(".json"), about | device.usage(where, kind, started) | made_by)
