"""Colorizers that need no network."""

import cv2
import numpy as np
from numpy.typing import NDArray


class Tinter:
    """ab as a fixed function of lightness, so that a test can say what colour a picture must get.

    scale: of the network that it stands for, whose ab has so many times fewer rows and columns than its input.
    """

    key = "tinter"
    notes = ()

    def __init__(self, scale: int = 4) -> None:
        self.scale = scale

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        _, _, h, w = lightness.shape
        size = w // self.scale, h // self.scale
        cells = [cv2.resize(p[0], size, interpolation=cv2.INTER_AREA) for p in lightness]
        return np.stack([np.stack([0.5 * (c - 40), 0.4 * (60 - c)]) for c in cells]).astype(np.float32)


class Waverer(Tinter):
    """A Tinter that changes its mind about the whole picture by what is in its upper left corner."""

    key = "waverer"

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        ab = super().__call__(lightness)
        _, _, h, w = lightness.shape
        return ab + 0.4 * (lightness[:, :, : h // 8, : w // 8].mean((2, 3), keepdims=True) - 50)


class Flickerer(Tinter):
    """A Tinter whose colour changes from picture to picture as a network's does: with the picture, not with time."""

    key = "flickerer"

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        ab = super().__call__(lightness)
        for i, picture in enumerate(lightness):
            noise = np.random.default_rng(int(picture.view(np.uint32).sum(dtype=np.uint64)))
            ab[i] += noise.normal(0, 4, (2, 1, 1)).astype(np.float32)
        return ab
