"""A U-Net that classifies the colour of every pixel, after Billaut, de Rochemonteix, Thibault, "ColorUNet: A
convolutional classification approach to colorization" (2018, arXiv 1811.03120).

Three kinds of cell, as in the paper: DownConv (two 3×3 convolutions with ReLU, 2×2 max pooling, normalisation), UpConv
(3×3 transposed convolution of stride 2, two 3×3 convolutions, each with ReLU, normalisation, then channel concatenation
with the DownConv output of the same size) and Output (3×3 transposed convolution, 3×3 convolution, each with ReLU,
1×1 convolution to the bins). Normalisation is over the channels of each place (Ba et al. 2016, LayerNorm) where
the paper has BatchNorm: training and use then compute alike, whatever the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from model.networks.sizes import checked_sizes, outputs


@dataclass(frozen=True)
class ColorUNetConfig:
    """Sizes. bins: Q, the classes of the head; 0 for a regression of chroma.

    widths: channels of the DownConv cells, at 1/2, 1/4 … of the input; at most five, as both sides of the
    input are multiples of 32. The UpConv cells mirror them. Widths that begin with 16 and double
    at every cell are after an early public implementation, five levels are ours.
    """

    bins: int = 32
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        checked_sizes(self.bins, self.widths)
        if not 1 <= len(self.widths) <= 5:
            raise ValueError(f"expected 1 to 5 widths, got {self.widths = }")


class ColorUNet(nn.Module):
    """L* to logits of every pixel: see `forward`."""

    scale = 1

    def __init__(self, config: ColorUNetConfig) -> None:
        super().__init__()
        self.config = config
        w = config.widths
        self.down = nn.ModuleList(_DownConv(i, o) for i, o in pairwise((1, *w)))
        # The deepest level comes with w[-1] channels; every UpConv ends with twice the width of its level.
        inputs = (w[-1], *(2 * n for n in w[-2::-1]))
        self.up = nn.ModuleList(_UpConv(i, o) for i, o in zip(inputs, w[-2::-1], strict=False))
        self.output = nn.Sequential(
            *_up_relu(inputs[-1], w[0]), *_conv_relu(w[0], w[0]), nn.Conv2d(w[0], outputs(config.bins), 1)
        )

    @property
    def head(self) -> nn.Conv2d:
        """The convolution that gives the output."""
        head = self.output[-1]
        assert isinstance(head, nn.Conv2d)
        return head

    def forward(self, lightness: Tensor) -> Tensor:
        """lightness: (N, 1, h, w) CIE L* 0..100, h and w multiples of 32. Returns logits (N, bins, h, w).

        Without bins: chroma (N, 2, h, w) in the units of `model.spaces.UNIT`.
        """
        x = (lightness - 50) / 100
        levels = []
        for cell in self.down:
            x = cell(x)
            levels.append(x)
        for cell, level in zip(self.up, levels[-2::-1], strict=True):
            x = torch.cat([cell(x), level], dim=1)
        logits: Tensor = self.output(x)
        return logits


class _DownConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            *_conv_relu(inputs, outputs), *_conv_relu(outputs, outputs), nn.MaxPool2d(2), _ChannelNorm(outputs)
        )


class _UpConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            *_up_relu(inputs, outputs),
            *_conv_relu(outputs, outputs),
            *_conv_relu(outputs, outputs),
            _ChannelNorm(outputs),
        )


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of (N, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv_relu(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)


def _up_relu(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1), nn.ReLU(inplace=True)
