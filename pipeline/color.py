"""Colour arithmetic: sRGB, CIE Lab, and Y'CbCr in every matrix, range and depth that video uses.

Sources: IEC 61966-2-1 (sRGB), CIE 15:2004 (Lab), ITU-T H.273 §8 (matrix coefficients, ranges).
Lab is relative to D65 with the 2° observer, as in scikit-image, with which it agrees to 1e-3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Matrix

Floats = NDArray[np.floating[Any]]

# Linear sRGB → XYZ from the primaries of ITU-R BT.709 and D65 at (0.312713, 0.329016), six digits, as used by
# scikit-image and OpenCV. The luminance row sums to exactly 1.
RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
XYZ_TO_RGB = np.linalg.inv(RGB_TO_XYZ)
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])  # XYZ of D65, 2° observer (ASTM E308), against which Lab is measured
# XYZ of RGB = (1, 1, 1). It differs from WHITE_D65 in the fifth digit, so that white has (a, b) = (-0.002, 0.005);
# reconstruction from (L, a, b) to be exactly grey at ab = 0 is measured against this one.
WHITE_RGB = RGB_TO_XYZ.sum(axis=1)

_EPSILON = (6 / 29) ** 3  # CIE 15 §8.2.1: below this share of white, f is linear
_SLOPE = (29 / 6) ** 2 / 3
_OFFSET = 4 / 29

# ITU-T H.273 table 4: luma weights of R and B; G has the rest.
KR_KB: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),  # non-constant luminance
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}

_PULL_STEPS = 10  # bisections of the pull toward neutral: chroma to within 1/1024


def srgb_to_linear(encoded: Floats) -> Floats:
    """sRGB EOTF (IEC 61966-2-1): encoded 0..1 to linear light 0..1, any shape; the toe extends below 0."""
    encoded = _floating(encoded)
    above = ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.where(encoded > 0.04045, above, encoded / 12.92)


def linear_to_srgb(linear: Floats) -> Floats:
    """Inverse of `srgb_to_linear`: linear light 0..1 to encoded 0..1, any shape; the toe extends below 0."""
    linear = _floating(linear)
    above = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear > 0.0031308, above, 12.92 * linear)


def rgb_to_lab(rgb: Floats) -> Floats:
    """sRGB-encoded (..., 3) in 0..1 to CIE (L*, a*, b*) of the same shape: L* 0..100, a* and b* about -110..110."""
    xyz = srgb_to_linear(rgb) @ _like(RGB_TO_XYZ.T, rgb) / _like(WHITE_D65, rgb)
    x, y, z = np.moveaxis(lab_f(xyz), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_to_rgb(lab: Floats) -> Floats:
    """CIE (L*, a*, b*) (..., 3) to sRGB-encoded RGB of the same shape, not clipped: outside 0..1 is outside sRGB."""
    lab = _floating(lab)
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    return linear_to_srgb(lab_f_inverse(f) * _like(WHITE_D65, lab) @ _like(XYZ_TO_RGB.T, lab))


def colour_at_lightness(lightness: Floats, ab: Floats) -> Floats:
    """The sRGB colour with exactly this L* and as much of this (a*, b*) as sRGB can show at it.

    lightness: (...) L* 0..100, clipped; ab: (..., 2). Returns (..., 3) sRGB-encoded in 0..1. Colours outside the gamut
    are pulled along the straight line to neutral, L* and hue held, by bisection. ab = 0 gives R = G = B exactly.
    """
    lightness, ab = np.clip(_floating(lightness), 0, 100), _floating(ab)
    linear = linear_at_lightness(lightness, ab)
    outside = ~_in_gamut(linear)
    if outside.any():
        flat_l, flat_ab = lightness[outside], ab[outside]
        inside = np.zeros_like(flat_l)
        for step in range(1, _PULL_STEPS + 1):
            trial = inside + 0.5**step
            fits = _in_gamut(linear_at_lightness(flat_l, flat_ab * trial[:, None]))
            inside = np.where(fits, trial, inside)
        linear[outside] = linear_at_lightness(flat_l, flat_ab * inside[:, None])
    return np.clip(linear_to_srgb(np.clip(linear, 0, 1)), 0, 1)


def linear_at_lightness(lightness: Floats, ab: Floats) -> Floats:
    """Linear sRGB (..., 3), not clipped, of L* (...) with (a*, b*) (..., 2); exactly grey where ab = 0.

    RGB = Y + Mx (X - Xw Y) + Mz (Z - Zw Y), with Mx and Mz columns of XYZ_TO_RGB and w the white of R = G = B: the
    same as the matrix product, but the differences are exactly 0 for a neutral. The columns carry no luminance,
    so Y, and with it L*, is held whatever the colour.
    """
    f_y = (lightness + 16) / 116
    y = lab_f_inverse(f_y)
    dx = (lab_f_inverse(f_y + ab[..., 0] / 500) - y) * WHITE_RGB[0].item()
    dz = (lab_f_inverse(f_y - ab[..., 1] / 200) - y) * WHITE_RGB[2].item()
    return np.stack([y + XYZ_TO_RGB[i, 0].item() * dx + XYZ_TO_RGB[i, 2].item() * dz for i in range(3)], axis=-1)


def lightness_table(bit_depth: int, full_range: bool) -> NDArray[np.float32]:
    """L* 0..100 of every luma code, float32 (2**bit_depth,): range expanded, Y' read as sRGB-encoded grey, clipped."""
    grey = np.clip(expand_luma(np.arange(1 << _checked(bit_depth)), full_range, bit_depth), 0, 1)
    return np.clip(116 * lab_f(srgb_to_linear(grey)) - 16, 0, 100).astype(np.float32)


def neutral(bit_depth: int) -> int:
    """The chroma code of grey."""
    return 1 << (_checked(bit_depth) - 1)


def luma_range(full_range: bool, bit_depth: int) -> tuple[float, float]:
    """(code of black, codes from black to white) of luma: H.273 equations 20 and 29."""
    scale = 2.0 ** (_checked(bit_depth) - 8)
    return (0.0, float((1 << bit_depth) - 1)) if full_range else (16 * scale, 219 * scale)


def chroma_range(full_range: bool, bit_depth: int) -> tuple[float, float]:
    """(code of neutral, codes from Cb = -0.5 to +0.5): H.273 equations 21 and 30."""
    span = float((1 << _checked(bit_depth)) - 1) if full_range else 224 * 2.0 ** (bit_depth - 8)
    return float(neutral(bit_depth)), span


def expand_luma(code: NDArray[Any], full_range: bool, bit_depth: int) -> NDArray[np.float64]:
    """Luma codes to Y' (0 black, 1 white), not clipped."""
    black, span = luma_range(full_range, bit_depth)
    return (np.asarray(code, np.float64) - black) / span


def ycbcr_to_rgb(
    y: NDArray[Any], cb: NDArray[Any], cr: NDArray[Any], matrix: Matrix, full_range: bool, bit_depth: int
) -> NDArray[np.float64]:
    """Codes of equal shape (...) to R'G'B' (..., 3), 0..1 for colours inside the cube, not clipped; float64."""
    kr, kb = KR_KB[matrix]
    zero, span = chroma_range(full_range, bit_depth)
    luma = expand_luma(y, full_range, bit_depth)
    red = luma + 2 * (1 - kr) * (np.asarray(cr, np.float64) - zero) / span
    blue = luma + 2 * (1 - kb) * (np.asarray(cb, np.float64) - zero) / span
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.stack([red, green, blue], axis=-1)


def rgb_to_ycbcr(
    rgb: Floats, matrix: Matrix, full_range: bool, bit_depth: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """R'G'B' (..., 3) in 0..1 to (Y', Cb, Cr) code values (...), float64 and not rounded: inverse of `ycbcr_to_rgb`."""
    kr, kb = KR_KB[matrix]
    red, green, blue = np.moveaxis(np.asarray(rgb, np.float64), -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    black, luma_span = luma_range(full_range, bit_depth)
    zero, span = chroma_range(full_range, bit_depth)
    cb = (blue - luma) / (2 * (1 - kb)) * span + zero
    cr = (red - luma) / (2 * (1 - kr)) * span + zero
    return luma * luma_span + black, cb, cr


def lab_f(t: Floats) -> Floats:
    """The cube root of CIE Lab with its linear toe: a share of white, about 0..1, to (L* + 16)/116."""
    t = _floating(t)
    return np.where(t > _EPSILON, np.cbrt(np.maximum(t, _EPSILON)), _SLOPE * t + _OFFSET)


def lab_f_inverse(f: Floats) -> Floats:
    """Inverse of `lab_f`; the toe extends below 0."""
    f = _floating(f)
    return np.where(f > 6 / 29, f * f * f, (f - _OFFSET) / _SLOPE)


def _in_gamut(linear: Floats) -> NDArray[np.bool_]:
    slack = 1e-6  # rounding of float32; clipped afterwards
    inside: NDArray[np.bool_] = np.all((linear >= -slack) & (linear <= 1 + slack), axis=-1)
    return inside


def _floating(values: NDArray[Any]) -> Floats:
    values = np.asarray(values)
    return values if values.dtype == np.float32 else values.astype(np.float64, copy=False)


def _like(constant: NDArray[np.float64], values: NDArray[Any]) -> Floats:
    return constant.astype(np.float32) if np.asarray(values).dtype == np.float32 else constant


def _checked(bit_depth: int) -> int:
    if not 1 <= bit_depth <= 16:
        raise ValueError(f"expected a bit depth of 1 to 16, got {bit_depth = }")
    return bit_depth
