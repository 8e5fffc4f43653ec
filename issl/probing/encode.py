"""Features: every image of a data set encoded once, clean, for all probes."""

import logging
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from issl.data.arrays import read
from issl.errors import UserError
from issl.jobs import device, provenance
from issl.jobs.execution import Execution
from issl.jobs.files import make_room, whole, write_json
from issl.models import encoders
from issl.spec.run import RunSpec, run_id
from issl.views import augment

log = logging.getLogger(__name__)

BATCH = 512


def load_encoder(run: RunSpec, weights: Path) -> nn.Module:
    """The pretrained encoder in eval mode. Raises UserError when they are unreadable or of another kind."""
    encoder = encoders.build(run.encoder, run.data.image_size)
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights}: cannot be read ({error}); delete it and pretrain again") from None
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{weights}: not the weights of this run: {str(error).splitlines()[-1].strip()}") from None
    return encoder.eval()


@torch.no_grad()
def featurize(run: RunSpec, weights: Path, data: Path, out: Path, execution: Execution) -> None:
    """Writes z of all images, train rows first, as float16 `out` of shape (N, dim): raw, not normalised.

    As in the released code: eval mode, no augmentation, mixed precision, float16 on disk. RAM stays at one batch. What
    made them stands beside them in a JSON file of the same name, which stays when they go.
    """
    started, made_by = time.monotonic(), provenance.describe("featurize")
    where = device.choose(execution)
    kind = device.precision(execution, where)
    arrays = read(data)
    encoder = load_encoder(run, weights).to(where, memory_format=torch.channels_last)
    n = len(arrays.labels)
    make_room(out.parent, 2 * n * run.encoder.dim)
    with whole(out) as temporary:
        target = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=(n, run.encoder.dim))
        for start in range(0, n, BATCH):
            images = torch.from_numpy(arrays.images[start : start + BATCH].copy()).to(where)  # (B, H, W, 3)
            clean = augment.clean(images.permute(0, 3, 1, 2))
            with device.autocast(where, kind):
                z = encoder(clean)
            z = z.to(torch.float16)
            if not z.isfinite().all():
                raise UserError(f"{weights}: features of images {start}... are not finite in float16")
            target[start : start + BATCH] = z.cpu().numpy()
        target.flush()
        del target
    about = {"run": run_id(run), "data": arrays.meta["sha256"]} | device.usage(where, kind, started)
    write_json(out.with_suffix(".json"), about | made_by)
    log.info("%d features of dimension %d on %s", n, run.encoder.dim, device.describe(where))
