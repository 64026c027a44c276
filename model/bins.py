"""Quantised ab: bins, soft encoding, prior, rebalancing, annealed mean.

Source: Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016 (arXiv 1603.08511), §2; equation numbers are
those of that paper. Shapes: Q bins, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.color import rgb_to_lab

GRID = 10  # width of a bin in a* and b* (§2.1)
SIGMA = 5.0  # of the Gaussians of soft encoding and of the prior's smoothing (§2.1, §2.2)
NEIGHBOURS = 5  # bins that share one colour (§2.1)
LAMBDA = 0.5  # share of the uniform distribution in the rebalancing (§2.2)
TEMPERATURE = 0.38  # of the annealed mean (§2.3)
LIMIT = 112  # |a*| and |b*| of 8-bit sRGB stay below 108


def gamut_bins(grid: int = GRID) -> NDArray[np.float32]:
    """Bin centres (Q, 2) on multiples of `grid`, ordered by a*, then b*: Q = 309 for the grid of 10.

    A bin is kept if a colour of 8-bit sRGB falls into one of the four grid cells that meet at it, so that every
    colour lies between bins and can be an expectation of them. Rounding each colour to its nearest bin gives 261,
    with which saturated colours lie outside the bins' hull. The table published with the paper has 313, some
    of which, such as (-90, 50), no sRGB colour comes near. The surface of the RGB cube reaches every cell that its
    inside does.
    """
    face = np.stack(np.meshgrid(np.linspace(0, 1, 256), np.linspace(0, 1, 256)), axis=-1).reshape(-1, 2)
    surface = np.concatenate([np.insert(face, axis, value, axis=1) for axis in range(3) for value in (0, 1)])
    cells = np.unique(np.floor(rgb_to_lab(surface)[:, 1:] / grid), axis=0)
    corners = [cells + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
    return np.unique(np.concatenate(corners), axis=0).astype(np.float32) * grid


@dataclass(frozen=True)
class SoftCodes:
    """Soft encoding of every whole-numbered (a*, b*), as a table.

    indices: (S, S, K) int64, nearest bin first; weights: (S, S, K) float32, summing to 1; S = 2·LIMIT + 1.
    """

    indices: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> SoftCodes:
        """The same table on a device."""
        return SoftCodes(self.indices.to(device), self.weights.to(device))

    def __call__(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """ab: (N, 2, h, w), rounded to whole numbers. Returns (indices, weights), each (N, h, w, K)."""
        a, b = (ab.round().long().clamp(-LIMIT, LIMIT) + LIMIT).unbind(1)
        return self.indices[a, b], self.weights[a, b]


def soft_codes(bins: NDArray[Any], neighbours: int = NEIGHBOURS, sigma: float = SIGMA) -> SoftCodes:
    """The table that spreads a colour over its nearest bins, weighted by a Gaussian of the distance (§2.1)."""
    axis = np.arange(-LIMIT, LIMIT + 1)
    colours = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)[:, :, None]
    squared = ((colours - bins[None, None].astype(np.float64)) ** 2).sum(-1)
    indices = np.argsort(squared, axis=-1, kind="stable")[..., :neighbours]
    nearest = np.take_along_axis(squared, indices, axis=-1)
    weights = np.exp((nearest[..., :1] - nearest) / (2 * sigma**2))  # relative to the nearest: no underflow far outside
    weights /= weights.sum(-1, keepdims=True)
    return SoftCodes(torch.from_numpy(indices), torch.from_numpy(weights.astype(np.float32)))


def smoothed_prior(counts: NDArray[Any], bins: NDArray[Any], sigma: float = SIGMA) -> NDArray[np.float64]:
    """p̃ (Q,): the share of each bin, its mass spread over the bins around it by a Gaussian, summing to 1 (§2.2)."""
    squared = ((bins[:, None].astype(np.float64) - bins[None]) ** 2).sum(-1)
    kernel = np.exp(-squared / (2 * sigma**2))
    kernel /= kernel.sum(axis=0)
    prior: NDArray[np.float64] = kernel @ (np.asarray(counts, np.float64) / np.sum(counts))
    return prior


def rebalancing(prior: NDArray[Any], uniform: float = LAMBDA) -> NDArray[np.float64]:
    """w (Q,) ∝ ((1-λ)p̃ + λ/Q)⁻¹ with Σ p̃ w = 1: equation 4, λ = `uniform`."""
    prior = np.asarray(prior, np.float64)
    w = 1 / ((1 - uniform) * prior + uniform / len(prior))
    return np.asarray(w / (prior @ w))


def prior_shift(weights: NDArray[Any], share: float) -> NDArray[np.float64]:
    """What to add to the logits (Q,) of a network trained with these weights to take back a share of them.

    A loss weighted by w teaches p(q|L) w_q, up to a factor; -share · log w makes that p(q|L) w_q^(1-share) (Saerens,
    Latinne, Decaestecker 2002). 0 keeps the rebalanced colours, 1 returns to how common they are, which is greyer.
    """
    return -share * np.log(np.asarray(weights, np.float64))


def annealed_mean(logits: Tensor, bins: Tensor, temperature: Tensor | float = TEMPERATURE) -> Tensor:
    """Equation 5: the mean colour of softmax(logits / T). logits (N, Q, h, w), bins (Q, 2); returns ab (N, 2, h, w).

    T → 0 gives the likeliest bin, vivid but speckled; T = 1 the mean, smooth but greyish.
    """
    return torch.nn.functional.conv2d(torch.softmax(logits / temperature, dim=1), bins.T[:, :, None, None])
