"""Encoders: their protocol, and ResNets with the stem and the expanding head of the released code.

Parameters of a ResNet have torchvision's names, so its state dicts fit if shapes agree; the expanding head is called
`resizer`, as in the authors' published weights.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from issl.errors import UserError
from issl.models.blocks import BasicBlock, Bottleneck
from issl.spec import plugins
from issl.spec.shape import Shape

ARCHS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
SMALL = 100  # px: for smaller images the stem is a 3x3 convolution of stride 1
TINY = 50  # px: smaller images also skip the max-pool


class Encoder(Protocol):
    """What everything else knows of an encoder, an `nn.Module`: images (n, 3, H, W) -> representations (n, dim)."""

    dim: int  # of the representation
    channels: int  # of the maps

    def forward(self, images: Tensor) -> Tensor:
        """The representation, (n, dim)."""

    def maps(self, images: Tensor) -> Tensor:
        """The last feature maps, before the head and the pooling: (n, channels, h, w)."""

    def with_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representation and maps in one pass."""


class Settings(Protocol):
    """What every class of settings in `issl/spec/encoder.py` has."""

    arch: str
    dim: int


def build(encoder: Settings, image_size: int) -> nn.Module:
    """Builds the encoder, an `Encoder`, for square images of `image_size` pixels: (n, 3, H, W) -> (n, encoder.dim).

    Raises UserError for settings that give no encoder of such images.
    """
    return builder(encoder)(encoder, image_size)


def builder(encoder: Settings) -> Callable[[Settings, int], nn.Module]:
    """The function that builds such an encoder: what its settings name as `implementation`, or `resnet`."""
    return plugins.implementation(encoder) if hasattr(encoder, "implementation") else resnet


def check(encoder: Settings, image_size: int, sizes: Iterable[int]) -> None:
    """Raises UserError if an encoder built for `image_size` cannot take images of one of the sizes.

    Nothing is computed: the tensors have shapes alone.
    """
    with torch.device("meta"), torch.no_grad():
        network = build(encoder, image_size).eval()
        for conv in filter(lambda module: isinstance(module, nn.Conv2d), network.modules()):
            conv.register_forward_pre_hook(_refuse_one_position)
        for size in sizes:
            images = torch.empty(1, 3, size, size)
            try:
                found = tuple(network(images).shape), network.with_maps(images)[1].dim(), network.dim
            except UserError:
                raise
            except Exception as error:  # each architecture has its own way to refuse
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise UserError(f"arch {encoder.arch} cannot take images of {size} px: {reason}") from error
            if found != ((1, encoder.dim), 4, encoder.dim):
                raise UserError(f"arch {encoder.arch} does not give one vector of dim {encoder.dim} and one map each")


def _refuse_one_position(conv: nn.Conv2d, inputs: tuple[Tensor]) -> None:
    """A stride over a map of one position says that images are too small.

    oneDNN then leaves some gradients of such a depthwise convolution unset in bf16 (seen with torch 2.15).
    """
    if max(conv.stride) > 1 and max(conv.kernel_size) > 1 and inputs[0].shape[-2:] == (1, 1):
        raise ValueError("too small for its strides, of which one meets a map of a single position")


def resnet(encoder: Shape, image_size: int) -> nn.Module:
    """A ResNet.

    The representation is the spatial average of the last map after its ReLU, neither projected nor normalised. Dubois
    et al. 2022, released code.
    """
    block, depths = ARCHS[encoder.arch]
    head = ExpandingHead(encoder.channels, encoder.bottleneck, encoder.dim) if encoder.head == "expand" else None
    network = ResNet(block, depths, encoder.width, image_size, encoder.dim, head)
    if encoder.init == "torch":
        for name, conv in network.named_modules():
            if isinstance(conv, nn.Conv2d) and not name.startswith("resizer"):
                conv.reset_parameters()
    return network


class ResNet(nn.Module):
    """A ResNet without a classifier: (n, 3, H, W) -> (n, channels of the head, or else of the last stage)."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        width: int,
        image_size: int,
        dim: int,
        head: nn.Module | None = None,
    ):
        super().__init__()
        self.dim, self.channels = dim, 8 * width * block.expansion
        small, tiny = image_size < SMALL, image_size < TINY
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False) if small else nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if tiny else nn.MaxPool2d(3, 2, 1)
        grow = block.expansion
        self.layer1 = _stage(block, width, width, depths[0], stride=1)
        self.layer2 = _stage(block, width * grow, 2 * width, depths[1], stride=2)
        self.layer3 = _stage(block, 2 * width * grow, 4 * width, depths[2], stride=2)
        self.layer4 = _stage(block, 4 * width * grow, 8 * width, depths[3], stride=2)
        for conv in filter(lambda module: isinstance(module, nn.Conv2d), self.modules()):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # torchvision's rule
        if small:
            _fan_in_normal_(self.conv1)
        self.resizer = head or nn.Identity()  # last: it has its own initialisation

    def forward(self, images: Tensor) -> Tensor:
        return self.with_maps(images)[0]

    def with_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representation (n, dim) and maps in one pass."""
        maps = self.maps(images)
        return self.resizer(maps).mean(dim=(2, 3)), maps

    def maps(self, images: Tensor) -> Tensor:
        """The last stage, before the expanding head: (n, 3, H, W) -> (n, channels, h / 8, w / 8)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (n, width, h, w)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class ExpandingHead(nn.Module):
    """Sets the dimension of the representation between the last stage and the average pooling.

    Maps (n, channels, h, w) -> (n, dim, h, w) through 1x1, 3x3 and 1x1 convolutions. If `dim` is a multiple of
    `channels`, the input, repeated along the channels, is added before the last ReLU; a smaller `dim` has no such
    residual. Raises ValueError for any other `dim`. Dubois et al. 2022, released code.
    """

    def __init__(self, channels: int, bottleneck: int, dim: int):
        super().__init__()
        if dim > channels and dim % channels:
            raise ValueError(f"dim {dim} must be a multiple of the {channels} channels, or smaller")
        self.copies = dim // channels  # 0: no residual
        self.conv1 = nn.Conv2d(channels, bottleneck, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(bottleneck)
        self.conv2 = nn.Conv2d(bottleneck, bottleneck, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(bottleneck)
        self.conv3 = nn.Conv2d(bottleneck, dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)
        nn.init.normal_(self.conv1.weight, std=bottleneck**-0.5)
        _fan_in_normal_(self.conv2)
        _fan_in_normal_(self.conv3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))  # (n, bottleneck, h, w)
        out = self.relu(self.bn2(self.conv2(out)))  # (n, bottleneck, h, w)
        out = self.bn3(self.conv3(out))  # (n, dim, h, w)
        if self.copies:
            out = out + x.repeat(1, self.copies, 1, 1)  # channel c gets channel c mod channels
        return self.relu(out)


def _stage(block: type[BasicBlock | Bottleneck], inputs: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    """Blocks of one resolution: (n, inputs, h, w) -> (n, planes * expansion, h / stride, w / stride)."""
    outputs = planes * block.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(block(inputs, planes, stride, downsample), *(block(outputs, planes) for _ in range(1, depth)))


def _fan_in_normal_(conv: nn.Conv2d) -> None:
    """Normal with standard deviation 1.137 / sqrt(fan_in).

    The released code divides by 0.8796 to compensate for truncation at two standard deviations; but its limits are
    absolute, so nothing is truncated and only the larger scale remains.
    """
    fan_in = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    nn.init.normal_(conv.weight, std=fan_in**-0.5 / 0.8796)
