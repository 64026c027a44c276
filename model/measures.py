"""Measures of colour against the truth: pure functions of one pair of pictures, and their bootstrap.

AuC: Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, §3.1. CIEDE2000: Sharma, Wu, Dalal, "The CIEDE2000
Color-Difference Formula", Color Research and Application 30(1), 2005. SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image
Quality Assessment", IEEE TIP 13(4), 2004.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

LONGEST = 150  # ab distance at which the threshold sweep ends (§3.1)
_AT_ONCE = 1 << 13  # colours whose distances to all bins are in memory together, 10 MB for 313
_WINDOW, _SIGMA = 11, 1.5  # of SSIM, pixels (Wang et al. §III.B)
_K1, _K2 = 0.01, 0.03  # of SSIM
_C7 = 25.0**7  # of CIEDE2000


def credit(errors: Floats) -> NDArray[np.float64]:
    """Share (0..1) of the thresholds 0, 1 … 150 that each error passes: the area under the curve of one pixel.

    errors: ab distances, any shape. A pixel is right at every threshold of at least its error; its curve is a step,
    whose area is the trapezoid's, divided by 150. Areas add up, so AuC is the mean of these, weighted or not.
    """
    first = np.ceil(errors.astype(np.float64))  # threshold at which the pixel is right
    return np.where(first == 0, 1.0, np.maximum(LONGEST + 0.5 - first, 0) / LONGEST)


@dataclass(frozen=True)
class ClassWeights:
    """Weights that make every colour count alike, however rare: 1/p̃ of the true bin, equation 4 with λ = 0.

    centers: (Q, 2) a*, b*; prior: p̃ (Q,), all above 0. The factor that equation 4 normalises by cancels in AuC.
    Raises ValueError for a prior that is not above 0 throughout, or of another length.
    """

    centers: Floats
    prior: Floats

    def __post_init__(self) -> None:
        if self.centers.shape != (len(self.prior), 2) or not (self.prior > 0).all():
            raise ValueError(f"expected (Q, 2) bins and a prior above 0, got {self.centers.shape = }, {self.prior = }")

    def __call__(self, ab: Floats) -> NDArray[np.float64]:
        """ab: (..., 2). Returns (...)."""
        return np.asarray(1 / np.asarray(self.prior, np.float64)[nearest_bins(ab, self.centers)])


def nearest_bins(ab: Floats, centers: Floats) -> NDArray[np.intp]:
    """Index (...) of the bin nearest to each colour. ab: (..., 2); centers: (Q, 2)."""
    flat, centers = ab.reshape(-1, 2).astype(np.float32), centers.astype(np.float32)
    half = (centers**2).sum(1) / 2  # |ab - c|² / 2 less |ab|² / 2, which is the same for all, is |c|² / 2 - ab·c
    parts = (flat[i : i + _AT_ONCE] for i in range(0, len(flat), _AT_ONCE))
    found = [(half - part @ centers.T).argmin(1) for part in parts]
    return np.concatenate([np.empty(0, np.intp), *found]).reshape(ab.shape[:-1])


def delta_e_2000(one: Floats, two: Floats) -> Floats:
    """CIEDE2000 colour difference (...) of CIE Lab colours (..., 3), with kL = kC = kH = 1; 1 is just noticeable.

    Sharma et al. 2005, equations 2 to 22, with hues in radians.
    """
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(two, -1, 0)
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + _C7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = np.arctan2(b1, stretch * a1) % (2 * np.pi), np.arctan2(b2, stretch * a2) % (2 * np.pi)
    light, chroma, hue = (l1 + l2) / 2, (c1 + c2) / 2, _mean_hue(h1, h2, c1 * c2 == 0)
    t = 1 - 0.17 * np.cos(hue - np.pi / 6) + 0.24 * np.cos(2 * hue)
    t += 0.32 * np.cos(3 * hue + np.radians(6)) - 0.20 * np.cos(4 * hue - np.radians(63))
    s_l = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    turn = np.radians(60) * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    r_t = -np.sin(turn) * 2 * np.sqrt(chroma**7 / (chroma**7 + _C7))
    d_l, d_c = (l2 - l1) / s_l, (c2 - c1) / (1 + 0.045 * chroma)
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(_wrapped(h2 - h1) / 2) / (1 + 0.015 * chroma * t)
    squared = d_l**2 + d_c**2 + d_h**2 + r_t * d_c * d_h
    return np.asarray(np.sqrt(np.maximum(squared, 0)))  # rounding may leave a little less than 0


def _wrapped(angle: Floats) -> Floats:
    """The difference of two angles of 0..2π, in -π..π (equation 10)."""
    return np.asarray(angle - 2 * np.pi * np.sign(angle) * (np.abs(angle) > np.pi), angle.dtype)


def _mean_hue(h1: Floats, h2: Floats, grey: NDArray[np.bool_]) -> Floats:
    """Mean of two hues on the circle; where one colour is grey, the other's hue (equation 14)."""
    total = h1 + h2
    far = np.abs(h1 - h2) > np.pi
    mean = (total + 2 * np.pi * far * np.where(total < 2 * np.pi, 1, -1)) / 2
    return np.where(grey, total, mean)


def ssim(a: Floats, b: Floats, peak: float = 1.0) -> float:
    """Mean structural similarity of two pictures (h, w, C) floating in 0..peak, 11 × 11 Gaussian window, σ = 1.5.

    The mean over channels and over the positions at which the window lies inside; 1 for equal pictures.
    Raises ValueError for other shapes, or pictures smaller than the window.
    """
    if a.shape != b.shape or a.ndim != 3 or min(a.shape[:2]) < _WINDOW:
        raise ValueError(f"expected two (h, w, C) of at least {_WINDOW} pixels, got {a.shape = }, {b.shape = }")
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((alike / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def _blurred(picture: Floats) -> Floats:
    edge = _WINDOW // 2
    blurred: Floats = np.asarray(cv2.GaussianBlur(picture, (_WINDOW, _WINDOW), _SIGMA))
    return blurred[edge:-edge, edge:-edge]


def resampling(unit: str, replicates: int) -> NDArray[np.float64]:
    """How often a unit is counted in the data itself (once), then in each bootstrap replicate: (1 + replicates,).

    The Poisson bootstrap (Hanley, MacGibbon 2006; Chamandy et al. 2012): counts are drawn from Poisson(1), by the
    unit's name, so that sums over units are resampled as they are made, nothing is kept of a unit, and whatever is
    computed of the same units is paired. Pictures that are alike by origin, such as a video's, are one unit.
    """
    seed = int.from_bytes(hashlib.sha256(unit.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    drawn = np.random.default_rng(seed).poisson(1, replicates)
    return np.concatenate([[1.0], drawn])


@dataclass(frozen=True)
class Interval:
    """An estimate and the 95 % interval of its bootstrap replicates; low and high are None where there are none."""

    value: float
    low: float | None
    high: float | None


def interval(values: Floats) -> Interval:
    """The estimate values[0] with the 2.5 and 97.5 percentiles of its replicates values[1:], NaN left out."""
    replicates = values[1:][np.isfinite(values[1:])]
    if not len(replicates):
        return Interval(float(values[0]), None, None)
    low, high = np.percentile(replicates, [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))
