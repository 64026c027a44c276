"""What training pictures go through: the lightness that film and video saw, and the five views of ColorUNet.

A sample's input is not always its own lightness: film saw colours with other weights than the eye. What time did to it
is in `model.wear`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.crops import Boxes, crops
from model.data import Photos
from model.spaces import grey_lightness, lab_f
from pipeline.color import KR_KB, RGB_TO_XYZ

FIVE_FOLD = ("central", "random", "random", "flipped", "noisy")  # the views of one picture (Billaut et al. 2018)
NOISE = 0.03  # standard deviation of the noisy view's Gaussian, of full scale in encoded sRGB


def film_lightness(linear: Tensor, rgb: Tensor, random: torch.Generator) -> Tensor:
    """The L* (N, 1, h, w) that a monochrome copy of each picture would show.

    linear: (N, 3, h, w) linear light; rgb: the same (N, h, w, 3) uint8 sRGB. Two in five keep their own L*. Two in five
    are desaturated video: L* of the grey whose Y' is the picture's luma (ITU-R BT.601). One in five is film: linear
    light summed with random weights, from nearly blind to red (orthochromatic) to mostly sensitive to it.
    """
    n = len(linear)
    red, blue = KR_KB["bt601"]
    luma = (rgb.float() / 255) @ torch.tensor([red, 1 - red - blue, blue]).to(rgb.device, non_blocking=True)
    sensitivity = torch.tensor(RGB_TO_XYZ[1]).to(linear, non_blocking=True)
    eye = (linear * sensitivity[:, None, None]).sum(1, True)
    weights = torch.rand(n, 3, 1, 1, generator=random, device=random.device).to(linear) ** 2 + 0.05
    film = (linear * weights / weights.sum(1, keepdim=True)).sum(1, True)
    kind = torch.rand(n, 1, 1, 1, generator=random, device=random.device).to(linear)
    seen = 116 * lab_f(torch.where(kind < 0.4, eye, film)) - 16
    return torch.where((kind >= 0.4) & (kind < 0.8), grey_lightness(luma)[:, None], seen)


def five_fold_crops(
    photos: Photos, indices: NDArray[np.int64], kinds: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Tensor:
    """Views `kinds` (N,), places in FIVE_FOLD, of photographs `indices` (N,): (N, size, size, 3) uint8 sRGB.

    A view is a square of the whole short edge, resized: the central one, two at random places along the long edge, one
    of those mirrored, one with Gaussian noise. Every picture once in each view makes an epoch of five times as many.
    """
    sizes = photos.sizes[indices]
    side = sizes.min(axis=1)
    room = sizes - side[:, None]
    names = np.array(FIVE_FOLD)[kinds]
    share = np.where(names == "central", 0.5, rng.random(len(indices)))
    place = np.rint(room * share[:, None]).astype(np.int64)
    found = crops(photos, indices, Boxes(place[:, 0], place[:, 1], side, names == "flipped"), size)
    noise = torch.from_numpy(rng.standard_normal(found.shape, np.float32)) * (255 * NOISE)
    noisy = torch.from_numpy(names == "noisy")[:, None, None, None]
    return torch.where(noisy, (found + noise).round().clamp(0, 255).to(torch.uint8), found)
