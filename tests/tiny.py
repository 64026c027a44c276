"""One tiny network for all tests that need any: a graph takes seconds to export, and each is exported once a run."""

from __future__ import annotations

import torch

from model.networks.unet import UNet, UNetConfig
from model.weights import stored


def tiny_unet(bins: int = 313) -> UNet:
    """Random weights whose colours spread, rounded as a package rounds them, for evaluation."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(bins=bins, widths=(8, 16, 16, 16, 16), encoder=(1, 0, 0, 1), decoder=(0, 0, 1)))
    for _ in range(3):
        net(torch.rand(4, 1, 64, 64) * 100)
    torch.nn.init.normal_(net.head.weight, std=1.0 if bins else 0.1)
    net.load_state_dict({name: stored(tensor) for name, tensor in net.state_dict().items()})
    return net.eval().requires_grad_(False)
