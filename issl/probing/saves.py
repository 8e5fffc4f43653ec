"""The save of a training of probes, written atomically, with what it belongs to."""

import logging
from pathlib import Path
from typing import Any, Protocol

import torch

from issl.errors import UserError
from issl.jobs.files import whole
from issl.probing import encoders
from issl.probing.task import Task
from issl.spec.value import Value, short_hash

log = logging.getLogger(__name__)


class Stateful(Protocol):
    """A network, an optimiser or a scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Save:
    """The state of one training, after its last complete epoch."""

    def __init__(self, file: Path, about: dict[str, Any]):
        self.file, self.about = file, about

    def write(self, epoch: int, **parts: Stateful) -> None:
        """Saves the state from which epoch `epoch` starts."""
        states = {name: part.state_dict() for name, part in parts.items()}
        with whole(self.file) as temporary:
            torch.save({"about": self.about, "epoch": epoch, **states}, temporary)

    def resume(self, device: torch.device, **parts: Stateful) -> int:
        """Loads the save, if any, and returns the next epoch. Raises UserError if it is damaged or does not fit."""
        if not self.file.exists():
            return 0
        try:
            saved = torch.load(self.file, map_location=device, weights_only=True)
            if saved["about"] != self.about:
                raise KeyError("about")
        except Exception as error:
            raise UserError(f"{self.file}: not a save of this evaluation ({error}); delete it to start over") from None
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        log.info("continuing after epoch %d", saved["epoch"])
        return saved["epoch"]


def of(probe: Value, task: Task, name: str = "state") -> Save:
    """The save of a probe on images; `name` tells several trainings of one probe apart."""
    images = task.images
    about = {"probe": probe.canonical(), "seed": task.seed} | encoders.origin(images.encoder, images.encoding)
    about["data"] = images.arrays.meta["sha256"]
    return Save(images.part / short_hash(probe.canonical()) / f"{name}.pt", about)
