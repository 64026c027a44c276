"""The network: shapes, size, and what its output may and may not depend on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.networks.unet import UNet, UNetConfig

SMALL = UNetConfig(bins=7, widths=(4, 8, 8, 8, 8))


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 96), (96, 32)])
def test_logits_are_at_a_quarter_of_the_input(h: int, w: int) -> None:
    with torch.inference_mode():
        assert UNet(SMALL).eval()(torch.full((2, 1, h, w), 50.0)).shape == (2, 7, h // 4, w // 4)


def test_default_size_is_what_the_card_says() -> None:
    net = UNet(UNetConfig(bins=309)).eval()
    done = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal done
        done += output.numel() * layer.weight[0].numel()  # multiply-adds of a convolution

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.full((1, 1, 256, 256), 50.0))
    assert done / 1e9 == pytest.approx(1.80, abs=0.02)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(3.95, abs=0.02)
    assert all(width % 16 == 0 for width in net.config.widths)


def test_config_read_from_json_lists_equals_the_one_written() -> None:
    assert UNetConfig(bins=7, widths=[4, 8, 8, 8, 8], encoder=[1, 2, 2, 2], decoder=[1, 1, 1]) == SMALL


@pytest.mark.parametrize(
    "wrong",
    [
        {"bins": 0},
        {"widths": (16, 32)},
        {"decoder": (1, 1)},
        {"encoder": (1, 1, 1, 10**9)},
        {"widths": (4, 8, 8, 8, "8")},
    ],
)
def test_config_that_makes_no_network_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        UNetConfig(**({"bins": 7} | wrong))
