"""The shape of a ResNet, in plain Python, so that loading weights needs no pydantic."""

from dataclasses import dataclass

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for every data set, as in the released code


@dataclass(frozen=True)
class Shape:
    """The fields of `spec.encoder.ResNet`, which documents them; either class can be used for the other."""

    arch: str
    dim: int
    head: str = "none"
    width: int = 64
    bottleneck: int = 512
    init: str = "released"

    @property
    def channels(self) -> int:
        return channels(self.arch, self.width)


def channels(arch: str, width: int) -> int:
    """Channels of the last stage: 8 x width, times 4 for bottleneck blocks."""
    return width * (32 if arch == "resnet50" else 8)
