"""Encoders that stand in for the released ones: of the same build, but narrow."""

import torch

from issl.models import encoders
from issl.spec.encoder import ResNet
from issl.spec.released import MODELS

PLAIN = ResNet(arch="resnet10", width=8, dim=64)
EXPANDED = ResNet(arch="resnet10", width=8, dim=192, head="expand", bottleneck=16)


def small(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = encoders.build(MODELS[name].encoder, 224)
        with torch.no_grad():
            encoder.train()(torch.randn(16, 3, 64, 64) * 2)  # statistics that are neither 0 nor 1
        return encoder.eval()
