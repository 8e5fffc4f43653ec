"""Entry points of torch.hub: the twelve released DISSL encoders, ResNet-50 pretrained on ImageNet without labels.

Each gives the encoder in eval mode, images (n, 3, H, W) -> representations (n, dim), with `preprocess` and `dim`; see
issl/hub.py, which also loads our own runs. `pretrained=False` gives new weights, `progress` shows the download.
"""

from torch import nn

from issl import hub as _hub  # torch.hub lists whatever can be called and has no underscore

dependencies = ["PIL", "filelock", "safetensors", "torch", "torchvision", "tqdm"]


def dissl_resnet50_dNone_e100_m2(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 2048 dimensions, 100 epochs, views 2x224 px."""
    return _hub.load("dissl_resnet50_dNone_e100_m2", pretrained, progress)


def dissl_resnet50_d8192_e100_m2(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 8192 dimensions, 100 epochs, views 2x224 px."""
    return _hub.load("dissl_resnet50_d8192_e100_m2", pretrained, progress)


def dissl_resnet50_d8192_e100_m6(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 8192 dimensions, 100 epochs, views 2x160 + 4x96 px."""
    return _hub.load("dissl_resnet50_d8192_e100_m6", pretrained, progress)


def dissl_resnet50_dNone_e400_m2(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 2048 dimensions, 400 epochs, views 2x224 px."""
    return _hub.load("dissl_resnet50_dNone_e400_m2", pretrained, progress)


def dissl_resnet50_dNone_e400_m6(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 2048 dimensions, 400 epochs, views 2x160 + 4x96 px."""
    return _hub.load("dissl_resnet50_dNone_e400_m6", pretrained, progress)


def dissl_resnet50_d8192_e400_m6(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 8192 dimensions, 400 epochs, views 2x160 + 4x96 px."""
    return _hub.load("dissl_resnet50_d8192_e400_m6", pretrained, progress)


def dissl_resnet50_d8192_e800_m8(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 8192 dimensions, 800 epochs, views 2x224 + 6x96 px."""
    return _hub.load("dissl_resnet50_d8192_e800_m8", pretrained, progress)


def dissl_resnet50_d4096_e100_m2(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 4096 dimensions, 100 epochs, views 2x224 px."""
    return _hub.load("dissl_resnet50_d4096_e100_m2", pretrained, progress)


def dissl_resnet50_dNone_e100_m2_augSmall(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 2048 dimensions, 100 epochs, views 2x224 px, weaker augmentation."""
    return _hub.load("dissl_resnet50_dNone_e100_m2_augSmall", pretrained, progress)


def dissl_resnet50_dNone_e100_m2_augLarge(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 2048 dimensions, 100 epochs, views 2x224 px, stronger augmentation."""
    return _hub.load("dissl_resnet50_dNone_e100_m2_augLarge", pretrained, progress)


def dissl_resnet50_dNone_e100_m2_headTLinSLin(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 2048 dimensions, 100 epochs, views 2x224 px, linear teacher."""
    return _hub.load("dissl_resnet50_dNone_e100_m2_headTLinSLin", pretrained, progress)


def dissl_resnet50_dNone_e100_m2_headTMlpSMlp(pretrained: bool = True, progress: bool = True) -> nn.Module:
    """DISSL, 2048 dimensions, 100 epochs, views 2x224 px, MLP student."""
    return _hub.load("dissl_resnet50_dNone_e100_m2_headTMlpSMlp", pretrained, progress)
