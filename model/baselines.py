"""What a network is to be better than: no colour, and another picture's (Zhang, Isola, Efros 2016, §3)."""

from __future__ import annotations

import zlib
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.color import rgb_to_lab

_SCALE = 4  # of the ab returned, as a network's


class Pictures(Protocol):
    """sRGB pictures (h, w, 3) uint8, read one by one: a list, or photographs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]: ...


def all_grey(lightness: NDArray[np.float32]) -> NDArray[np.float32]:
    """The baseline "gray": a Colorizer's answer, (N, 1, h, w) L* to (N, 2, h/4, w/4) ab, of no colour at all."""
    n, _, h, w = lightness.shape
    return np.zeros((n, 2, h // _SCALE, w // _SCALE), np.float32)


class BorrowedColour:
    """The baseline "random": each picture gets the ab of one of `lenders`, stretched to its shape.

    The lender is drawn by a hash of the picture's lightness, so that the answer depends on nothing else. One of the
    same lightness would be the picture itself; the next is taken instead.
    """

    def __init__(self, lenders: Pictures) -> None:
        if not len(lenders):
            raise ValueError("expected pictures to borrow colour of, got none")
        self._lenders = lenders

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `all_grey`."""
        return np.stack([self._borrowed(picture[0]) for picture in lightness])

    def _borrowed(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        h, w = lightness.shape
        small = cv2.resize(lightness, (w // _SCALE, h // _SCALE), interpolation=cv2.INTER_AREA)
        first = zlib.crc32(np.ascontiguousarray(lightness).tobytes())
        for step in range(2):
            lender = self._lenders[(first + step) % len(self._lenders)]
            reduced = cv2.resize(lender, (w // _SCALE, h // _SCALE), interpolation=cv2.INTER_AREA)
            lab = rgb_to_lab(reduced.astype(np.float32) / 255)
            if np.abs(lab[..., 0] - small).mean() > 1:
                break
        return np.ascontiguousarray(lab[..., 1:].transpose(2, 0, 1), np.float32)
