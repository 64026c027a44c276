"""The network of Zhang et al. 2016: the paper's sizes, and layers as its Table 4 has them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.complexity import complexity
from model.networks.eccv16 import ECCV16, ECCV16Config

SMALL = ECCV16Config(bins=7, width=4)


def published_size() -> ECCV16:
    with torch.device("meta"):
        return ECCV16(ECCV16Config()).eval()


def test_parameters_and_operations_are_the_papers() -> None:
    """83.5 GFLOP counts a multiply-add as two, as PyTorch's own counter does; 41.8 G multiply-adds."""
    net = published_size()
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(32.2, abs=0.05)
    assert complexity(net).flops / 1e9 == pytest.approx(83.5, abs=0.05)


def test_layers_are_those_of_table_4() -> None:
    """(channels, stride, dilation) of every convolution in order, conv8_1 being the transposed one."""
    table = [
        *[(64, 1, 1), (64, 2, 1)],
        *[(128, 1, 1), (128, 2, 1)],
        *[(256, 1, 1), (256, 1, 1), (256, 2, 1)],
        *[(512, 1, 1)] * 3,
        *[(512, 1, 2)] * 6,
        *[(512, 1, 1)] * 3,
        *[(256, 2, 1), (256, 1, 1), (256, 1, 1)],
        (313, 1, 1),
    ]
    layers = [m for m in published_size().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(m.out_channels, m.stride[0], m.dilation[0]) for m in layers] == table
    assert [i for i, m in enumerate(layers) if isinstance(m, nn.ConvTranspose2d)] == [19]
    assert [m.num_features for m in published_size().modules() if isinstance(m, nn.BatchNorm2d)] == [
        *(64, 128, 256, 512, 512, 512, 512)
    ]


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 96), (96, 32)])
def test_logits_are_at_a_quarter_of_the_input(h: int, w: int) -> None:
    with torch.inference_mode():
        assert ECCV16(SMALL).eval()(torch.full((2, 1, h, w), 50.0)).shape == (2, 7, h // 4, w // 4)


def test_a_cell_sees_as_far_as_the_layers_reach() -> None:
    """Kernels, strides and dilation in their places: rows that one cell depends on, by gradient and by geometry."""
    net = ECCV16(ECCV16Config(bins=2, width=2)).eval()
    for name, parameter in net.named_parameters():
        if name.endswith("weight"):
            nn.init.constant_(parameter, 0.1)  # positive, so that no unit is dead
    picture = torch.full((1, 1, 512, 32), 90.0, requires_grad=True)
    net(picture)[0, 0, 64, 4].backward()
    assert picture.grad is not None
    rows = picture.grad[0, 0].abs().sum(1).nonzero().ravel()

    low, high = 64 - 2, 64 + 2  # conv8_3 and conv8_2
    low, high = (low - 1) // 2, (high + 1) // 2  # conv8_1: row i goes to the rows 2i - 1 to 2i + 2
    for reach, stride in [(1, 1)] * 3 + [(2, 1)] * 6 + [(1, 1)] * 3 + [(1, 2), (1, 1), (1, 1)] + [(1, 2), (1, 1)] * 2:
        low, high = low * stride - reach, high * stride + reach
    assert (int(rows[0]), int(rows[-1])) == (low, high)


@pytest.mark.parametrize("wrong", [{"bins": -1}, {"width": "64"}, {"width": 10**6}])
def test_config_that_makes_no_network_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ECCV16Config(**wrong)
