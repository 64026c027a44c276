"""Quantised chroma: bins, soft encoding, prior, rebalancing, annealed mean.

Source: Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016 (arXiv 1603.08511), §2; equation numbers are
those of that paper. Shapes: Q bins, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.spaces import Space, checked_space
from pipeline.color import rgb_to_lab
from pipeline.errors import InputError

GRID = 10  # width of a bin in both axes (§2.1)
SIGMA = 5.0  # of the Gaussians of soft encoding and of the prior's smoothing (§2.1, §2.2)
NEIGHBOURS = 5  # bins that share one colour (§2.1)
LAMBDA = 0.5  # share of the uniform distribution in the rebalancing (§2.2)
TEMPERATURE = 0.38  # of the annealed mean (§2.3)
LIMIT = 128  # |a*| and |b*| of 8-bit sRGB stay below 108, |U| and |V| below 128
_PUBLISHED = ((40, 90), (100, -90), (100, -10), (100, 0))  # in the paper's table, reached by no 8-bit colour


@dataclass(frozen=True, eq=False)
class SoftCodes:
    """Soft encoding of every whole-numbered chroma, as a table.

    indices: (S, S, K) int64, nearest bin first; weights: (S, S, K) float32, summing to 1; S = 2·LIMIT + 1.
    """

    indices: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> SoftCodes:
        """The same table on a device."""
        return SoftCodes(self.indices.to(device), self.weights.to(device))

    def __call__(self, chroma: Tensor) -> tuple[Tensor, Tensor]:
        """chroma: (N, 2, h, w), rounded to whole numbers. Returns (indices, weights), each (N, h, w, K)."""
        x, y = (chroma.round().long().clamp(-LIMIT, LIMIT) + LIMIT).unbind(1)
        return self.indices[x, y], self.weights[x, y]


@dataclass(frozen=True, eq=False)
class Bins:
    """Classes of colour: centres (Q, 2) float32 in a colour space of `model.spaces`.

    Q = 0 stands for no classes: the network then gives the chroma itself (a regression).
    """

    space: Space
    centers: NDArray[np.float32]

    def __post_init__(self) -> None:
        checked_space(self.space)
        object.__setattr__(self, "centers", np.ascontiguousarray(self.centers, np.float32))
        if self.centers.ndim != 2 or self.centers.shape[1] != 2 or not np.all(np.abs(self.centers) <= 1.2 * LIMIT):
            raise ValueError(f"expected centres (Q, 2) of at most {1.2 * LIMIT:.0f}, got {self.centers.shape = }")

    def __len__(self) -> int:
        return len(self.centers)

    def soft_codes(self, neighbours: int = NEIGHBOURS, sigma: float = SIGMA) -> SoftCodes:
        """The table that spreads a colour over its nearest bins, weighted by a Gaussian of the distance (§2.1).

        Of bins equally near, the first counts as nearer. Fewer bins than neighbours share among all of them.
        """
        return _soft_codes(self.centers.tobytes(), neighbours, sigma)

    def nearest(self, chroma: NDArray[Any]) -> NDArray[np.int64]:
        """Index (...) of the bin nearest to each chroma (..., 2), which is rounded to whole numbers first."""
        x, y = np.moveaxis(np.clip(np.rint(chroma), -LIMIT, LIMIT).astype(np.int64) + LIMIT, -1, 0)
        nearest: NDArray[np.int64] = self.soft_codes(neighbours=1).indices[..., 0].numpy()
        return np.asarray(nearest[x, y])


@lru_cache(maxsize=8)
def _soft_codes(centers: bytes, neighbours: int, sigma: float) -> SoftCodes:
    """The table for centres (Q, 2), float32 as bytes; made in a second."""
    points = np.frombuffer(centers, np.float32).reshape(-1, 2)
    rows = [_soft_row(points, x, neighbours, sigma) for x in range(-LIMIT, LIMIT + 1)]
    indices, weights = (np.stack(tables) for tables in zip(*rows, strict=True))
    return SoftCodes(torch.from_numpy(indices), torch.from_numpy(weights))


def _soft_row(
    centers: NDArray[np.float32], x: int, neighbours: int, sigma: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and weights (S, K) of the colours of one first coordinate."""
    y = np.arange(-LIMIT, LIMIT + 1)[:, None]
    squared = (x - centers[:, 0].astype(np.float64)) ** 2 + (y - centers[:, 1].astype(np.float64)) ** 2
    indices = np.argsort(squared, axis=-1, kind="stable")[:, :neighbours]
    nearest = np.take_along_axis(squared, indices, axis=-1)
    weights = np.exp((nearest[:, :1] - nearest) / (2 * sigma**2))  # relative to the nearest: no underflow far outside
    return indices, (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def no_bins(space: Space = "lab") -> Bins:
    """What a regression in this space has for bins."""
    return Bins(space, np.empty((0, 2), np.float32))


@cache
def gamut_bins(grid: int = GRID) -> Bins:
    """The bins of ab in gamut, ordered by a*, then b*: the paper's 313 for its grid of 10.

    A multiple of `grid` is in gamut if a colour of 8-bit sRGB falls into one of the four grid cells that meet at it, so
    that every colour lies between bins and can be an expectation of them. That gives 309; the table published with
    the paper has these and four more, (40, 90), (100, -90), (100, -10) and (100, 0), which are added. Rounding
    each colour to its nearest multiple would give 261, with saturated colours outside the bins' hull. The surface
    of the RGB cube reaches every cell that its inside does.
    """
    face = np.stack(np.meshgrid(np.linspace(0, 1, 256), np.linspace(0, 1, 256)), axis=-1).reshape(-1, 2)
    surface = np.concatenate([np.insert(face, axis, value, axis=1) for axis in range(3) for value in (0, 1)])
    cells = np.unique(np.floor(rgb_to_lab(surface)[:, 1:] / grid), axis=0)
    corners = [(cells + corner) * grid for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
    published = [np.array(_PUBLISHED)] if grid == GRID else []
    return Bins("lab", np.unique(np.concatenate(corners + published), axis=0))


def frequent_bins(chroma: Iterable[NDArray[Any]], n: int = 32, space: Space = "yuv", grid: int = GRID) -> Bins:
    """The n cells of the grid that most pixels of the data round to, ordered by coordinates (Billaut et al. 2018).

    chroma: parts of the data, each (..., 2) in the space; read once, one at a time. Of cells equally frequent, those
    nearer neutral are taken. Raises InputError where the data has colour in fewer than n cells.
    """
    reach = LIMIT // grid + 1
    side = 2 * reach + 1
    counts = np.zeros(side * side, np.int64)
    for part in chroma:
        cells = np.clip(np.rint(part.reshape(-1, 2) / grid).astype(np.int64), -reach, reach) + reach
        counts += np.bincount(cells @ [side, 1], minlength=len(counts))
    found = np.flatnonzero(counts)
    if len(found) < n:
        raise InputError(f"the data's colours fall into {len(found)} cells of {space}, expected at least {n}; add data")
    cells = np.stack(np.divmod(found, side), axis=-1) - reach
    order = np.lexsort(((cells**2).sum(1), -counts[found]))
    return Bins(space, np.unique(cells[order[:n]] * grid, axis=0))


def smoothed_prior(counts: NDArray[Any], bins: Bins, sigma: float = SIGMA) -> NDArray[np.float64]:
    """p̃ (Q,): the share of each bin, its mass spread over the bins around it by a Gaussian, summing to 1 (§2.2)."""
    centers = bins.centers.astype(np.float64)
    squared = ((centers[:, None] - centers[None]) ** 2).sum(-1)
    kernel = np.exp(-squared / (2 * sigma**2))
    kernel /= kernel.sum(axis=0)
    prior: NDArray[np.float64] = kernel @ (np.asarray(counts, np.float64) / np.sum(counts))
    return prior


def rebalancing(prior: NDArray[Any], uniform: float = LAMBDA, cap: float | None = None) -> NDArray[np.float64]:
    """w (Q,) ∝ ((1-λ)p̃ + λ/Q)⁻¹ with Σ p̃ w = 1: equation 4, λ = `uniform`.

    cap: the most that one bin may weigh, in units of the mean weight, Σ p̃ w, before the last normalisation; None for
    no limit, as in the paper.
    """
    prior = np.asarray(prior, np.float64)
    w = 1 / ((1 - uniform) * prior + uniform / len(prior))
    w = np.minimum(w, np.inf if cap is None else cap * (prior @ w))
    return np.asarray(w / (prior @ w))


def prior_shift(weights: NDArray[Any], share: float) -> NDArray[np.float64]:
    """What to add to the logits (Q,) of a network trained with these weights to take back a share of them.

    A loss weighted by w teaches p(q|L) w_q, up to a factor; -share · log w makes that p(q|L) w_q^(1-share) (Saerens,
    Latinne, Decaestecker 2002). 0 keeps the rebalanced colours, 1 returns to how common they are, which is greyer.
    """
    return -share * np.log(np.asarray(weights, np.float64))


def annealed_mean(logits: Tensor, centers: Tensor, temperature: Tensor | float = TEMPERATURE) -> Tensor:
    """Equation 5: the mean colour of softmax(logits / T). logits (N, Q, h, w), centers (Q, 2); gives (N, 2, h, w).

    T → 0 gives the likeliest bin, vivid but speckled; T = 1 the mean, smooth but greyish. Bins go last, as convolutions
    lay them out on CPUs: OpenVINO then needs no change of layout, and half the time.
    """
    probability = torch.softmax(logits.movedim(1, -1) / temperature, dim=-1)
    return (probability @ centers).movedim(-1, 1).contiguous()
