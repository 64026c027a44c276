"""Black bars round a picture: film of 4:3 in a frame of 16:9, a wide screen's in a television's, both one in the other.

Left in, they take much of what the network sees, and it judges the rest by them. So it is shown the `Window` that lies
between, and the bars stay without colour, with the subtitles or timecode that may stand in them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.chroma import ChromaLayout, chroma_size
from pipeline.color import neutral
from pipeline.frames import Plane

REMEMBERED = 16  # pictures that bars must have been seen in; no more than the warm-up of a segment has
_BLACK = 9.0  # L* that no place of a bar is above: black with noise, or a little lifted
_STEPS = 32  # a bar is told in so many parts of the side, so that a blurred edge does not make it breathe
_LEAST, _MOST = 2, 13  # of these parts, each of the two bars; a picture between wider ones is a dark scene
_ALIGNED = 4  # samples of luma, as many as a sample of chroma may stand for
_UNEQUAL = 2  # rows of the network's input by which bars with writing in them may differ
_WRITTEN = 0.25  # share of such a bar that writing may cover, softened by being made smaller


@dataclass(frozen=True)
class Window:
    """What of a picture lies between its bars: how much each of two equal ones takes, in 32nds of width or height."""

    sides: int = 0
    ends: int = 0

    def of(self, plane: Plane) -> Plane:
        """What lies inside, of a plane of luma (H, W) or a picture (H, W, 3): a view."""
        bar, end = self._bars(*plane.shape[:2])
        return plane[end : plane.shape[0] - end, bar : plane.shape[1] - bar]

    def seen_from(self, other: Window) -> tuple[tuple[float, float], tuple[float, float]]:
        """Its (rows, columns), each from where to where in heights and widths of the other."""
        return _span(self.ends, other.ends), _span(self.sides, other.sides)

    def framed(self, plane: Plane, shape: tuple[int, ...], layout: ChromaLayout) -> Plane:
        """A chroma plane of what lies inside, with neutral bars round it, for a picture of luma (H, W)."""
        if self == WHOLE:
            return plane
        height, width = shape
        (bar, end), (horizontal, vertical) = self._bars(height, width), layout.subsampling
        framed = np.full(chroma_size(height, width, layout.subsampling), neutral(layout.bit_depth), plane.dtype)
        top, left = end >> vertical, bar >> horizontal
        framed[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
        return framed

    def _bars(self, height: int, width: int) -> tuple[int, int]:
        """Samples of luma of each bar at the sides, and above and below, in whole samples of chroma."""
        return bar_size(self.sides, width), bar_size(self.ends, height)


WHOLE = Window()


class BarFinder:
    """Fed every picture in order; tells the bars that the last 16 pictures of the shot and this one have in common.

    So nothing before a segment's warm-up counts. A picture that is dark all over has no say, and what is not black is
    never in a bar, but for writing, which has black all round it.
    """

    def __init__(self) -> None:
        self._seen: deque[Window | None] = deque(maxlen=REMEMBERED + 1)

    def step(self, lightness: NDArray[np.float32], begins_shot: bool) -> Window:
        """What lies between the bars of the next picture, (h, w) L* 0..100."""
        if begins_shot:
            self._seen.clear()
        self._seen.append(find_window(lightness))
        said = [window for window in self._seen if window is not None]
        return Window(min((w.sides for w in said), default=0), min((w.ends for w in said), default=0))


def bar_size(parts: int, side: int) -> int:
    """Samples of each bar in a side of so many, rounded down to whole samples of chroma."""
    return side * parts // _STEPS // _ALIGNED * _ALIGNED


def find_window(lightness: NDArray[np.float32]) -> Window | None:
    """What lies between the bars of one picture, (h, w) L* 0..100; None where it is dark all over."""
    light = lightness > _BLACK
    if not light.any():
        return None
    return Window(_parts(_bars(light.T), light.shape[1]), _parts(_bars(light), light.shape[0]))


def _bars(light: NDArray[np.bool_]) -> int:
    """Rows of each of two equal bars, above and below; one of them may be written on."""
    written, clean = sorted((_edges(light), _edges(light[::-1])))
    return max(min(edge, clean[0]) for edge in written if edge == written[0] or abs(edge - clean[0]) <= _UNEQUAL)


def _edges(light: NDArray[np.bool_]) -> list[int]:
    """Rows from the top that a bar may have, rising: up to the first light one, or to a later one that follows a dark.

    Of what lies above the later ones, at most a quarter is light.
    """
    lit = np.asarray(light.any(1))
    first = int(np.argmax(lit))
    covered = np.cumsum(light.mean(1))
    later = np.flatnonzero(lit[1:] & ~lit[:-1]) + 1
    return [first, *(int(row) for row in later if row > first and covered[row - 1] <= _WRITTEN * row)]


def _span(parts: int, of: int) -> tuple[float, float]:
    start = (parts - of) / (_STEPS - 2 * of)
    return start, 1 - start


def _parts(size: int, side: int) -> int:
    """A bar's size in 32nds of the side; 0 where it is too narrow to be one."""
    parts = size * _STEPS // side
    return min(parts, _MOST) if parts >= _LEAST else 0
