"""A pretraining run: data set, augmentation, encoder, objective and optimisation."""

from typing import Self

from pydantic import model_validator

from issl.spec.augment import Augment
from issl.spec.data import DataSpec, ImageNet
from issl.spec.encoder import Encoder, ResNet
from issl.spec.objective import WMSE, ObjectiveSpec, Supervised, Untrained
from issl.spec.optim import Optim
from issl.spec.value import Value, short_hash


class RunSpec(Value):
    """One pretraining run, without its seed, which follows the run's id in every path."""

    data: DataSpec
    objective: ObjectiveSpec
    augment: Augment = Augment()
    encoder: Encoder = ResNet()
    optim: Optim = Optim()

    @property
    def epochs(self) -> int:
        """Of training: `optim.epochs`, but 0 for an untrained encoder."""
        return 0 if isinstance(self.objective, Untrained) else self.optim.epochs

    @model_validator(mode="after")
    def _possible(self) -> Self:
        # oneDNN writes beyond its buffers there: fewer than 8 channels, channels_last, AVX2 (seen with torch 2.15).
        narrow = [name for name in ("width", "bottleneck", "dim") if getattr(self.encoder, name, 8) < 8]
        if narrow:
            raise ValueError(
                f"encoder.{narrow[0]} {getattr(self.encoder, narrow[0])} is below 8, which may crash training on a CPU"
            )
        views = self.augment.views
        if isinstance(self.data, ImageNet) != bool(views):
            raise ValueError("'augment: {views: ...}' is required for data of kind imagenet, and allowed for no other")
        classes = self.data.n_classes
        if isinstance(self.objective, Supervised) and classes not in (None, self.objective.classes):
            raise ValueError(f"objective.classes {self.objective.classes}: the data set has {classes} classes")
        if isinstance(self.objective, Supervised) and self.data.has_unlabelled:
            raise ValueError(
                "supervised needs a label for every image: leave `unlabelled` out of the data set's `split`"
            )
        if (len(views) > 1 or self.augment.number > 2) and not self.objective.many_views:
            given = "augment.views may have one entry" if views else "augment.number must be 2"
            raise ValueError(f"{self.objective.name} takes two views of an image, so {given}")
        if isinstance(self.objective, WMSE) and self.objective.size > self.optim.batch_size:
            raise ValueError(
                f"objective.size {self.objective.size} exceeds optim.batch_size {self.optim.batch_size}: it is a part"
            )
        return self


def run_id(run: RunSpec) -> str:
    """Readable words plus hash, e.g. ``cissl-z2048-e1000-3fa91c2e``."""
    method = run.objective.name
    if getattr(run.objective, "predictor", "linear") == "mlp":
        method += "_mlp"
    return f"{method}-z{run.encoder.dim}-e{run.epochs}-{short_hash(run.canonical())}"


def file_notes(run: RunSpec, seed: int) -> dict[str, str]:
    """Metadata of a run's weights file: the run's settings, and all that is needed to build the encoder."""
    shape = run.encoder.model_dump_json()
    return {"spec": run.canonical(), "seed": str(seed), "encoder": shape, "image_size": str(run.data.image_size)}
