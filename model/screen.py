"""What is not worth training on: bars cut away, and a reason for every picture that is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.color import rgb_to_lab, rgb_to_ycbcr
from pipeline.quality import has_real_colour

Reason = Literal["unreadable", "tiny", "dark", "grey", "tinted", "near-duplicate"]

_BAR_LEVEL, _BAR_NOISE = 24, 3.0  # 8-bit codes: what a bar's brightest 1 % and its deviation stay below
_LEAST_BAR = 0.02  # share of the side; a dark edge thinner than that is left alone
_MOST_BARS = 0.8  # share of the side that bars may take; a picture blacker than that is dark, not letterboxed
_CELLS = (32, 24)  # (width, height) that colours are averaged over
_SHARE = 95  # per cent of the picture; a time stamp or a logo stays below the rest
_VIVID_SHARE = 98  # ... of which a small thing of strong colour, which makes a picture worth keeping, is more
_WARM = (40.0, 115.0)  # hue in degrees of CIE Lab: sepia, and the yellow of old varnish and prints
_HASH_SIDE, _HASH_KEPT = 32, 8  # the thumbnail, and its lowest frequencies each way


@dataclass(frozen=True)
class Screening:
    """Bounds; of 900 photographs that were in colour, these leave out 4 %, of toned copies of them all but 1 %.

    short_edge: pixels, without bars. dark: L* that 95 % of a picture stay below. grey: C*ab likewise, with 98 % below
    twice that. tint, warm_tint: C*ab that 95 % of a picture of one hue stay below to count as tinted rather than as a
    picture of one colour (sky, sea); warm hues are those of sepia. alike: bits of 64 in which the hashes of
    near-duplicates differ at most; alike_in_video: the same among the pictures of one video. Hashes differ in an even
    number, as half of the bits are set. Among 28,000 photographs, the 15 pairs that differ in 2 are duplicates, of the
    23 in 4 most, of the 52 in 6 few.
    """

    short_edge: int = 64
    dark: float = 14.0
    grey: float = 6.0
    tint: float = 24.0
    warm_tint: float = 38.0
    alike: int = 4
    alike_in_video: int = 10


def without_bars(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (h, w, 3) without black bars above and below, left and right: a view, the same where there are none.

    A bar is flat and black from the edge on, at least 2 % of the side. A picture that is black in more than 80 % of
    a side, or dark in more than 95 % of its area, is left as it is.
    """
    level = rgb.max(axis=2)
    if np.percentile(level, _SHARE) <= 2 * _BAR_LEVEL:
        return rgb
    top, bottom = _bars(level)
    left, right = _bars(level[top : len(level) - bottom].T)
    return rgb[top : rgb.shape[0] - bottom, left : rgb.shape[1] - right]


def _bars(level: NDArray[np.uint8]) -> tuple[int, int]:
    """Rows of bar at the beginning and at the end of (h, w)."""
    black = (np.percentile(level, 99, axis=1) <= _BAR_LEVEL) & (level.std(axis=1) <= _BAR_NOISE)
    if black.all():
        return 0, 0
    before, after = int(np.argmin(black)), int(np.argmin(black[::-1]))
    before, after = (rows if rows >= _LEAST_BAR * len(black) else 0 for rows in (before, after))
    return (before, after) if before + after <= _MOST_BARS * len(black) else (0, 0)


def fault(rgb: NDArray[np.uint8], screening: Screening) -> Reason | None:
    """Why a picture (h, w, 3) by itself is no use to train on; None if it is."""
    if min(rgb.shape[:2]) < screening.short_edge:
        return "tiny"
    cells = cv2.resize(rgb, _CELLS, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lightness, a, b = np.moveaxis(rgb_to_lab(cells), -1, 0)
    if np.percentile(lightness, _SHARE) < screening.dark:
        return "dark"
    chroma, vivid = np.percentile(np.hypot(a, b), (_SHARE, _VIVID_SHARE))
    if chroma < screening.grey and vivid < 2 * screening.grey:
        return "grey"
    hue = float(np.degrees(np.arctan2(b.sum(), a.sum())))
    bound = screening.warm_tint if _WARM[0] <= hue <= _WARM[1] else screening.tint
    return "tinted" if chroma < bound and not _many_colours(rgb) else None


def _many_colours(rgb: NDArray[np.uint8]) -> bool:
    planes = (np.clip(np.rint(p), 0, 255) for p in rgb_to_ycbcr(rgb.astype(np.float32) / 255, "bt601", True, 8))
    luma, cb, cr = (plane.astype(np.uint8) for plane in planes)
    return has_real_colour(luma, cb, cr, 8)


def perceptual_hash(rgb: NDArray[np.uint8]) -> int:
    """64 bits that near-duplicates share but for a few: signs of the lowest frequencies about their median.

    The discrete cosine transform of a 32×32 thumbnail's luma, its 8×8 lowest frequencies (Zauner 2010, "pHash").
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:_HASH_KEPT, :_HASH_KEPT].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


class Seen:
    """The hashes of the pictures kept so far: a new one is compared with all, some 10⁸ comparisons a second."""

    def __init__(self, screening: Screening) -> None:
        self._screening = screening
        self._hashes = np.empty(1024, np.uint64)
        self._videos = np.empty(1024, np.int64)
        self._count = 0

    def repeats(self, value: int, video: int) -> bool:
        """Whether a picture of this hash is a near-duplicate of one kept; if not, it is kept.

        video: a number that the pictures of one video share; -1 for what is none.
        """
        hashes, videos = self._hashes[: self._count], self._videos[: self._count]
        apart = np.bitwise_count(hashes ^ np.uint64(value))
        same = (videos == video) & (video >= 0)
        if (apart <= np.where(same, self._screening.alike_in_video, self._screening.alike)).any():
            return True
        if self._count == len(self._hashes):
            self._hashes, self._videos = (np.concatenate([a, np.empty_like(a)]) for a in (self._hashes, self._videos))
        self._hashes[self._count], self._videos[self._count] = value, video
        self._count += 1
        return False
