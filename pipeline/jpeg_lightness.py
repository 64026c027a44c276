"""At which luma codes a decoder shows a pixel's lightness, given the chroma that it will have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.color import RGB_TO_XYZ, linear_to_srgb, srgb_to_linear

Floats = NDArray[np.floating[Any]]
Keys = NDArray[np.uint16]

_TOLERANCE = 1 + 1e-4  # codes of 255, of the grey of equal lightness; the rest is for rounding in float32
# What libjpeg's decoder adds to luma, in fractions of 1 << 16: Cr to R, Cb and Cr to G, Cb to B.
_CR_R, _CB_G, _CR_G, _CB_B, _HALF = 91881, -22554, -46802, 116130, 1 << 15
_PAD = 256  # of the tables by luma and what chroma adds, which reaches 227 beyond 0 and 255
_MOST = 3  # luma codes that are told apart
_KNOWN = 1 << 10  # in every key
_PARTS = 1 << 16
_PAIRS = 64  # of Cb and Cr, that keys are found of at a time


@dataclass(frozen=True)
class Lightness:
    """The lightness that pixels are to be shown at.

    codes: (64, N), the sRGB grey of equal lightness, rounded down. limits: (2, 64, N) linear light a code below and a
    code above it, where it is not a whole code, as in tinted pictures.
    """

    codes: NDArray[np.uint8]
    limits: Floats | None = None

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Lightness:
        """Of sRGB codes (64, N), or (3, 64, N)."""
        if pixels.ndim == 2:
            return cls(pixels)
        red, green, blue = pixels
        if np.array_equal(red, green) and np.array_equal(green, blue):
            return cls(red)
        light = _shown(0, [plane.astype(np.int32) + _PAD for plane in pixels]) * np.float32(_PARTS)
        at = light.astype(np.int32)
        light -= at
        away, codes = _by_luminance()
        limits = away.take(at, axis=1)
        limits += light * (away.take(at + 1, axis=1) - limits)
        return cls(codes.take(at), limits)

    def __getitem__(self, blocks: Any) -> Lightness:
        """Of some of the blocks."""
        return Lightness(self.codes[:, blocks], None if self.limits is None else self.limits[..., blocks])

    def keys(self, chroma: NDArray[np.int16]) -> Keys:
        """Which luma codes show each pixel within a code of its lightness, (64, N): see `lowest` and `count`.

        chroma: (2, 64, N) codes of Cb and Cr, as decoded.
        """
        at = chroma[0].astype(np.int32)
        at <<= 8
        at |= chroma[1]
        at <<= 8
        at |= self.codes
        keys = _keys().take(at)
        if not keys.all():
            _find(_distinct(at[keys == 0] >> 8))
            keys = _keys().take(at)
        return keys if self.limits is None else _between_codes(keys, self.limits, chroma)


def lowest(keys: Keys) -> NDArray[np.int16]:
    """The lowest of the luma codes."""
    return (keys >> 2 & 255).astype(np.int16)


def count(keys: Keys) -> NDArray[np.int16]:
    """How many luma codes there are, from the lowest on: 0 to 3, where more are as 3."""
    return (keys & 3).astype(np.int16)


def _key(lowest: NDArray[Any], count: NDArray[Any]) -> Keys:
    keys: Keys = (_KNOWN | lowest << 2 | count).astype(np.uint16)
    return keys


@lru_cache(maxsize=1)
def _keys() -> Keys:
    """Of Cb << 16 | Cr << 8 | grey code, as far as they have been asked for; 0 elsewhere."""
    return np.zeros(1 << 24, np.uint16)


def _distinct(pairs: NDArray[np.signedinteger[Any]]) -> NDArray[np.intp]:
    """Those of 0..65535 that there are, in order."""
    there = np.zeros(1 << 16, np.bool_)
    there[pairs] = True
    return np.flatnonzero(there)


def _find(pairs: NDArray[np.intp]) -> None:
    """Put into `_keys` those of some pairs, Cb << 8 | Cr, and all grey codes."""
    table, luma = _keys().reshape(-1, 256), np.arange(256, dtype=np.int32)
    for start in range(0, len(pairs), _PAIRS):
        some = pairs[start : start + _PAIRS, None]
        shown = _shown(luma, _added(some >> 8, some & 255))
        darker, held = (steps.above(shown) for steps in _steps())
        first = np.minimum(darker, 255)
        table[some[:, 0]] = _key(first, np.where(darker < 256, np.minimum(held - first, _MOST), 0))


@dataclass(frozen=True)
class _Steps:
    """Luminances that rise from grey code to grey code. below: how many are below each of `_PARTS` of 0..1."""

    luminances: Floats
    below: NDArray[np.int32]

    @classmethod
    def of(cls, luminances: Floats) -> _Steps:
        """Of (256,), no two of them in one part."""
        parts = np.arange(_PARTS + 1, dtype=np.float32) / _PARTS
        return cls(np.append(luminances, np.float32(np.inf)), np.searchsorted(luminances, parts).astype(np.int32))

    def above(self, shown: Floats) -> NDArray[np.int32]:
        """How many luminances of each row of (P, 256) are at most those of each grey code: (P, 256)."""
        rows = len(shown)
        places = self.below.take((shown * _PARTS).astype(np.int32))
        places += self.luminances.take(places) < shown
        places += np.arange(0, 257 * rows, 257, dtype=np.int32)[:, None]
        there = np.bincount(places.ravel(), minlength=257 * rows).reshape(rows, 257)[:, :256]
        return there.cumsum(axis=1, dtype=np.int32)


@lru_cache(maxsize=1)
def _steps() -> tuple[_Steps, _Steps]:
    """What is too dark for each grey code, and what is not too bright."""
    least, most = _code_away(np.arange(256) / 255)
    return _Steps.of(np.nextafter(least, np.float32(-1))), _Steps.of(most)


def _between_codes(keys: Keys, limits: Floats, chroma: NDArray[np.int16]) -> Keys:
    """The keys of pixels whose grey is not a whole code, from those of the code below."""
    least, most = (limit.ravel() for limit in limits)
    added = _added(chroma[0].ravel(), chroma[1].ravel())
    first = (keys.ravel() >> 2 & 255).astype(np.int32)
    dark = np.flatnonzero((_shown(first, added) < least) & (first < 255))
    while dark.size:
        first[dark] += 1
        still = (_shown(first[dark], [more[dark] for more in added]) < least[dark]) & (first[dark] < 255)
        dark = dark[still]
    reached = _shown(first, added)
    fits = (reached >= least) & (reached <= most)
    number = fits.astype(np.int32)
    for more in (1, 2):
        fits &= (first + more <= 255) & (_shown(first + more, added) <= most)
        number += fits
    return _key(first, number).reshape(keys.shape)


def _added(cb: NDArray[Any], cr: NDArray[Any]) -> list[NDArray[np.int32]]:
    """What libjpeg adds to luma for R, G and B, and `_PAD`."""
    cb, cr = cb.astype(np.int32) - 128, cr.astype(np.int32) - 128
    return [(what + _HALF >> 16) + _PAD for what in (_CR_R * cr, _CB_G * cb + _CR_G * cr, _CB_B * cb)]


def _shown(luma: NDArray[Any] | int, added: list[NDArray[np.int32]]) -> Floats:
    """The luminance, float32, of luma codes with what is `_added`."""
    red, green, blue = (table.take(luma + more) for table, more in zip(_light(), added, strict=True))
    luminance: Floats = red + green + blue
    return luminance


def _code_away(encoded: NDArray[Any]) -> Floats:
    """Linear light (2, ...) a code below and a code above encoded grey 0..1."""
    code = _TOLERANCE / 255
    return np.stack([srgb_to_linear(encoded - code), srgb_to_linear(encoded + code)]).astype(np.float32)


@lru_cache(maxsize=1)
def _by_luminance() -> tuple[Floats, NDArray[np.uint8]]:
    """What is `_code_away` from each of `_PARTS` of luminance, and its code, rounded down."""
    encoded = linear_to_srgb(np.arange(_PARTS + 2) / _PARTS)
    return _code_away(encoded), np.clip(encoded * 255, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _light() -> tuple[Floats, Floats, Floats]:
    """The luminance of R, G and B alone, by code + `_PAD`; codes beyond 0 and 255 are as those."""
    codes = np.clip(np.arange(-_PAD, 256 + _PAD), 0, 255) / 255
    red, green, blue = (np.float32(weight) * srgb_to_linear(codes).astype(np.float32) for weight in RGB_TO_XYZ[1])
    return red, green, blue
