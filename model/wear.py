"""Old film: what exposure, projection, time and copying did to the lightness of a picture.

Film is not a clean photograph without its colour: prints fade or gain contrast, corners darken, scans are soft and
grainy, emulsion blotches and gets scratched, and what is at hand today is often a coarse JPEG or video of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_SCRATCHES = 3  # in a scratched picture, at most
_MIDDLE = 128 / 255  # what JPEG takes from every value
_LUMA_TABLE = (  # ITU-T T.81, table K.1: quality 50
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def age(lightness: Tensor, random: torch.Generator) -> Tensor:
    """Half of the pictures as old film. L* (N, 1, h, w) in 0..100, h and w multiples of 8.

    Each has a tone curve, contrast, softness and grain of its own; some are also vignetted, blotched, scratched, dusty
    or coded as JPEG.
    """
    dice = _Dice(lightness, random)
    x = _worn(_exposed(lightness / 100, dice), dice)
    return torch.where(dice.chance(0.5), x.clamp(0, 1) * 100, lightness)


@dataclass(frozen=True)
class _Dice:
    """Random numbers for a batch like `like` (N, 1, h, w), drawn on the generator's device."""

    like: Tensor
    random: torch.Generator

    def uniform(self, low: float, high: float) -> Tensor:
        """One for each picture, (N, 1, 1, 1)."""
        drawn = torch.rand(len(self.like), 1, 1, 1, generator=self.random, device=self.random.device)
        return drawn.to(self.like) * (high - low) + low

    def chance(self, share: float) -> Tensor:
        """Whether each picture is among a share of them, (N, 1, 1, 1)."""
        return self.uniform(0, 1) < share

    def noise(self, cell: int = 1) -> Tensor:
        """Gaussian, (N, 1, h, w): a value for each square of `cell` pixels, bilinear between their centres."""
        n, _, h, w = self.like.shape
        cells = (n, 1, -(-h // cell), -(-w // cell))
        drawn = torch.randn(cells, generator=self.random, device=self.random.device).to(self.like)
        return drawn if cell == 1 else F.interpolate(drawn, (h, w), mode="bilinear")

    def across(self) -> tuple[Tensor, Tensor]:
        """Where a pixel is, down (h, 1) and across (w), in -1..1."""
        down, across = (torch.linspace(-1, 1, n).to(self.like, non_blocking=True) for n in self.like.shape[2:])
        return down[:, None], across


def _exposed(x: Tensor, dice: _Dice) -> Tensor:
    """Tone curve, contrast (faded or crushed), softness, grain fine or coarse, dark corners. x: 0..1."""
    x = x.clamp(0, 1) ** torch.exp(dice.uniform(-0.5, 0.5))
    low, high = dice.uniform(-0.08, 0.2), dice.uniform(0.75, 1.08)
    x = low + (high - low) * x
    x = x + dice.uniform(0, 1) * (_soft(x) - x)
    x = torch.where(dice.chance(0.2), _soft(_soft(x)), x)
    grain = dice.noise()
    x = x + dice.uniform(0, 0.06) * torch.where(dice.chance(0.5), grain, _soft(grain) * 3)
    down, across = dice.across()
    corner = ((down - dice.uniform(-0.3, 0.3)) ** 2 + (across - dice.uniform(-0.3, 0.3)) ** 2) / 2
    return x * torch.where(dice.chance(0.25), 1 - dice.uniform(0, 0.5) * corner, 1)


def _worn(x: Tensor, dice: _Dice) -> Tensor:
    """Blotches, upright scratches and dust, each on a fifth of the pictures; then JPEG on a quarter. x: 0..1."""
    x = x + torch.where(dice.chance(0.2), dice.uniform(0, 0.08) * dice.noise(24), 0)
    down, across = dice.across()
    scratched = dice.chance(0.2)
    for _ in range(_SCRATCHES):
        place = dice.uniform(-1, 1) + dice.uniform(-0.03, 0.03) * down
        line = (across - place).abs() * x.shape[3] < dice.uniform(0.8, 2.5)
        x = x + torch.where(scratched & line & dice.chance(0.6), dice.uniform(-0.4, 0.6), 0)
    spots = dice.noise(4)
    x = x + torch.where(dice.chance(0.2) & (spots.abs() > dice.uniform(2.2, 3)), 0.4 * spots.sign(), 0)
    x = x.clamp(0, 1)
    return torch.where(dice.chance(0.25), _jpeg(x, dice.uniform(0, 1) ** 2 * 7 + 0.5), x)


def _soft(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _jpeg(x: Tensor, coarseness: Tensor) -> Tensor:
    """x (N, 1, h, w) in 0..1 as it comes back from JPEG: the cosine transform of 8×8, rounded (ITU-T T.81).

    coarseness: factor (N, 1, 1, 1) on the table; 1 is quality 50, 5 quality 10.
    """
    n, _, h, w = x.shape
    table = torch.tensor(_LUMA_TABLE).to(x, non_blocking=True) / 255 * coarseness[..., None, None]
    cosine = _cosine_transform().to(x, non_blocking=True)
    blocks = x.reshape(n, h // 8, 8, w // 8, 8).transpose(2, 3)
    rounded = torch.round(cosine @ (blocks - _MIDDLE) @ cosine.T / table[:, 0]) * table[:, 0]
    return (cosine.T @ rounded @ cosine + _MIDDLE).transpose(2, 3).reshape(x.shape)


@cache
def _cosine_transform() -> Tensor:
    """The orthonormal DCT-II of 8 values, (8, 8): frequencies by places."""
    place = torch.arange(8, dtype=torch.float64)
    waves = torch.cos(torch.pi / 8 * (place + 0.5) * place[:, None]) / 2
    waves[0] /= 2**0.5
    return waves.float()
