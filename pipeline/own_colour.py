"""Pictures that came in colour keep it: mixed reels are common, and real colour is never thrown away."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from pipeline.chroma import ChromaLayout, chroma_size
from pipeline.color import chroma_range
from pipeline.frames import FrameBatch, Plane
from pipeline.quality import has_real_colour

_EVERY = 4  # pictures between two looks at the source's chroma
_AGREEING = 2  # looks in a row that turn a shot to colour once its first look said grey


class OwnColour:
    """Decides, shot by shot, whether pictures keep the chroma they came with.

    The first picture of a shot decides; a shot that first looked grey (a fade from black) turns to its own colour
    after two agreeing looks, and stays so until the next cut.
    """

    def __init__(self, bit_depth: int) -> None:
        self._bit_depth = bit_depth
        self._keeping = False
        self._agreeing = 0
        self._until_look = 0

    def keeps(self, batch: FrameBatch, cuts: list[bool]) -> list[bool]:
        """One answer a picture; `cuts` tells which pictures begin a shot."""
        return [self._step(batch, i, cut) for i, cut in enumerate(cuts)]

    def _step(self, batch: FrameBatch, i: int, cut: bool) -> bool:
        if batch.chroma is None:
            return False
        if cut:
            self._keeping, self._agreeing, self._until_look = False, _AGREEING - 1, 0
        if not self._keeping and self._until_look == 0:
            seen = has_real_colour(batch.luma[i], batch.chroma[0][i], batch.chroma[1][i], self._bit_depth)
            self._agreeing = self._agreeing + 1 if seen else 0
            self._keeping = self._agreeing >= _AGREEING
            self._until_look = _EVERY
        self._until_look = max(0, self._until_look - 1)
        return self._keeping


def fit_chroma(plane: Plane, source: ChromaLayout, target: ChromaLayout, luma_shape: tuple[int, int]) -> Plane:
    """A chroma plane (Hc, Wc) of the source in the target's depth, range and subsampling; untouched where they agree.

    luma_shape: (H, W) of the picture. Samples are averaged or interpolated where the plane's size changes.
    """
    height, width = chroma_size(*luma_shape, target.subsampling)
    if plane.shape != (height, width):
        shrinking = plane.shape[0] >= height and plane.shape[1] >= width
        how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        plane = cast(Plane, cv2.resize(plane, (width, height), interpolation=how))
    if (source.bit_depth, source.full_range) == (target.bit_depth, target.full_range):
        return plane
    zero, span = chroma_range(source.full_range, source.bit_depth)
    new_zero, new_span = chroma_range(target.full_range, target.bit_depth)
    codes = np.rint((plane - zero) * (new_span / span) + new_zero)
    return cast(Plane, np.clip(codes, 0, (1 << target.bit_depth) - 1).astype(target.dtype))
