"""Encoders to probe: released weights by name, or runs by folder; whole, or only the trunk before the head."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from issl import hub
from issl.config.validation import validate
from issl.errors import UserError
from issl.jobs.files import sha256
from issl.models.encoders import builder
from issl.spec.augment import Augment
from issl.spec.encoding import Encoding
from issl.spec.released import MODELS


def representation(encoder: str, encoding: Encoding) -> nn.Module:
    """The encoder as the encoding uses it: (n, 3, S, S) -> (n, features).

    In train mode batch norms use batch statistics, as if eval() had not been called. Raises as `hub.network` does.
    """
    whole = hub.network(encoder)
    return (Trunk(whole) if encoding.layer == "trunk" else whole).train(encoding.batch_norm == "train")


class Trunk(nn.Module):
    """The average of an encoder's maps, before its head: (n, 3, H, W) -> (n, channels)."""

    def __init__(self, whole: nn.Module):
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        return self.whole.maps(x).mean(dim=(2, 3))


def features(encoder: str, encoding: Encoding) -> int:
    """Dimension of the features. Raises as `hub.network` does."""
    return hub.settings(encoder).dim if encoding.layer == "output" else hub.channels(encoder)


def augmentation(encoder: str) -> Augment | None:
    """The views that a run was trained with; None for released weights, whose files do not tell.

    Raises as `hub.network` does, and UserError for settings that this version does not know.
    """
    spec = None if encoder in MODELS else hub.notes(encoder).get("spec")
    if spec is None:
        return None
    try:
        content = json.loads(spec).get("augment", {})
    except (AttributeError, json.JSONDecodeError) as error:
        raise UserError(f"{encoder}: its weights do not name their run ({error}); pretrain again") from None
    return validate(Augment, content, f"{encoder}: spec.augment")


def parts(encoder: str) -> tuple[Any, ...]:
    """What builds the encoder, and the class of its settings, for the provenance of a job. Raises as `hub.network`."""
    settings = hub.settings(encoder)
    return builder(settings), type(settings)


def origin(encoder: str, encoding: Encoding) -> dict[str, Any]:
    """The encoder and the encoding, for a run with a checksum of its weights: it may be pretrained again."""
    about = {"encoder": encoder, "encoding": json.loads(encoding.canonical())}
    return about | ({} if encoder in MODELS else {"weights": sha256(Path(encoder, hub.WEIGHTS))})
