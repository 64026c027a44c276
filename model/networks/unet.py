"""A residual U-Net from lightness to a distribution over ab bins at a quarter of the input's resolution.

The task and the head are those of Zhang, Isola, Efros, "Colorful Image Colorization" (ECCV 2016); the body is a
U-Net (Ronneberger et al. 2015) of residual blocks (He et al. 2016) that stops decoding at 1/4, where ab is wanted.
Colour is decided by what a thing is, so most of the depth sits at 1/8 to 1/32, where a convolution costs little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.sizes import checked_sizes, outputs


@dataclass(frozen=True)
class UNetConfig:
    """Channels and depth per level. Widths are multiples of 16, the block size of vectorised convolutions.

    widths: channels at 1/2, 1/4, 1/8, 1/16 and 1/32. encoder: residual blocks at 1/4 … 1/32; decoder: at 1/4 … 1/16.
    bins: Q, the classes of the head; 0 for a regression of chroma.
    """

    bins: int
    widths: tuple[int, ...] = (16, 64, 96, 160, 192)
    encoder: tuple[int, ...] = (1, 2, 2, 2)
    decoder: tuple[int, ...] = (1, 1, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "encoder", tuple(self.encoder))
        object.__setattr__(self, "decoder", tuple(self.decoder))
        if (len(self.widths), len(self.encoder), len(self.decoder)) != (5, 4, 3):
            raise ValueError(
                f"expected 5 widths, 4 encoder and 3 decoder levels, got {self.widths = }, {self.encoder = }, "
                f"{self.decoder = }"
            )
        checked_sizes(self.bins, self.widths)
        if not all(isinstance(n, int) and 0 <= n <= 64 for n in (*self.encoder, *self.decoder)):
            raise ValueError(f"expected 0 to 64 blocks a level, got {self.encoder = }, {self.decoder = }")


class UNet(nn.Module):
    """L* to logits: see `forward`."""

    scale = 4

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        w = config.widths
        self.stem = _conv_bn_relu(1, w[0], stride=2)
        self.encoder = nn.ModuleList(
            nn.Sequential(_conv_bn_relu(w[i], w[i + 1], stride=2), *_blocks(w[i + 1], n))
            for i, n in enumerate(config.encoder)
        )
        self.context = _Context(w[4])
        self.up = nn.ModuleList(nn.Conv2d(w[i + 2], w[i + 1], 1) for i in range(3))
        self.decoder = nn.ModuleList(nn.Sequential(*_blocks(w[i + 1], n)) for i, n in enumerate(config.decoder))
        self.head = nn.Conv2d(w[1], outputs(config.bins), 1)

    def forward(self, lightness: Tensor) -> Tensor:
        """lightness: (N, 1, h, w) CIE L* 0..100, h and w multiples of 32. Returns logits (N, bins, h/4, w/4).

        Without bins: chroma (N, 2, h/4, w/4) in the units of `model.spaces.UNIT`.
        """
        x = self.stem((lightness - 50) / 100)
        levels = []
        for stage in self.encoder:
            x = stage(x)
            levels.append(x)
        x = self.context(x)
        for i in (2, 1, 0):
            x = self.decoder[i](levels[i] + F.interpolate(self.up[i](x), scale_factor=2.0, mode="nearest"))
        logits: Tensor = self.head(x)
        return logits


class _Residual(nn.Module):
    """x + two 3×3 convolutions; starts as the identity (Goyal et al. 2017, §5.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv_bn_relu(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class _Context(nn.Module):
    """Adds what the whole picture says to every place (global pooling, as in Iizuka et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 2, 1)
        self.spread = nn.Conv2d(channels // 2, channels, 1)
        nn.init.zeros_(self.spread.weight)

    def forward(self, x: Tensor) -> Tensor:
        spread: Tensor = x + self.spread(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return spread


def _conv_bn_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _blocks(channels: int, count: int) -> Iterable[nn.Module]:
    return (_Residual(channels) for _ in range(count))
