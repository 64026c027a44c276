"""The network of Billaut et al. 2018: its cells in their order, at full resolution, normalised place by place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.complexity import complexity
from model.networks.colorunet import ColorUNet, ColorUNetConfig

SMALL = ColorUNetConfig(bins=7, widths=(4, 8, 8))


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 96), (96, 32)])
def test_logits_are_at_the_inputs_resolution(h: int, w: int) -> None:
    with torch.inference_mode():
        assert ColorUNet(SMALL).eval()(torch.full((2, 1, h, w), 50.0)).shape == (2, 7, h, w)


def test_cells_are_those_of_the_paper() -> None:
    """(kind, inputs, outputs) of every layer with weights, in order; concatenation doubles what UpConv cells give."""
    down, up, norm = "conv", "up", "norm"
    expected = [
        *[(down, 1, 16), (down, 16, 16), (norm, 16, 16)],
        *[(down, 16, 32), (down, 32, 32), (norm, 32, 32)],
        *[(down, 32, 64), (down, 64, 64), (norm, 64, 64)],
        *[(up, 64, 32), (down, 32, 32), (down, 32, 32), (norm, 32, 32)],
        *[(up, 64, 16), (down, 16, 16), (down, 16, 16), (norm, 16, 16)],
        *[(up, 32, 16), (down, 16, 16), ("1x1", 16, 32)],
    ]
    found = []
    for layer in ColorUNet(ColorUNetConfig(widths=(16, 32, 64))).modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            kind = up if isinstance(layer, nn.ConvTranspose2d) else down if layer.kernel_size == (3, 3) else "1x1"
            found.append((kind, layer.in_channels, layer.out_channels))
        elif isinstance(layer, nn.LayerNorm):
            found.append((norm, *layer.normalized_shape * 2))
    assert found == expected
    assert len([m for m in ColorUNet(ColorUNetConfig()).modules() if isinstance(m, nn.MaxPool2d)]) == 5


def test_normalisation_is_over_the_channels_of_each_place() -> None:
    norm = next(m for m in ColorUNet(SMALL).modules() if isinstance(m, nn.LayerNorm))
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    x = torch.randn(2, 4, 3, 5) * 7 + 3
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    weight, bias = norm.weight[:, None, None], norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), (x - mean) / (variance + 1e-5).sqrt() * weight + bias, atol=1e-5, rtol=1e-4)


def test_training_and_use_compute_alike() -> None:
    torch.manual_seed(0)
    net, picture = ColorUNet(SMALL), torch.rand(2, 1, 32, 64) * 100
    with torch.inference_mode():
        torch.testing.assert_close(net.train()(picture), net.eval()(picture))


def test_default_size_is_as_stated() -> None:
    size = complexity(ColorUNet(ColorUNetConfig()))
    assert size.parameters / 1e6 == pytest.approx(2.07, abs=0.01)
    assert size.flops / 1e9 == pytest.approx(3.52, abs=0.01)


def test_config_read_from_json_lists_equals_the_one_written() -> None:
    assert ColorUNetConfig(bins=7, widths=[4, 8, 8]) == SMALL


@pytest.mark.parametrize("wrong", [{"bins": -1}, {"bins": "9"}, {"widths": ()}, {"widths": (8,) * 6}, {"widths": (0,)}])
def test_config_that_makes_no_network_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ColorUNetConfig(**wrong)
