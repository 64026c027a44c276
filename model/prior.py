"""How common each colour is: from the pictures in use, steadied by what is known of pictures in general.

Few pictures say nothing of most colours. Rebalancing by such a prior weighs the colours they happen to lack hundreds of
times above the others, and the network turns everything green or blue. So a prior here is drawn toward a general
one, the more the fewer pictures it comes from, and no colour is rarer than a fixed share of the uniform.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model.bins import Bins, smoothed_prior
from model.crops import random_crops
from model.data import Photos
from model.spaces import rgb_to_space, yuv
from model.weights import load_model
from pipeline.color import colour_at_lightness

PICTURES = 6000  # that a prior is estimated from at most
# Pictures that the general prior counts as much as. Estimated from 10, 30 and 60 pictures of each of thirteen sources,
# the prior of that source's other pictures was met best (Kullback-Leibler) with 10 to 30, less well with 3 or 100.
GENERAL = 20
FLOOR = 0.01  # of the uniform 1/Q: the least probability of a bin
_CROP, _POOLED, _BATCH = 64, 4, 64  # pixels of a crop; of a cell, whose mean colour counts; crops at a time
_LEVELS = (20, 35, 50, 65, 80)  # L* that a centre in ab stands for where it is turned to another space


def estimate_prior(
    photos: Photos, indices: NDArray[np.int64], bins: Bins, general: NDArray[np.float64] | None = None, seed: int = 0
) -> NDArray[np.float64]:
    """p̃ (Q,) of photographs `indices`, at most 6,000 drawn from them: smoothed, shrunk toward `general`, floored.

    general: (Q,) the prior to lean on, such as `shipped_prior(bins)`; None leans on nothing.
    """
    counts = bin_counts(photos, indices, bins, np.random.default_rng(seed))
    own = smoothed_prior(counts, bins)
    return floored(own if general is None else shrunk(own, general, min(len(indices), PICTURES)))


def bin_counts(photos: Photos, indices: NDArray[np.int64], bins: Bins, rng: np.random.Generator) -> NDArray[np.float64]:
    """How much of the photographs' area falls to each bin (Q,), softly encoded, over at most 6,000 of them.

    A photograph counts as often as training draws it, by the weight of its source: on average once.
    """
    chosen = rng.permutation(indices)[:PICTURES]
    drawn = torch.from_numpy(photos.sampling_probabilities(chosen) * len(chosen))
    codes = bins.soft_codes()
    counts = torch.zeros(len(bins), dtype=torch.float64)
    for first in range(0, len(chosen), _BATCH):
        part = slice(first, first + _BATCH)
        _, chroma = rgb_to_space(bins.space, random_crops(photos, chosen[part], _CROP, rng))
        picked, shares = codes(F.avg_pool2d(chroma, _POOLED))
        counts.index_add_(0, picked.flatten(), (shares * drawn[part, None, None, None]).flatten().double())
    return counts.numpy()


def shrunk(own: NDArray[np.float64], general: NDArray[np.float64], pictures: int) -> NDArray[np.float64]:
    """(n · own + k · general) / (n + k): k = 20 pictures' worth of the general prior."""
    return (pictures * own + GENERAL * general) / (pictures + GENERAL)


def floored(prior: NDArray[np.float64], floor: float = FLOOR) -> NDArray[np.float64]:
    """The prior (Q,) with no bin below `floor` times the uniform, before it is made to sum to 1 again."""
    raised = np.maximum(prior / prior.sum(), floor / len(prior))
    return np.asarray(raised / raised.sum(), np.float64)


def shipped_prior(bins: Bins) -> NDArray[np.float64]:
    """The prior of the default model package, on these bins (Q,), floored."""
    return floored(mapped_prior(*_shipped(), bins))


@cache
def _shipped() -> tuple[NDArray[np.float64], Bins]:
    model = load_model("default")
    return model.prior.astype(np.float64), model.bins


def mapped_prior(prior: NDArray[np.float64], source: Bins, target: Bins) -> NDArray[np.float64]:
    """A prior over the bins `source` on the bins `target`: each centre's share goes to the one nearest to it.

    From CIE ab to UV, which depends on lightness, each centre's share is spread evenly over five lightnesses. Raises
    ValueError from any other space to a different one.
    """
    centers, share = source.centers.astype(np.float64), prior / prior.sum()
    if source.space != target.space:
        if (source.space, target.space) != ("lab", "yuv"):
            raise ValueError(f"expected a prior over lab or {target.space} bins, got {source.space}")
        lightness = np.repeat(np.array(_LEVELS, np.float64), len(centers))
        rgb = colour_at_lightness(lightness, np.tile(centers, (len(_LEVELS), 1)))
        codes = torch.from_numpy(np.rint(rgb * 255).astype(np.uint8))[None, None]
        centers = yuv(codes)[1][0, :, 0].T.double().numpy()
        share = np.tile(share / len(_LEVELS), len(_LEVELS))
    return np.asarray(np.bincount(target.nearest(centers), share, len(target)), np.float64)
