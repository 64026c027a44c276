"""From coarse (a*, b*) and the picture's own luma to its Cb and Cr planes.

Three steps, none of which makes a full-size RGB picture:

1. `luma_at_sites`: luma averaged at the places of the chroma samples.
2. `guided_upsample`: ab enlarged bilinearly to the chroma plane's size, plus what a local linear model ab ≈ α·Y' + β
   (the guided filter of He, Sun & Tang 2013, on the coarse grid as in He & Sun 2015) says of the luma detail
   that the coarse grid misses. Colour thus changes where luma does, and is plainly bilinear where luma tells nothing.
3. `Conversion.codes`: (Y', a*, b*) to (Cb, Cr) at the source's Y'.

What (Y', a*, b*) → (Cb, Cr) means: L* is that of Y' read as sRGB-encoded grey; (L*, a*, b*) is an sRGB colour R'G'B'
(negative light encodes as the odd extension of the curve, IEC 61966-2-1 Amd 1; light is held within -1..3, far
outside what a screen shows); its Cb and Cr by ITU-T H.273 are the result, and its luma, which differs a little from Y',
is dropped in favour of the source's. Decoded with the source's Y', a* and b* come back within about 0.2 on average and
hue within 1°, where taking B' - Y' and R' - Y' with the source's Y' would turn hue by 10 to 20°. Then both are scaled
toward neutral, Y' held, until R'G'B' is inside 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from pipeline.color import (
    KR_KB,
    WHITE_RGB,
    XYZ_TO_RGB,
    chroma_range,
    expand_luma,
    lab_f,
    lab_f_inverse,
    linear_to_srgb,
    neutral,
    srgb_to_linear,
)
from pipeline.frames import Matrix, Plane, Subsampling

FloatPlane = NDArray[np.float32]

# Luma variance, in squared 8-bit code values, below which the guide is trusted less: (10 codes)². Measured on real
# colour clips: grain of 8 codes in luma then adds 0.2 ab of noise, and the error at edges is 14 % below bilinear's.
_GUIDE_NOISE = 100.0
_BAND = 1 << 15  # samples guided at a time
_STRIP = 1 << 16  # samples converted at a time: twenty float planes of it stay in the second-level cache
_SLACK = 1e-6  # of full scale: rounding of float32 is not "outside the gamut"
# 16-bit codes for f(t) = (L* + 16)/116 and its neighbours, and for linear light, wide enough for any ab.
_F_RANGE = (-0.5, 1.7)
_F_STEPS = 65535 / (_F_RANGE[1] - _F_RANGE[0])
_LINEAR_RANGE = (-1.0, 3.0)
_LINEAR_STEPS = 65535 / (_LINEAR_RANGE[1] - _LINEAR_RANGE[0])


@dataclass(frozen=True)
class ChromaLayout:
    """How the output holds chroma, and how the luma given with it is to be read.

    Chroma is sited as MPEG-2 does and ffmpeg assumes: horizontally on the first luma sample it covers, vertically
    midway between those it covers.
    """

    matrix: Matrix
    full_range: bool
    bit_depth: int
    subsampling: Subsampling

    def __post_init__(self) -> None:
        if not 8 <= self.bit_depth <= 16:
            raise ValueError(f"expected a bit depth of 8 to 16, got {self.bit_depth = }")
        if not all(0 <= s <= 2 for s in self.subsampling):
            raise ValueError(f"expected subsampling of 0 to 2 (log2), got {self.subsampling = }")

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of every plane: uint8 at 8 bits, uint16 above."""
        return np.uint8 if self.bit_depth == 8 else np.uint16


def chroma_size(height: int, width: int, subsampling: Subsampling) -> tuple[int, int]:
    """(Hc, Wc) of the chroma planes of a (H, W) picture: divided and rounded up, as ffmpeg does."""
    horizontal, vertical = subsampling
    return -(-height >> vertical), -(-width >> horizontal)


def chroma_planes(ab: FloatPlane, luma: Plane, layout: ChromaLayout) -> tuple[Plane, Plane, int]:
    """Chroma of one picture.

    ab: (2, h4, w4) CIE a*, b* over the whole picture, any coarse size. luma: (H, W) codes at the layout's depth and
    range, one frame or one field. Returns Cb and Cr, each (Hc, Wc) of `chroma_size`, and how many samples were
    pulled toward neutral to stay inside the RGB cube. ab = 0 gives exactly neutral; for every sample, R'G'B' decoded
    with the luma at its site lies in 0..1 to the rounding of Cb and Cr.
    """
    _check(ab, luma, layout)
    sites = luma_at_sites(luma, layout.subsampling)
    a, b = guided_upsample(ab, sites, layout.bit_depth)
    return conversion(layout.matrix, layout.full_range, layout.bit_depth).codes(sites, a, b)


def luma_at_sites(luma: Plane, subsampling: Subsampling) -> Plane:
    """Luma (H, W) averaged at the chroma sites, (Hc, Wc), same depth.

    Vertically the mean of the rows covered. Horizontally the sample lies on the first column covered: the mean of
    the two boxes that straddle it, which for a factor of 2 is the filter [1 2 1]/4. Edges are repeated.
    """
    horizontal, vertical = subsampling
    if not (horizontal or vertical):
        return luma
    if not vertical:  # the same filter, spelled out: resizing one way only is slow
        kernel = np.convolve(np.ones(1 << horizontal), [0.5, 0.5]) / (1 << horizontal)
        filtered = cv2.sepFilter2D(luma, -1, kernel, np.ones(1), borderType=cv2.BORDER_REPLICATE)
        return cast(Plane, np.ascontiguousarray(filtered[:, :: 1 << horizontal]))
    height, width = luma.shape
    rows, columns = chroma_size(height, width, subsampling)
    before, step = (1 << horizontal) >> 1, 1 << horizontal
    below = (rows << vertical) - height
    right = max(0, columns * step + (horizontal > 0) - before - width)
    padded = cv2.copyMakeBorder(luma, 0, below, before, right, cv2.BORDER_REPLICATE)
    boxes = [
        cv2.resize(padded[:, shift : shift + columns * step], (columns, rows), interpolation=cv2.INTER_AREA)
        for shift in range(1 + (horizontal > 0))
    ]
    return cast(Plane, cv2.addWeighted(boxes[0], 0.5, boxes[1], 0.5, 0) if horizontal else boxes[0])


def guided_upsample(ab: FloatPlane, luma: Plane, bit_depth: int) -> tuple[FloatPlane, FloatPlane]:
    """ab (2, h4, w4) at the size (Hc, Wc) of `luma`, guided by it: a*, b* planes, float32.

    Per coarse cell, α is the slope of the regression of ab on luma over 3×3 cells, shrunk where luma varies less
    than grain does. The detail it is applied to is luma, median-filtered against grain, minus its coarse version
    enlarged. The result is held within the range of the neighbouring cells, so that a glint or a black line gets no
    colour that was not there.
    """
    guide, cells = _model(ab, luma, bit_depth)
    size = luma.shape[::-1]
    return _guided(guide, (_float(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)) for plane in cells))


def guided_bands(ab: FloatPlane, luma: Plane, bit_depth: int) -> Iterator[tuple[slice, FloatPlane, FloatPlane]]:
    """What `guided_upsample` returns but for float32's rounding, (rows, a*, b*) at a time: for large pictures.

    So few of them that a processor's cache holds them.
    """
    guide, cells = _model(ab, luma, bit_depth)
    height, width = luma.shape
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        rows = slice(top, min(height, top + step))
        yield rows, *_guided(guide[rows], iter(_enlarged_rows(cells, rows, luma.shape)))


def _model(ab: FloatPlane, luma: Plane, bit_depth: int) -> tuple[Plane, FloatPlane]:
    """The guide (Hc, Wc) and, by coarse cell, (9, h, w): the guide; of a* and b* slope, value, lowest, highest."""
    height, width = luma.shape
    size = min(ab.shape[2], width), min(ab.shape[1], height)
    guide = cast(Plane, cv2.medianBlur(luma, 3))
    coarse = _shrink(guide, size)
    mean = _box(coarse)
    variance = _box(coarse * coarse) - mean * mean + np.float32(_GUIDE_NOISE * 4.0 ** (bit_depth - 8))
    cells = [coarse]
    for plane in (_float(cv2.resize(plane, size, interpolation=cv2.INTER_AREA)) for plane in ab):
        slope = _float((_box(coarse * plane) - mean * _box(plane)) / variance)
        low, high = (_float(limit(plane, np.ones((3, 3), np.uint8))) for limit in (cv2.erode, cv2.dilate))
        cells += [slope, plane, low, high]
    return guide, np.stack(cells)


def _guided(guide: Plane, enlarged: Iterator[FloatPlane]) -> tuple[FloatPlane, FloatPlane]:
    """a* and b* (H, W) of the guide and what `_model` says by cell, at its size."""
    detail = guide - next(enlarged)
    planes = []
    for slope, plane, low, high in zip(*[enlarged] * 4, strict=True):
        guided = np.multiply(slope, detail, out=slope)
        guided += plane
        np.maximum(guided, low, out=guided)
        planes.append(np.minimum(guided, high, out=guided))
    return planes[0], planes[1]


@dataclass(frozen=True, eq=False)
class Conversion:
    """(Y', a*, b*) → (Cb, Cr) as the module's docstring defines it, through one-dimensional tables.

    By luma code: `luma` Y' clipped to 0..1, `f` the 16-bit code of f(t), `light` the code of linear light. By 16-bit
    code: `light_of_f` the code of linear light, `encoded` R', G' or B'. All float32 (1, 256) or (1, 65536).
    """

    kr: float
    kb: float
    bit_depth: int
    span: float
    luma: FloatPlane
    f: FloatPlane
    light: FloatPlane
    light_of_f: FloatPlane
    encoded: FloatPlane

    def codes(self, luma: Plane, a: FloatPlane, b: FloatPlane) -> tuple[Plane, Plane, int]:
        """Cb and Cr planes and the number of samples pulled; all inputs (H, W), luma in code values."""
        cb, cr = np.empty_like(luma), np.empty_like(luma)
        rows = max(1, _STRIP // luma.shape[1])
        pulled = 0
        for top in range(0, luma.shape[0], rows):
            part = slice(top, top + rows)
            red, green, blue = self._differences(luma[part], a[part], b[part])
            scale = _share_inside(_lookup(luma[part], self.luma), red, green, blue)
            cb[part] = self._quantised(blue * scale, 2 * (1 - self.kb))
            cr[part] = self._quantised(red * scale, 2 * (1 - self.kr))
            pulled += int(np.count_nonzero(scale < 1))
        return cb, cr, pulled

    def _differences(self, luma: Plane, a: FloatPlane, b: FloatPlane) -> tuple[FloatPlane, FloatPlane, FloatPlane]:
        """R', G' and B' of the Lab colour, each minus their luma; 0 to float32's rounding where ab is 0."""
        f = _lookup(luma, self.f)
        y = _lookup(luma, self.light)
        dx = _lookup(_u16(f, a, _F_STEPS / 500), self.light_of_f) - y
        dz = _lookup(_u16(f, b, -_F_STEPS / 200), self.light_of_f) - y
        x_share, z_share = XYZ_TO_RGB[:, 0] * WHITE_RGB[0], XYZ_TO_RGB[:, 2] * WHITE_RGB[2]
        red, green, blue = (_lookup(_u16(y, _mix(dx, x_share[i], dz, z_share[i])), self.encoded) for i in range(3))
        own = _mix(_mix(red, self.kr, blue, self.kb), 1, green, 1 - self.kr - self.kb)
        return red - own, green - own, blue - own

    def _quantised(self, difference: FloatPlane, full: float) -> Plane:
        depth = cv2.CV_8U if self.bit_depth == 8 else cv2.CV_16U
        zero = neutral(self.bit_depth)
        return cast(Plane, cv2.addWeighted(difference, self.span / full, difference, 0, zero, dtype=depth))


@lru_cache(maxsize=8)
def conversion(matrix: Matrix, full_range: bool, bit_depth: int) -> Conversion:
    """The tables of one output layout, made once."""
    codes = np.arange(1 << (8 if bit_depth == 8 else 16))
    luma = np.clip(expand_luma(codes, full_range, bit_depth), 0, 1)
    f = np.rint((lab_f(srgb_to_linear(luma)) - _F_RANGE[0]) * _F_STEPS)
    light_of_f = (lab_f_inverse(np.arange(65536) / _F_STEPS + _F_RANGE[0]) - _LINEAR_RANGE[0]) * _LINEAR_STEPS
    linear = np.arange(65536) / _LINEAR_STEPS + _LINEAR_RANGE[0]
    tables = luma, f, light_of_f[f.astype(int)], light_of_f, np.sign(linear) * linear_to_srgb(np.abs(linear))
    rows = (np.asarray(table, np.float32).reshape(1, -1) for table in tables)
    return Conversion(*KR_KB[matrix], bit_depth, chroma_range(full_range, bit_depth)[1], *rows)


def _share_inside(luma: FloatPlane, red: FloatPlane, green: FloatPlane, blue: FloatPlane) -> FloatPlane:
    """The largest share 0..1 of the colour differences for which Y' plus each of them stays in 0..1."""
    rise = np.maximum(np.maximum(red, green), blue)
    fall = np.minimum(np.minimum(red, green), blue)
    above = (np.float32(1) - luma + np.float32(_SLACK)) / np.maximum(rise, np.float32(_SLACK))
    below = (luma + np.float32(_SLACK)) / np.maximum(-fall, np.float32(_SLACK))
    return np.minimum(np.minimum(above, below), np.float32(1))


def _lookup(codes: Plane, table: FloatPlane) -> FloatPlane:
    return _float(cv2.LUT(codes, table))


def _mix(x: FloatPlane, x_weight: float, y: FloatPlane, y_weight: float) -> FloatPlane:
    return _float(cv2.addWeighted(x, x_weight, y, y_weight, 0))


def _u16(base: FloatPlane, offset: FloatPlane, gain: float = 1) -> Plane:
    """base + gain · offset, rounded and saturated to 16 bits."""
    return cast(Plane, cv2.addWeighted(base, 1, offset, gain, 0, dtype=cv2.CV_16U))


def _shrink(plane: Plane, size: tuple[int, int]) -> FloatPlane:
    """Area average to a (width, height) no larger, float32; most of the way in a fast integral step."""
    height, width = plane.shape
    factor = min(width // size[0], height // size[1]) // 2
    if factor > 1:
        plane = cast(Plane, cv2.resize(plane, (width // factor, height // factor), interpolation=cv2.INTER_AREA))
    return _float(cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _enlarged_rows(stack: FloatPlane, rows: slice, shape: tuple[int, ...]) -> FloatPlane:
    """Rows (N, H, width) of planes (N, h, w) as they are when those are enlarged bilinearly to `shape`."""
    height, width = shape
    last = stack.shape[1] - 1
    y = np.clip((np.arange(rows.start, rows.stop) + 0.5) * (stack.shape[1] / height) - 0.5, 0, last)
    above = y.astype(int)
    weight = (y - above).astype(np.float32)[:, None]
    mixed = stack[:, above] * (1 - weight) + stack[:, np.minimum(above + 1, last)] * weight
    count = len(stack) * len(above)
    wide = cv2.resize(mixed.reshape(count, -1), (width, count), interpolation=cv2.INTER_LINEAR)
    return _float(wide).reshape(len(stack), len(above), width)


def _box(plane: FloatPlane) -> FloatPlane:
    return _float(cv2.blur(plane, (3, 3), borderType=cv2.BORDER_REPLICATE))


def _float(plane: MatLike) -> FloatPlane:
    return np.asarray(plane, np.float32)


def _check(ab: FloatPlane, luma: Plane, layout: ChromaLayout) -> None:
    if ab.ndim != 3 or ab.shape[0] != 2 or ab.dtype != np.float32:
        raise ValueError(f"expected ab (2, h, w) float32, got {ab.shape = }, {ab.dtype = }")
    if luma.ndim != 2 or luma.dtype != layout.dtype:
        raise ValueError(f"expected luma (H, W) {np.dtype(layout.dtype)}, got {luma.shape = }, {luma.dtype = }")
