"""Steady colour: inside a shot, ab is averaged along the motion of the picture.

Motion is dense inverse search flow (Kroeger et al. 2016) between neighbouring pictures. Each cell of ab carries what
it has gathered so far and how many pictures that is worth; new and old are averaged by that worth, as a Kalman filter
with a fixed noise ratio does. What stands still is remembered longer than what moves. Where the moved old picture
does not look like the new one (something was uncovered, or came into view), the old is worth nothing. A cut forgets
everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

FloatPlane = NDArray[np.float32]
Picture = NDArray[np.uint8]

_SECONDS = 1.6  # of the past that count, so that what a network changes its mind about within a second is averaged, too
_LEAST, _MOST = 16, 96  # pictures, however few or many a second has
# Share of the past that is missing at a seam, after a segment's warm-up. Of a network's flicker that is less than half
# an 8-bit code of Cb or Cr.
_MISSING = 0.03
# Pictures that the past of a cell is worth at most when it has moved: every move loses some of where colour was, and a
# longer past is no gain (measured on pans of 1 to 3 samples a picture and on a weaving gate).
_MOST_MOVED = np.float32(8)
_FLOW_PER_CELL = 2  # flow is computed at half the network's resolution, two samples a cell
_FLOW_CODES = 2.55  # L* to the 8 bits that the flow is computed on
# L* by which the moved old picture may miss the new one, and how many times the picture's median miss (its grain)
# on top: half of the trust is lost there.
_MISS = 1.5
_MISS_PER_GRAIN = 2.0
# Flow fits grain a little: unless it misses less than standing still does by this factor, the cell stands still.
_STILL = 1.25


def warmup_frames(fps: Fraction) -> int:
    """Pictures that prime the state before a segment."""
    return min(max(round(_SECONDS * fps), _LEAST), _MOST)


def strength(fps: Fraction) -> float:
    """Share of the past in a cell that has long been steady: at 25 pictures a second, flicker drops 16-fold."""
    return float(_MISSING ** (1 / warmup_frames(fps)))


class Motion:
    """Motion between neighbouring pictures of a stream, found on cells of a quarter of their resolution."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(0)

    def between(self, old: Picture, new: Picture, size: tuple[int, int]) -> tuple[FloatPlane, FloatPlane]:
        """Where the content of each place of ab was, and how far that is to be trusted.

        Both from `motion_picture`; size: (rows, columns) of ab, a quarter of the lightness or finer. Returns
        displacement (rows, columns, 2) (x, y) in samples of ab from `new` to `old`, and trust (rows, columns) 0..1,
        near 0 where the old picture, moved, does not look like the new one.
        """
        flow = _float(self._flow.calc(new, old, np.empty(0, np.float32)))
        cells = new.shape[0] // _FLOW_PER_CELL, new.shape[1] // _FLOW_PER_CELL
        miss, miss_still = (missed(new, picture, cells) for picture in (moved(old, flow, cv2.INTER_LINEAR), old))
        cell_flow = _float(cv2.resize(flow, cells[::-1], interpolation=cv2.INTER_AREA)) / np.float32(_FLOW_PER_CELL)
        cell_flow[miss_still <= _STILL * miss] = 0
        miss = np.minimum(miss, miss_still)
        trust = _float(1 / (1 + (miss / (_MISS + _MISS_PER_GRAIN * np.median(miss))) ** 4))
        return enlarged(cell_flow, size) * np.float32(size[0] / cells[0]), enlarged(trust, size)


@dataclass(frozen=True)
class _State:
    picture: Picture
    ab: FloatPlane
    worth: FloatPlane


class Steady:
    """Steadies one stream of pictures, fed in order. Not thread-safe; depends on nothing but what it was fed."""

    def __init__(self, strength: float) -> None:
        """strength: 0 (off) to below 1, the share of the past in a cell that has long been steady."""
        if not 0 <= strength < 1:
            raise ValueError(f"expected a strength of 0 to below 1, got {strength = }")
        self._most = strength / (1 - strength)
        self._motion = Motion()
        self._state: _State | None = None

    def step(self, ab: FloatPlane, lightness: FloatPlane, begins_shot: bool) -> FloatPlane:
        """The steadied ab of the next picture.

        ab: (2, h/4, w/4) or finer, up to (2, h, w), from the network. lightness: (h, w) L* 0..100. begins_shot: nothing
        before it counts. Returns the shape of ab, float32.
        """
        h, w = lightness.shape
        if ab.shape not in [(2, h // s, w // s) for s in (4, 2, 1)]:
            raise ValueError(f"expected ab of a quarter of {lightness.shape = } or finer, got {ab.shape = }")
        picture = motion_picture(lightness)
        steadied, worth = ab, np.ones(ab.shape[1:], np.float32)
        if self._state is not None and not begins_shot:
            past, kept = self._carry(self._state, picture)
            steadied, worth = (kept * past + ab) / (kept + 1), kept + 1
        self._state = _State(picture, steadied, np.minimum(worth, np.float32(self._most)))
        return steadied

    def reframe(self, rows: tuple[float, float], columns: tuple[float, float], shape: tuple[int, ...]) -> None:
        """Take what was seen so far as if it had been seen through another window, at `shape` (h, w) of lightness.

        rows, columns: from where to where that reaches, in heights and widths of the last picture's. What was not seen
        yet is worth nothing.
        """
        if self._state is None:
            return
        shrink = self._state.picture.shape[0] * 2 // self._state.ab.shape[1]
        cells, places = (shape[0] // shrink, shape[1] // shrink), (shape[0] // 2, shape[1] // 2)
        self._state = _State(
            np.asarray(_cropped(self._state.picture, rows, columns, places), np.uint8),
            np.stack([_float(_cropped(plane, rows, columns, cells)) for plane in self._state.ab]),
            _float(_cropped(self._state.worth, rows, columns, cells, cv2.BORDER_CONSTANT)),
        )

    def _carry(self, old: _State, picture: Picture) -> tuple[FloatPlane, FloatPlane]:
        """The old ab moved to where its things are now, and its worth in pictures, less where it does not fit."""
        flow, trust = self._motion.between(old.picture, picture, (old.ab.shape[1], old.ab.shape[2]))
        # Move after move, OpenCV's cubic would overshoot and its linear blur, by more than steadying takes away.
        ab = np.stack([_float(moved(plane, flow, cv2.INTER_LANCZOS4)) for plane in old.ab])
        worth = _float(moved(old.worth, flow, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT))
        return ab, trust * np.where(flow.any(-1), np.minimum(worth, _MOST_MOVED), worth)


def motion_picture(lightness: FloatPlane) -> Picture:
    """L* (h, w) 0..100 as `Motion` compares it: half the size, 8 bits."""
    size = lightness.shape[1] // 4 * _FLOW_PER_CELL, lightness.shape[0] // 4 * _FLOW_PER_CELL
    small = cv2.resize(lightness, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.convertScaleAbs(small, alpha=_FLOW_CODES), np.uint8)


def moved(plane: MatLike, flow: FloatPlane, interpolation: int, border: int = cv2.BORDER_REPLICATE) -> MatLike:
    """(h, w) whose every place shows what `plane` has at that place plus `flow` (h, w, 2), in samples (x, y)."""
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]].astype(np.float32)
    return cv2.remap(plane, x + flow[..., 0], y + flow[..., 1], interpolation, borderMode=border, borderValue=0)


def _cropped(
    plane: MatLike,
    rows: tuple[float, float],
    columns: tuple[float, float],
    size: tuple[int, int],
    border: int = cv2.BORDER_REPLICATE,
) -> MatLike:
    """What lies between rows and columns, in heights and widths of the plane, at another (h, w)."""
    y, x = (
        ((np.arange(new) + 0.5) / new * (stop - start) + start) * old - 0.5
        for (start, stop), old, new in zip((rows, columns), plane.shape, size, strict=True)
    )
    across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(plane, across, down, cv2.INTER_LINEAR, borderMode=border, borderValue=0)


def missed(new: Picture, old: MatLike, cells: tuple[int, ...]) -> FloatPlane:
    """Mean |L*| difference around each cell, beyond the one the whole picture shares (an old film's flicker)."""
    difference = _float(cv2.subtract(new, old, dtype=cv2.CV_32F))
    beyond = np.abs(difference - _median(difference))
    around = cv2.blur(cv2.resize(beyond, cells[::-1], interpolation=cv2.INTER_AREA), (3, 3))
    return _float(around) / np.float32(_FLOW_CODES)


def _median(plane: FloatPlane) -> np.float32:
    """As NumPy's, in less time; 0, which it is where nothing flickers, is found by counting."""
    half = plane.size // 2
    if max(np.count_nonzero(plane < 0), np.count_nonzero(plane > 0)) < plane.size / 2:
        return np.float32(0)
    parted = np.partition(plane.ravel(), half)
    return np.float32(parted[half] if plane.size % 2 else (parted[:half].max() + parted[half]) / 2)


def enlarged(plane: FloatPlane, size: tuple[int, int]) -> FloatPlane:
    """Bilinearly to (rows, columns)."""
    return plane if plane.shape[:2] == size else _float(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR))


def _float(plane: MatLike) -> FloatPlane:
    return np.asarray(plane, np.float32)
