"""Colour into a JPEG at the source's lightness: chroma is coded first, and luma then chosen on what is left of it.

Coded the usual way, both are rounded by themselves and lightness comes out where it may. Here each pixel has the luma
codes at which a decoder, with the chroma that it will have, shows the lightness to within a code; a block aims between
them, and is tried again where rounding its coefficients missed.

Transforms are of multiples of powers of two, few enough bits for float64 to add them up without rounding: in whatever
order a machine's BLAS does that, in however many threads, the file is the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.color import RGB_TO_XYZ, linear_to_srgb, srgb_to_linear
from pipeline.frames import Plane
from pipeline.jpeg_scan import ZIGZAG, Blocks, Symbols, best_tables, container

Floats = NDArray[np.floating[Any]]
Codes = NDArray[np.int16]

_TOLERANCE = 1 + 1e-4  # codes of 255, of the grey of equal lightness; the rest is for rounding in float32
_TRIES = 96  # for the blocks that missed; then the best is taken
_PULLS = 64  # toward neutral, of chroma that is beyond the gamut once it is coded, each by
_PULL = 0.5  # of what it then is
_NUDGE = 0.8  # codes by which a try aims further where the one before missed
_JITTER = 0.3  # codes, at most, by which it differs at random
_STEPS = 16  # of a code, that samples of luma are rounded to before they are transformed
_LARGEST = 1023  # coefficient of a baseline file (T.81 F.1.2)
_BAND = 1 << 10  # blocks of a component that are coded at a time

_HALVES = (2 * np.arange(8) + 1) * np.pi / 16
_COSINES = np.array([np.cos(k * _HALVES) / (2 if k else 8**0.5) for k in range(8)])
# (64, 64): T.81 A.3.3, coefficients in zigzag order, to 20 bits.
_DCT = np.rint(np.kron(_COSINES, _COSINES)[ZIGZAG] * (1 << 20)) / (1 << 20)
_CB, _CR = np.array([[-11059, -21709, 32768], [32768, -27439, -5329]]) / (1 << 16)  # of R, G, B: JFIF, as in libjpeg
# libjpeg's inverse transform of a row (jidctint.c, exact and the default) is linear but for rounding: what its 13-bit
# constants add up to for each coefficient, in the left half of the row; the right half mirrors it, odd ones negated.
_HALF_ROWS = [
    [8192, 8192, 8192, 8192], [11363, 9633, 6437, 2260], [10703, 4433, -4433, -10703], [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192], [6437, -11362, 2261, 9633], [4433, -10704, 10704, -4433], [2260, -6436, 9633, -11363],
]  # fmt: skip
_ROWS = np.array([[*half, *(v * (-1) ** k for v in half[::-1])] for k, half in enumerate(_HALF_ROWS)], np.float64)
_BY_COLUMNS = np.kron(_ROWS, np.eye(8))[ZIGZAG]
_BY_ROWS = np.kron(np.eye(8), _ROWS)
# What libjpeg's decoder adds to luma, in fractions of 1 << 16: Cr to R, Cb and Cr to G, Cb to B.
_CR_R, _CB_G, _CR_G, _CB_B, _HALF = 91881, -22554, -46802, 116130, 1 << 15
_PAD = 256  # of the tables by luma and what chroma adds, which reaches 227 beyond 0 and 255

_FINEST = np.ones(64, np.uint8)  # quantisation, of luma always
# Of chroma: T.81 table K.2 as libjpeg scales it to quality 90, and the finest where that colours white or black.
_CHROMA_TABLES = np.array([3, 4, 4, 5, 4, 5, 9, 5, 5, 9, 20, 13, 11, 13, *[20] * 50], np.uint8), _FINEST


def encode(rgb: Plane, source: Plane) -> bytes:
    """A baseline JPEG, chroma at full size, of `rgb`, (H, W, 3) sRGB codes of 8 bits, at the lightness of `source`.

    source: sRGB codes (H, W, 3), or grey (H, W). The grey of equal L* of what libjpeg decodes is within one code of
    the source's. Where no luma gives that, in colours at the edge of the gamut, the nearest is taken.
    """
    for chroma_table in _CHROMA_TABLES:
        data, misses = _encoded(rgb, source, chroma_table)
        if not misses:
            break
    return data


def _encoded(rgb: Plane, source: Plane, chroma_table: NDArray[np.uint8]) -> tuple[bytes, int]:
    """The file with chroma quantised by this table, and how many pixels are not at their lightness."""
    height, width = rgb.shape[:2]
    across = -(-width // 8)
    rows = max(1, _BAND // across) * 8
    bands, misses = [], 0
    for top in range(0, height, rows):
        blocks, missed = _band(rgb[top : top + rows], source[top : top + rows], chroma_table)
        bands.append(Symbols.of(blocks))
        misses += missed
    tables = best_tables(sum((band.counts() for band in bands), np.zeros(1024, np.int64)))
    intervals = (band.coded(tables) for band in bands)
    return container((width, height), (_FINEST, chroma_table), tables, rows // 8 * across, intervals), misses


def _band(rgb: Plane, source: Plane, table: NDArray[np.uint8]) -> tuple[Blocks, int]:
    """The quantised blocks (N, 3, 64) of luma, Cb and Cr of some rows, and how many pixels miss their lightness.

    Chroma that lets no luma show the lightness, beyond the gamut once it is coded, is pulled toward neutral.
    """
    limits = _limits(source)
    red, green, blue = np.moveaxis(_in_blocks(rgb).astype(np.float64), -1, 0)
    chroma: Floats = np.stack([red * r + green * g + blue * b for r, g, b in (_CB, _CR)])
    blocks = _quantised(chroma, table)
    shown = _shown(blocks, table)
    lowest, highest = _permitted(limits, shown)
    for _ in range(_PULLS):
        astray = lowest > highest
        again = np.flatnonzero(astray.any(axis=1))
        if not again.size:
            break
        chroma[:, again] -= _PULL * astray[again] * shown[:, again]
        blocks[:, again] = _quantised(chroma[:, again], table)
        shown[:, again] = _shown(blocks[:, again], table)
        lowest[again], highest[again] = _permitted(limits[:, again], shown[:, again])
    luma = _luma(lowest, np.maximum(lowest, highest))
    missed = int(np.count_nonzero(_misses(luma, lowest, highest)))
    return np.stack([luma, *blocks], axis=1), missed


def _quantised(chroma: Floats, table: NDArray[np.uint8]) -> Blocks:
    """Coefficients (2, N, 64) of Cb and Cr (2, N, 64) about 0, within what a baseline file can hold."""
    blocks: Blocks = np.clip(np.rint(chroma @ _DCT.T / table), -_LARGEST, _LARGEST).astype(np.int16)
    return blocks


def _shown(blocks: Blocks, table: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What a decoder makes of `_quantised`."""
    coefficients = (blocks * table.astype(np.int16)).reshape(-1, 64)
    return _decoded(coefficients).reshape(blocks.shape).astype(np.int64) - 128


def _luma(lowest: Codes, highest: Codes) -> Blocks:
    """Blocks that decode to codes (N, 64) from `lowest` to `highest`, as far as tries bring them there."""
    best = _transformed(_between(lowest, highest) - 128)
    misses = _misses(best, lowest, highest)
    random = np.random.default_rng(0)
    for _ in range(_TRIES):
        left = np.flatnonzero(misses.any(axis=1))
        if not left.size:
            break
        jitter = random.uniform(-_JITTER, _JITTER, (left.size, 64))
        nudge = misses[left] * _NUDGE
        tried = _transformed(best[left] @ _DCT + nudge + jitter)
        missed = _misses(tried, lowest[left], highest[left])
        better = np.count_nonzero(missed, axis=1) <= np.count_nonzero(misses[left], axis=1)
        best[left[better]], misses[left[better]] = tried[better], missed[better]
    return best


def _between(lowest: Codes, highest: Codes) -> Floats:
    """What to aim at, 0..255: the middle, where codes beyond black and white, which are shown as those, count, too."""
    darkest = np.where(lowest == 0, np.minimum(highest - 2, 0), lowest)
    brightest = np.where(highest == 255, np.maximum(lowest + 2, 255), highest)
    return np.clip((darkest + brightest) / 2, 0, 255)


def _transformed(samples: Floats) -> Blocks:
    """Luma coefficients (N, 64) of samples about 0, within what a baseline file can hold."""
    stepped = np.rint(samples * _STEPS) / _STEPS
    blocks: Blocks = np.clip(np.rint(stepped @ _DCT.T), -_LARGEST, _LARGEST).astype(np.int16)
    return blocks


def _misses(luma: Blocks, lowest: Codes, highest: Codes) -> NDArray[np.int8]:
    """1 where a pixel decodes to less than is permitted, -1 where to more, else 0."""
    codes = _decoded(luma)
    return (codes < lowest).astype(np.int8) - (codes > highest).astype(np.int8)


def _decoded(coefficients: Blocks) -> Codes:
    """The samples (N, 64), 0..255, that libjpeg makes of dequantised coefficients (N, 64)."""
    columns = np.floor((coefficients.astype(np.float64) @ _BY_COLUMNS + 1024) / 2048)
    rows = np.floor((columns @ _BY_ROWS + (1 << 17)) / (1 << 18))
    samples: Codes = np.clip(rows + 128, 0, 255).astype(np.int16)
    return samples


def _permitted(limits: Floats, chroma: NDArray[np.int64]) -> tuple[Codes, Codes]:
    """The lowest and the highest luma code (N, 64) at which each pixel's luminance is within its limits (2, N, 64).

    Where there is none, the highest is below the lowest.
    """
    (least, most), (cb, cr) = limits, chroma
    added = [(what + _HALF >> 16) + _PAD for what in (_CR_R * cr, _CB_G * cb + _CR_G * cr, _CB_B * cb)]

    def shown(luma: NDArray[np.int64]) -> Floats:
        red, green, blue = (table.take(luma + more) for table, more in zip(_light(), added, strict=True))
        luminance: Floats = red + green + blue
        return luminance

    lowest = np.zeros(least.shape, np.int64)
    for step in (128, 64, 32, 16, 8, 4, 2, 1):  # bisection: luminance grows with luma
        lowest += step * (shown(lowest + (step - 1)) < least)
    reached = shown(lowest)
    highest = np.where((reached >= least) & (reached <= most), lowest, lowest - 1)
    for more in (1, 2):
        further = lowest + more
        holds = (highest == further - 1) & (further <= 255) & (shown(further) <= most)
        highest = np.where(holds, further, highest)
    return lowest.astype(np.int16), highest.astype(np.int16)


def _limits(source: Plane) -> Floats:
    """The luminances (2, N, 64) of a code darker and a code brighter than a source's pixels (H, W) or (H, W, 3)."""
    if source.ndim == 2:
        return _grey_limits()[:, _in_blocks(source)]
    channels = np.moveaxis(_in_blocks(source), -1, 0).astype(np.intp) + _PAD
    red, green, blue = (table.take(codes) for table, codes in zip(_light(), channels, strict=True))
    return _code_away(linear_to_srgb(red + green + blue))


@lru_cache(maxsize=1)
def _grey_limits() -> Floats:
    return _code_away(np.arange(256) / 255)


def _code_away(encoded: NDArray[Any]) -> Floats:
    """Linear light (2, ...) a code below and a code above encoded grey 0..1."""
    code = _TOLERANCE / 255
    return np.stack([srgb_to_linear(encoded - code), srgb_to_linear(encoded + code)]).astype(np.float32)


def _in_blocks(plane: Plane) -> NDArray[Any]:
    """(H, W, ...) to (N, 64, ...) in rows of blocks; what a last row or column lacks is what it ends with."""
    height, width = plane.shape[:2]
    edges = [(0, -height % 8), (0, -width % 8), *[(0, 0)] * (plane.ndim - 2)]
    whole = np.pad(plane, edges, mode="edge")
    rest = whole.shape[2:]
    blocks = whole.reshape(whole.shape[0] // 8, 8, whole.shape[1] // 8, 8, *rest).swapaxes(1, 2)
    flat: NDArray[Any] = blocks.reshape(-1, 64, *rest)
    return flat


@lru_cache(maxsize=1)
def _light() -> tuple[Floats, Floats, Floats]:
    """The luminance of R, G and B alone, by code + `_PAD`; codes beyond 0 and 255 are as those."""
    codes = np.clip(np.arange(-_PAD, 256 + _PAD), 0, 255) / 255
    red, green, blue = (np.float32(weight) * srgb_to_linear(codes).astype(np.float32) for weight in RGB_TO_XYZ[1])
    return red, green, blue
