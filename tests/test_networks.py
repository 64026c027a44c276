"""What holds for every network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from model.networks.eccv16 import ECCV16, ECCV16Config
from model.networks.unet import UNet, UNetConfig

every = pytest.mark.parametrize(
    "make",
    [
        lambda: UNet(UNetConfig(bins=7, widths=(4, 8, 8, 8, 8))),
        lambda: ECCV16(ECCV16Config(bins=5, width=4)),
    ],
    ids=["unet", "eccv16"],
)


@every
def test_a_picture_does_not_see_its_batch(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = make().eval()
    pictures = torch.rand(3, 1, 64, 64) * 100
    with torch.inference_mode():
        together = net(pictures)
        alone = torch.cat([net(p[None]) for p in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@every
def test_every_weight_is_reached_by_the_gradient(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = make()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.01, 0.1)  # positive, so that no unit is dead
    net(torch.rand(2, 1, 64, 64) * 50 + 50).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
