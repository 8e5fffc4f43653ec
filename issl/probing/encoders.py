"""Published weights, or those of our own runs, as encoders: the whole, or the trunk before the expanding head."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from issl import hub
from issl.jobs.files import sha256
from issl.spec.encoder import Encoder
from issl.spec.protocol import Encoding
from issl.spec.released import MODELS


def load(encoding: Encoding) -> nn.Module:
    """The encoder with these weights, (n, 3, S, S) -> (n, dim), in eval mode. Raises UserError for an unknown name."""
    return hub.load(encoding.run or encoding.weights)


def representation(encoding: Encoding) -> nn.Module:
    """What the encoding asks of the encoder: (n, 3, S, S) -> (n, features).

    In train mode batch norms use the statistics of the batch, as an encoder does that nobody told to evaluate.
    """
    whole = load(encoding)
    return (Trunk(whole) if encoding.layer == "trunk" else whole).train(encoding.batch_norm == "train")


class Trunk(nn.Module):
    """An encoder without its expanding head: (n, 3, H, W) -> (n, channels)."""

    def __init__(self, whole: nn.Module):
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        return self.whole.maps(x).mean(dim=(2, 3))


def shape(encoding: Encoding) -> Encoder:
    """What kind of encoder it is; no weights are read."""
    return hub.read_spec(Path(encoding.run)).encoder if encoding.run else MODELS[encoding.weights].encoder


def features(encoding: Encoding) -> int:
    """Dimension of the features."""
    return shape(encoding).dim if encoding.layer == "output" else shape(encoding).channels


def origin(encoding: Encoding) -> dict[str, Any]:
    """What is encoded and how; of our own runs also which weights, for a run may be pretrained anew under its name."""
    about: dict[str, Any] = {"encoding": json.loads(encoding.canonical())}
    return about | ({"encoder": sha256(Path(encoding.run, hub.WEIGHTS))} if encoding.run else {})
