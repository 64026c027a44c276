"""Colour into a JPEG at the source's lightness: chroma is coded first, and luma then chosen on what is left of it.

Coded the usual way, both are rounded by themselves and lightness comes out where it may. Here each pixel has the luma
codes at which a decoder, with the chroma that it will have, shows the lightness to within a code; a block aims between
them. Most blocks hold all their pixels at once. The others are gathered, and tried again where rounding missed, with
chroma a little off where it is beyond the gamut once it is coded, and at last with less of it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Plane
from pipeline.jpeg_lightness import Keys, Lightness, count, lowest
from pipeline.jpeg_scan import ZIGZAG, Blocks, Symbols, best_tables, container
from pipeline.jpeg_transform import Floats, Planes, decoded, quantised, restored, stepped
from pipeline.turns import SHORT_OPERATIONS

Steps = NDArray[np.int16]  # (64, 1): what coefficients are divided by, by place

_STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)  # of chroma, in turn, until a block holds its lightness
_PULLS = 24  # toward neutral, of pixels that no luma code shows, each by
_PULL = 0.5  # of what they then have
_TRIES = 32  # for luma that missed
_NUDGE = 0.8  # codes by which a try aims further where the one before missed
_JITTER = 0.3  # codes, at most, by which it differs at random
_INTERVAL = 1 << 10  # blocks of a component between restarts
_BAND = 1 << 15  # that are coded at a time; their misses are tried again together
_CACHED = 1 << 8  # that stay in the second-level cache on their way
_TRIED = 1 << 11  # that are tried again at a time

# (2, 3): Cb and Cr of R, G, B, as in JFIF and libjpeg; of codes, float32 adds them up without rounding.
_CHROMA = np.array([[-11059, -21709, 32768], [32768, -27439, -5329]], np.float32) / (1 << 16)
# Quantisation, in zigzag order: of luma always the finest; of chroma T.81 table K.2 as libjpeg scales it to quality 90,
# and the finest where that would cost more than a share of all colour.
FINEST = np.ones(64, np.uint8)
CHROMA_TABLES = np.array([3, 4, 4, 5, 4, 5, 9, 5, 5, 9, 20, 13, 11, 13, *[20] * 50], np.uint8), FINEST
_LOST = 0.002


def encode(rgb: Plane, source: Plane) -> bytes:
    """A baseline JPEG, chroma at full size, of `rgb`, (H, W, 3) sRGB codes of 8 bits, at the lightness of `source`.

    source: sRGB codes (H, W, 3), or grey (H, W). The grey of equal L* of what libjpeg decodes is within one code of
    the source's. Where no luma gives that, the nearest is taken.
    """
    with SHORT_OPERATIONS:
        for table in CHROMA_TABLES:
            parts, interval, lost = _symbols(rgb, source, table)
            if lost <= _LOST:
                break
        tables = best_tables(sum((part.counts() for part in parts), np.zeros(1024, np.int64)))
        intervals = (part.coded(tables) for part in parts)
        return container((rgb.shape[1], rgb.shape[0]), (FINEST, table), tables, interval, intervals)


def _symbols(rgb: Plane, source: Plane, table: NDArray[np.uint8]) -> tuple[list[Symbols], int, float]:
    """The restart intervals, how many blocks of a component each has, and the share of all colour that is lost.

    table: the quantisation of chroma. Unless it is the finest, all ends where more than `_LOST` is lost.
    """
    height, width = rgb.shape[:2]
    across, down = -(-width // 8), -(-height // 8)
    interval = max(1, _INTERVAL // across) * across
    rows = max(1, _BAND // interval) * (interval // across) * 8
    parts: list[Symbols] = []
    lost = 0.0
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        blocks, more = _coded(_in_planes(rgb[band]), Lightness.of(_in_planes(source[band])), table)
        parts += [Symbols.of(blocks[first : first + interval]) for first in range(0, len(blocks), interval)]
        lost += more / (across * down)
        if lost > _LOST and table is not FINEST:
            break
    return parts, interval, lost


def _coded(rgb: NDArray[np.uint8], lightness: Lightness, table: NDArray[np.uint8]) -> tuple[Blocks, float]:
    """The quantised blocks (N, 3, 64) of luma, Cb and Cr of pixels (3, 64, N), and how many have lost their colour."""
    blocks = np.empty((rgb.shape[-1], 3, 64), np.int16)
    missed = [np.zeros(0, np.intp)]
    steps = table.astype(np.int16)[np.argsort(ZIGZAG), None]
    lost = 0.0
    for first in range(0, len(blocks), _CACHED):
        some = slice(first, first + _CACHED)
        chroma = quantised(_chroma(rgb[..., some]), steps)
        keys = lightness[some].keys(decoded(chroma * steps))
        luma = quantised(_aims().take(keys))
        blocks[some] = _in_order(luma, chroma)
        missed.append(first + np.flatnonzero(_is_off(luma, keys)))
    again = np.concatenate(missed)
    for first in range(0, again.size, _TRIED):
        those = again[first : first + _TRIED]
        luma, chroma, strength = _settled(_chroma(rgb[..., those]), lightness[those], steps)
        blocks[those] = _in_order(luma, chroma)
        lost += float((1 - strength).sum())
    return blocks, lost


def _in_order(luma: Planes, chroma: Planes) -> Blocks:
    """Blocks (N, 3, 64) in zigzag order of luma (64, N) and chroma (2, 64, N)."""
    return np.concatenate([luma[None, ZIGZAG], chroma[:, ZIGZAG]]).transpose(2, 0, 1)


def _settled(chroma: Floats, lightness: Lightness, steps: Steps) -> tuple[Planes, Planes, Floats]:
    """Luma (64, N) at its lightness, with as much of Cb and Cr (2, 64, N) as lets it, those, and what share that is.

    Where no share lets it, luma is near.
    """
    luma, settled = np.zeros(chroma.shape[1:], np.int16), np.zeros(chroma.shape, np.int16)
    off, share = np.full(chroma.shape[-1], 65), np.zeros(chroma.shape[-1])
    for strength in _STRENGTHS:
        left = np.flatnonzero(off)
        if not left.size:
            break
        found, keys = _pulled(stepped(chroma[..., left] * np.float32(strength)), lightness[left], steps)
        tried, missed = _retried(keys)
        better = missed < off[left]
        at = left[better]
        off[at], luma[:, at], settled[..., at] = missed[better], tried[:, better], found[..., better]
        share[at] = strength
    return luma, settled, share


def _pulled(chroma: Floats, lightness: Lightness, steps: Steps) -> tuple[Planes, Keys]:
    """Coefficients of chroma (2, 64, N), pulled toward neutral where no luma shows it, and luma's keys (64, N)."""
    coefficients = quantised(chroma, steps)
    shown = decoded(coefficients * steps)
    keys = lightness.keys(shown)
    for _ in range(_PULLS):
        astray = count(keys) == 0
        again = np.flatnonzero(astray.any(axis=0))
        if not again.size:
            break
        chroma[..., again] -= np.float32(_PULL) * astray[:, again] * (shown[..., again] - 128)
        coefficients[..., again] = quantised(chroma[..., again], steps)
        shown[..., again] = decoded(coefficients[..., again] * steps)
        keys[:, again] = lightness[again].keys(shown[..., again])
    return coefficients, keys


def _retried(keys: Keys) -> tuple[Planes, NDArray[np.int64]]:
    """Luma (64, N), tried until it is at its lightness, and how many pixels of each block are not."""
    luma = quantised(_aims().take(keys))
    misses = _misses(luma, keys)
    for jitter in _jitter():
        left = np.flatnonzero(misses.any(axis=0))
        if not left.size:
            break
        tried = quantised(stepped(restored(luma[:, left]) + misses[:, left] * _NUDGE + jitter))
        missed = _misses(tried, keys[:, left])
        better = np.count_nonzero(missed, axis=0) <= np.count_nonzero(misses[:, left], axis=0)
        luma[:, left[better]], misses[:, left[better]] = tried[:, better], missed[:, better]
    return luma, np.count_nonzero((misses != 0) | (count(keys) == 0), axis=0)


@lru_cache(maxsize=1)
def _jitter() -> Floats:
    """What is added to samples (64, 1) in each try."""
    return np.random.default_rng(0).uniform(-_JITTER, _JITTER, (_TRIES, 64, 1))


def _chroma(pixels: NDArray[np.uint8]) -> Floats:
    """Cb and Cr about 0, (2, 64, N), of R, G, B (3, 64, N)."""
    chroma: Floats = _CHROMA @ pixels.reshape(3, -1).astype(np.float32)
    return stepped(chroma).reshape(2, 64, -1)


@lru_cache(maxsize=1)
def _aims() -> Floats:
    """By key, what to aim at, less 128: the middle, where codes beyond black and white, shown as those, count too."""
    keys = np.arange(1 << 11).astype(np.uint16)
    first = lowest(keys)
    last = np.minimum(first + np.maximum(count(keys), 1) - 1, 255)
    darkest = np.where(first == 0, np.minimum(last - 2, 0), first)
    brightest = np.where(last == 255, np.maximum(first + 2, 255), last)
    return np.clip((darkest + brightest) / 2, 0, 255) - 128


def _is_off(luma: Planes, keys: Keys) -> NDArray[np.bool_]:
    """Whether a pixel of a block (64, N) decodes to what is not permitted, (N,)."""
    above = decoded(luma).view(np.uint16) - (keys >> 2 & 255)  # from 65535 down where it is below
    return np.asarray((above >= keys & 3).any(axis=0))


def _misses(luma: Planes, keys: Keys) -> NDArray[np.int8]:
    """1 where a pixel decodes to less than is permitted, -1 where to more, else 0; where none is, one is."""
    above = decoded(luma) - lowest(keys)
    return (above < 0).astype(np.int8) - (above >= np.maximum(count(keys), 1)).astype(np.int8)


def _in_planes(picture: Plane) -> NDArray[np.uint8]:
    """(H, W) to (64, N), (H, W, 3) to (3, 64, N), N blocks in rows; what the last ones lack is what they end with."""
    height, width = picture.shape[:2]
    edges = [(0, -height % 8), (0, -width % 8), *[(0, 0)] * (picture.ndim - 2)]
    whole: NDArray[Any] = np.pad(picture, edges, mode="edge") if height % 8 or width % 8 else picture
    down, across = whole.shape[0] // 8, whole.shape[1] // 8
    blocks = whole.reshape(down, 8, across, 8, *whole.shape[2:])
    return np.moveaxis(blocks, (1, 3, 0, 2), (-4, -3, -2, -1)).reshape(*whole.shape[2:], 64, down * across)
