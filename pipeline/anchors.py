"""Colour held to what it is seconds before and after, where nothing has changed.

A network's opinion of a place wanders as cars pass by it or a cloud goes over. Anchors are single pictures that lie
seconds apart, on both sides of the moment, coloured each by itself. Where the lightness of a cell is that of an anchor,
its colour is drawn to the anchor's, the more the nearer that is in time; so a place that stands still has the mean of
what the network thinks of it over half a minute. What moves has no anchors, nor has anything while the camera moves.

What the anchors of a moment are does not depend on the segment it is in, so that no seam shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.bars import Window
from pipeline.keyframes import Keyframe
from pipeline.temporal import FloatPlane, Picture, enlarged, missed

REACH = Fraction(16)  # seconds before and after
_NONE = np.float32(1e-6)
_WORTH = np.float32(9)  # pictures that all anchors together count for
_MISS = 2.0  # L* by which a cell may miss the anchor's; half of the trust is lost there
_MOVING, _STANDING = 0.4, 0.7  # shares of trusted cells up to which the camera moves, and from which on it stands


@dataclass(frozen=True)
class Anchor:
    """A picture far from the present one: its time in seconds, its lightness by `motion_picture`, and its ab."""

    seconds: float
    picture: Picture
    ab: FloatPlane


class Anchors:
    """The anchors of moments that are asked for in order, each made once for each window that it is seen through."""

    def __init__(self, near: Callable[[int], Sequence[Keyframe]], make: Callable[[Keyframe, Window], Anchor]) -> None:
        """near: the keyframes within reach of a moment, in pts. make: colours one of them."""
        self._near, self._make = near, make
        self._made: dict[tuple[int, Window], Anchor] = {}

    def at(self, pts: int, window: Window) -> Sequence[Anchor]:
        """Those of a moment; none where that is its only keyframe itself, as in a film of one picture a minute."""
        near = {keyframe.pts: keyframe for keyframe in self._near(pts)}
        self._made = {key: made for key, made in self._made.items() if key[0] in near}
        if near.keys() == {pts}:
            return ()
        for each in near.values():
            if (each.pts, window) not in self._made:
                self._made[each.pts, window] = self._make(each, window)
        return tuple(self._made[each, window] for each in near)


def held(ab: FloatPlane, picture: Picture, seconds: float, anchors: Sequence[Anchor]) -> FloatPlane:
    """ab (2, h/4, w/4) or finer of a picture, drawn to that of its anchors where these look like it.

    picture: the lightness, by `motion_picture`. seconds: its time.
    """
    near = [(anchor, nearness) for anchor in anchors if (nearness := _nearness(anchor.seconds - seconds))]
    if not near:
        return ab
    cells = ab.shape[1], ab.shape[2]
    total = np.zeros(cells, np.float32)
    gathered = np.zeros_like(ab)
    for (anchor, nearness), likeness in zip(near, _likeness(picture, [a.picture for a, _ in near]), strict=True):
        trust = enlarged(likeness, cells) * np.float32(nearness)
        total += trust
        gathered += trust * anchor.ab
    worth = _WORTH * np.minimum(total, 1)
    return np.asarray((ab + worth * gathered / np.maximum(total, _NONE)) / (1 + worth), np.float32)


def _nearness(seconds: float) -> float:
    """1 at no distance, falling smoothly to 0 at the reach, so that anchors come and go unseen."""
    far = abs(seconds) / float(REACH)
    return math.cos(math.pi / 2 * far) ** 2 if far < 1 else 0.0


def _likeness(new: Picture, old: Sequence[Picture]) -> FloatPlane:
    """How far each cell is to be taken for the same place as in N others, (N, rows, columns) 0..1.

    0 throughout where most of a picture is another.
    """
    cells = new.shape[0] // 2, new.shape[1] // 2
    miss = np.stack([missed(new, picture, cells) for picture in old]) / np.float32(_MISS)
    miss *= miss
    trust = 1 / (1 + miss * miss)
    standing = np.clip((trust.mean((1, 2)) - _MOVING) / (_STANDING - _MOVING), 0, 1)
    return np.asarray(trust * (standing**2 * (3 - 2 * standing))[:, None, None], np.float32)
