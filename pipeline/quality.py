"""What is measured of pictures: whether in colour, how colourful, how steady, and how close."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.color import neutral
from pipeline.frames import Plane
from pipeline.shots import CutDetector
from pipeline.temporal import Motion, motion_picture, moved

FloatPlane = NDArray[np.float32]

_LOOKED_AT = (128, 96)  # (width, height) or more, below twice that: what the picture is shrunk to before it is judged
_CELLS = (32, 24)  # that colours are averaged over: codec and tape noise vanish, things keep their colour
_LUMA_BINS = 256
_STRONG = 20.0  # 8-bit chroma codes off the tint that make a pixel count little in fitting it
_SHARE = 95  # per cent of the picture that may be without colour; a logo or a time stamp stays below the rest
# Off the tint, in 8-bit chroma codes, beyond which that share of the picture is in colour. Measured: of 500
# photographs 96 % are above, of the same in sepia 0.4 %, and every frame of seven colour clips is, at 3.5 or more.
_OFF_TINT = 2.5
_TINT_TOLERANCE = 0.25  # share of its own strength by which a tint may vary (clipped highlights, compression)


def has_real_colour(luma: Plane, cb: Plane, cr: Plane, bit_depth: int) -> bool:
    """Whether chroma shows things of different colours: not neutral, sepia, any tint that follows luma, or noise.

    luma: (H, W), cb and cr: (Hc, Wc) code values, any subsampling. A tint is chroma that is a function of luma; what is
    left beside that function, averaged over cells, must reach beyond noise in 5 % of the picture. A dark picture, or
    a photograph of one hue, cannot be told from a tint and counts as one.
    """
    if luma.ndim != 2 or cb.ndim != 2 or cb.shape != cr.shape:
        raise ValueError(f"expected planes (H, W), (Hc, Wc) twice, got {luma.shape = }, {cb.shape = }, {cr.shape = }")
    scale = np.float32(2.0 ** (8 - bit_depth))
    times = max(1, min(cb.shape[1] // _LOOKED_AT[0], cb.shape[0] // _LOOKED_AT[1]))
    size = max(1, cb.shape[1] // times), max(1, cb.shape[0] // times)
    grey, *chroma = (_shrunk(plane, size) * scale for plane in (luma, cb, cr))
    bins = np.clip(grey * (_LUMA_BINS / 256), 0, _LUMA_BINS - 1).astype(np.intp)
    chroma = [plane - np.float32(neutral(bit_depth)) * scale for plane in chroma]
    tint = _functions_of(bins, chroma)
    off = [plane - model for plane, model in zip(chroma, tint, strict=True)]
    cells = min(_CELLS[0], size[0]), min(_CELLS[1], size[1])
    (off_b, off_r), (tint_b, tint_r) = ([_shrunk(p, cells) for p in planes] for planes in (off, tint))
    strength = np.hypot(tint_b, tint_r) + np.float32(1e-6)
    along = np.abs(off_b * tint_b + off_r * tint_r) / strength
    across = (off_b * tint_r - off_r * tint_b) / strength
    distance = np.hypot(across, np.maximum(0, along - _TINT_TOLERANCE * strength))
    noise = max(_noise(plane) for plane in off) / math.sqrt(size[0] * size[1] / (cells[0] * cells[1]))
    rayleigh = math.sqrt(-2 * math.log(1 - _SHARE / 100))  # noise alone reaches this many deviations in that share
    return bool(np.percentile(distance, _SHARE) > _OFF_TINT + rayleigh * noise)


def colourfulness(rgb: NDArray[Any]) -> float:
    """Colourfulness M of Hasler & Süsstrunk 2003: 0 grey, 33 moderate, 59 quite, 109 extremely colourful.

    rgb: (H, W, 3), uint8, or floating in 0..1.
    """
    if rgb.shape[-1:] != (3,) or not (rgb.dtype == np.uint8 or np.issubdtype(rgb.dtype, np.floating)):
        raise ValueError(f"expected rgb (..., 3) uint8 or floating, got {rgb.shape = }, {rgb.dtype = }")
    red, green, blue = np.moveaxis(rgb.astype(np.float64) * (1 if rgb.dtype == np.uint8 else 255), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    return float(math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean()))


def flicker(ab: Sequence[FloatPlane] | FloatPlane, lightness: Sequence[FloatPlane] | FloatPlane) -> float:
    """Mean |Δab| between neighbouring pictures of a shot, measured along motion; 0 where there are no neighbours.

    ab: N of (2, h/4, w/4) or finer in presentation order; lightness: N of (h, w), L* 0..100. Cells that were uncovered
    or came into view are left out, and so are cuts.
    """
    motion, cuts = Motion(), CutDetector()
    changes: list[float] = []
    before: tuple[FloatPlane, NDArray[np.uint8]] | None = None
    for colour, light in zip(ab, lightness, strict=True):
        picture = motion_picture(light)
        if not cuts.step(light) and before is not None:
            flow, trust = motion.between(before[1], picture, (colour.shape[1], colour.shape[2]))
            inside = np.asarray(moved(np.ones_like(trust), flow, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)) > 0.99
            same = inside & (trust > 0.5)
            if same.any():
                change = [
                    np.abs(new - moved(old, flow, cv2.INTER_CUBIC)) for new, old in zip(colour, before[0], strict=True)
                ]
                changes.append(float(np.mean([plane[same].mean() for plane in change])))
        before = colour, picture
    return float(np.mean(changes)) if changes else 0.0


def psnr(a: NDArray[Any], b: NDArray[Any], peak: float) -> float:
    """Peak signal-to-noise ratio in dB of two arrays of one shape; infinite where they are equal."""
    if a.shape != b.shape:
        raise ValueError(f"expected equal shapes, got {a.shape = }, {b.shape = }")
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)


def _functions_of(bins: NDArray[np.intp], chroma: list[FloatPlane]) -> list[FloatPlane]:
    """The part of each plane that luma tells: its mean over the pixels of like luma, smooth in luma.

    Fitted again with less weight on pixels far from it, so that a small thing of strong colour does not sway it.
    """
    flat = bins.ravel()
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    weight = np.ones(flat.shape)
    for _ in range(2):
        count = np.maximum(np.convolve(np.bincount(flat, weight, _LUMA_BINS), kernel, "same"), 1e-9)
        sums = (np.convolve(np.bincount(flat, weight * p.ravel(), _LUMA_BINS), kernel, "same") for p in chroma)
        fitted = [np.asarray((total / count)[bins], np.float32) for total in sums]
        distance = np.hypot(*(plane - model for plane, model in zip(chroma, fitted, strict=True)))
        weight = 1 / (1 + (distance.ravel() / _STRONG) ** 2)
    return fitted


def _noise(plane: FloatPlane) -> float:
    """Standard deviation of white noise, from the median difference of neighbours, which edges do not sway."""
    if plane.shape[1] < 2:
        return 0.0
    return float(np.median(np.abs(np.diff(plane, axis=1)))) * 1.4826 / math.sqrt(2)


def _shrunk(plane: NDArray[Any], size: tuple[int, int]) -> FloatPlane:
    """Area average to (width, height), float32."""
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)
