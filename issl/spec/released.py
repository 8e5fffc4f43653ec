"""The authors' released models: names and shapes, for plans without torch."""

from dataclasses import dataclass

from issl.spec.shape import Shape

RELEASE = "https://github.com/YannDubs/Invariant-Self-Supervised-Learning/releases/download/v1.0.0-alpha"
IMAGE_SIZE = 224  # px, of all models
RISK_RELEASE = "https://github.com/YannDubs/SSL-Risk-Decomposition/releases/download/v0.1"  # Dubois et al., ICML 2023


@dataclass(frozen=True)
class Model:
    """A released model: its encoder, its pretraining, and the file with its weights.

    `views` is m2 for 2x224 px, m6 for 2x160 + 4x96, m8 for 2x224 + 6x96; `variant` says what else differs from the
    others; `md5` is the file's, if known.
    """

    encoder: Shape
    epochs: int
    views: str
    url: str
    md5: str | None = None
    variant: str = ""


def _model(
    dim: int, epochs: int, views: str, release: str = RELEASE, suffix: str = "", variant: str = ""
) -> tuple[str, Model]:
    expanded = dim != 2048  # a ResNet-50's own dimension
    name = f"dissl_resnet50_d{dim if expanded else None}_e{epochs}_{views}{suffix}"
    encoder = Shape(arch="resnet50", head="expand" if expanded else "none", dim=dim)
    return name, Model(encoder, epochs, views, f"{release}/{name}.torch", variant=variant)


MODELS: dict[str, Model] = dict(
    (
        _model(2048, 100, "m2"),
        _model(8192, 100, "m2"),
        _model(8192, 100, "m6"),  # in the authors' README but not in their hub: the file may not exist
        _model(2048, 400, "m2"),
        _model(2048, 400, "m6"),
        _model(8192, 400, "m6"),
        _model(8192, 800, "m8"),
        _model(4096, 100, "m2", RISK_RELEASE),
        _model(2048, 100, "m2", RISK_RELEASE, "_augSmall", "weaker augmentation"),
        _model(2048, 100, "m2", RISK_RELEASE, "_augLarge", "stronger augmentation"),
        _model(2048, 100, "m2", RISK_RELEASE, "_headTLinSLin", "linear teacher"),
        _model(2048, 100, "m2", RISK_RELEASE, "_headTMlpSMlp", "MLP student"),
    )
)
