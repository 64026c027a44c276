"""The network: shapes, size, and what its output may and may not depend on."""

from __future__ import annotations

import pytest
import torch

from model.complexity import complexity
from model.networks.unet import UNet, UNetConfig

SMALL = UNetConfig(bins=7, widths=(4, 8, 8, 8, 8))


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 96), (96, 32)])
def test_logits_are_at_a_quarter_of_the_input(h: int, w: int) -> None:
    with torch.inference_mode():
        assert UNet(SMALL).eval()(torch.full((2, 1, h, w), 50.0)).shape == (2, 7, h // 4, w // 4)


def test_default_size_is_what_the_card_says() -> None:
    """1.80 G multiply-adds for 256×256, two operations each; with the 313 bins of the shipped package."""
    net = UNet(UNetConfig(bins=313))
    assert complexity(net).flops / 2e9 == pytest.approx(1.80, abs=0.02)
    assert complexity(net).parameters / 1e6 == pytest.approx(3.95, abs=0.02)
    assert all(width % 16 == 0 for width in net.config.widths)


def test_config_read_from_json_lists_equals_the_one_written() -> None:
    assert UNetConfig(bins=7, widths=[4, 8, 8, 8, 8], encoder=[1, 2, 2, 2], decoder=[1, 1, 1]) == SMALL


@pytest.mark.parametrize(
    "wrong",
    [
        {"bins": -1},
        {"widths": (16, 32)},
        {"decoder": (1, 1)},
        {"encoder": (1, 1, 1, 10**9)},
        {"widths": (4, 8, 8, 8, "8")},
    ],
)
def test_config_that_makes_no_network_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        UNetConfig(**({"bins": 7} | wrong))
