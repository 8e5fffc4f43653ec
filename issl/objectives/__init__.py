"""Self-supervised objectives: one file per family of methods, and one entry below per method."""

from torch import nn

from issl.objectives.barlow_twins import BarlowTwins
from issl.objectives.base import Objective
from issl.objectives.byol import BYOL
from issl.objectives.contrastive import CISSL, SimCLR
from issl.objectives.dcl import DCL
from issl.objectives.dino import DINO
from issl.objectives.dissl import DISSL
from issl.objectives.dissl_multicrop import DISSLMultiCrop
from issl.objectives.geometry import Geometry
from issl.objectives.lejepa import LeJEPA
from issl.objectives.moco_v3 import MoCoV3
from issl.objectives.simsiam import SimSiam
from issl.objectives.supervised import Supervised
from issl.objectives.swav import SwAV
from issl.objectives.untrained import Untrained
from issl.objectives.vicreg import VICReg
from issl.objectives.wmse import WMSE
from issl.spec import objective as spec
from issl.spec import plugins

__all__ = ["OBJECTIVES", "Geometry", "Objective", "build", "implementation"]

OBJECTIVES: dict[str, type[Objective]] = {
    "simclr": SimCLR,
    "cissl": CISSL,
    "dissl": DISSL,
    "dissl_multicrop": DISSLMultiCrop,
    "dino": DINO,
    "dcl": DCL,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "wmse": WMSE,
    "lejepa": LeJEPA,
    "byol": BYOL,
    "simsiam": SimSiam,
    "moco_v3": MoCoV3,
    "swav": SwAV,
    "supervised": Supervised,
    "untrained": Untrained,
}


def build(objective: spec.ObjectiveSpec, dim: int, encoder: nn.Module) -> Objective:
    """Builds the objective for representations of dimension `dim`.

    `encoder` is the encoder to train, at its initial weights; methods with a teacher copy it.
    """
    return implementation(objective)(objective, dim, encoder)


def implementation(objective: spec.ObjectiveSpec) -> type[Objective]:
    """The class that carries out these settings: one of ours, or that of a plug-in."""
    return OBJECTIVES.get(objective.name) or plugins.implementation(objective)
