"""Black bars at the sides: film of 4:3 in a frame of 16:9, a telephone's picture in a television's.

Left in, they take much of what the network sees, and it judges the rest by them. So it is shown what lies between, and
the bars stay without colour. Bars above and below are left in: they take less, and subtitles come and go in them.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Plane
from pipeline.temporal import WARMUP_FRAMES

_BLACK = 9.0  # L* that no place of a bar is above: black with noise, or a little lifted
_STEPS = 32  # a bar is told in so many parts of the width, so that a blurred edge does not make it breathe
_LEAST, _MOST = 2, 13  # of these parts, each of the two bars; a picture between wider ones is a dark scene
_ALIGNED = 4  # samples of luma, as many as a sample of chroma may stand for


class BarFinder:
    """Fed every picture in order; tells the bars that the last 16 pictures of the shot and this one have in common.

    So nothing before a segment's warm-up counts. A picture that is dark all over has no say, and what is not black is
    never in a bar.
    """

    def __init__(self) -> None:
        self._seen: deque[int | None] = deque(maxlen=WARMUP_FRAMES + 1)

    def step(self, lightness: NDArray[np.float32], begins_shot: bool) -> int:
        """How wide each of two equal bars is in the next picture, (h, w) L* 0..100: in 32nds of the width."""
        if begins_shot:
            self._seen.clear()
        self._seen.append(_bars(lightness))
        return min((bars for bars in self._seen if bars is not None), default=0)


def bar_width(parts: int, width: int) -> int:
    """Samples of each bar in a plane of luma so wide, rounded down to whole samples of chroma."""
    return width * parts // _STEPS // _ALIGNED * _ALIGNED


def between(plane: Plane, parts: int) -> Plane:
    """What lies between the bars of a plane (H, W): a view."""
    bar = bar_width(parts, plane.shape[1])
    return plane[:, bar : plane.shape[1] - bar]


def _bars(lightness: NDArray[np.float32]) -> int | None:
    """What one picture says; None where it is dark."""
    light = np.flatnonzero((lightness > _BLACK).any(0))
    if not len(light):
        return None
    width = lightness.shape[1]
    parts = min(int(light[0]), width - 1 - int(light[-1])) * _STEPS // width
    return min(parts, _MOST) if parts >= _LEAST else 0
