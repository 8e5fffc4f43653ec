"""The authors' released models: names and shapes, for plans without torch."""

from dataclasses import dataclass

from issl.spec.shape import Shape

RELEASE = "https://github.com/YannDubs/Invariant-Self-Supervised-Learning/releases/download/v1.0.0-alpha"


@dataclass(frozen=True)
class Model:
    """A released model: its encoder, its pretraining, and the file with its weights.

    `views` is m2 for 2x224 px, m6 for 2x160 + 4x96, m8 for 2x224 + 6x96; `md5` is the file's, if known.
    """

    encoder: Shape
    epochs: int
    views: str
    url: str
    md5: str | None = None


def _model(dim: int, epochs: int, views: str) -> tuple[str, Model]:
    expanded = dim != 2048  # a ResNet-50's own dimension
    name = f"dissl_resnet50_d{dim if expanded else None}_e{epochs}_{views}"
    encoder = Shape(arch="resnet50", head="expand" if expanded else "none", dim=dim)
    return name, Model(encoder, epochs, views, f"{RELEASE}/{name}.torch")


MODELS: dict[str, Model] = dict(
    _model(dim, epochs, views)
    for dim, epochs, views in (
        (2048, 100, "m2"),
        (8192, 100, "m2"),
        (8192, 100, "m6"),  # in the authors' README but not in their hub: the file may not exist
        (2048, 400, "m2"),
        (2048, 400, "m6"),
        (8192, 400, "m6"),
        (8192, 800, "m8"),
    )
)
