"""Pixel formats: where the samples of a decoded picture lie, and how they become luma and chroma planes.

YUV and grey samples are taken as the decoder made them, bit for bit. RGB becomes full-range Y'CbCr at its own depth,
with R = G = B giving exactly Y' = R and neutral chroma. What has no layout here goes through swscale first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.color import KR_KB
from pipeline.errors import InputError
from pipeline.frames import Matrix, Plane, Subsampling

Kind = Literal["grey", "yuv", "rgb", "bitfields", "palette", "bilevel"]
Samples = NDArray[Any]


@dataclass(frozen=True)
class Component:
    """Samples of one component: every `step`-th of a plane's, from `offset`, in units of one sample."""

    plane: int
    offset: int = 0
    step: int = 1


@dataclass(frozen=True)
class PixelLayout:
    """Where a pixel format keeps its samples.

    components: (Y,), (Y, Cb, Cr) or (R, G, B). `shift` is how far the value lies above bit 0 of its sample.
    fields: for `bitfields`, the (lowest bit, width) of R, G, B in a pixel's word; inverted: 0 is white.
    convert: the format that swscale makes of this one first, None where the samples are read as they are.
    """

    kind: Kind
    bit_depth: int
    dtype: str
    components: tuple[Component, ...] = (Component(0),)
    subsampling: Subsampling | None = None
    shift: int = 0
    fields: tuple[tuple[int, int], ...] = ()
    inverted: bool = False
    convert: str | None = None

    @property
    def is_rgb(self) -> bool:
        """Whether luma is computed rather than read."""
        return self.kind in ("rgb", "bitfields", "palette")

    @property
    def sample_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of the planes handed on."""
        return np.uint8 if self.bit_depth <= 8 else np.uint16


_SUBSAMPLING: dict[str, Subsampling] = {
    "410": (2, 2), "411": (2, 0), "420": (1, 1), "422": (1, 0), "440": (0, 1), "444": (0, 0),
}  # fmt: skip
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG; the same on both sides of a conversion, so that no code is rescaled
_PLANAR = tuple(Component(p) for p in range(3))
_GBR_PLANAR = (Component(2), Component(0), Component(1))
# Two luma samples share one Cb and one Cr; (first Y, Cb, Cr) as positions among the four samples.
_PACKED_422 = {"yuyv422": (0, 1, 3), "yvyu422": (0, 3, 1), "uyvy422": (1, 0, 2)}
# Positions of (Y, Cb, Cr) in a pixel, samples a pixel.
_PACKED_444 = {
    "vuya": (2, 1, 0, 4),
    "vuyx": (2, 1, 0, 4),
    "uyva": (1, 0, 2, 4),
    "ayuv": (1, 2, 3, 4),
    "vyu444": (1, 2, 0, 3),
}
# (lowest bit, width) of R, G, B, and bytes of the word (pixfmt.h).
_BITFIELDS: dict[str, tuple[tuple[tuple[int, int], ...], int]] = {
    "rgb565": (((11, 5), (5, 6), (0, 5)), 2),
    "bgr565": (((0, 5), (5, 6), (11, 5)), 2),
    "rgb555": (((10, 5), (5, 5), (0, 5)), 2),
    "bgr555": (((0, 5), (5, 5), (10, 5)), 2),
    "rgb444": (((8, 4), (4, 4), (0, 4)), 2),
    "bgr444": (((0, 4), (4, 4), (8, 4)), 2),
    "x2rgb10": (((20, 10), (10, 10), (0, 10)), 4),
    "x2bgr10": (((0, 10), (10, 10), (20, 10)), 4),
    "rgb8": (((5, 3), (2, 3), (0, 2)), 1),
    "bgr8": (((0, 3), (3, 3), (6, 2)), 1),
    "rgb4_byte": (((3, 1), (1, 2), (0, 1)), 1),
    "bgr4_byte": (((0, 1), (1, 2), (3, 1)), 1),
}
# Rarer formats and the nearest one of at least their depth that has a layout.
_CONVERTED = (
    (r"uyyvyy411", "yuv411p"),
    (r"(xv30|v30x)le", "yuv444p10le"),
    (r"xyz12(le|be)", "gbrp16le"),
    (r"bayer_.*8", "rgb24"),
    (r"bayer_.*16(le|be)", "rgb48le"),
)


@lru_cache(maxsize=256)
def pixel_layout(pix_fmt: str) -> PixelLayout:
    """Layout of an FFmpeg pixel format. Raises InputError for what is in graphics hardware, or swscale only writes."""
    layout = _wide(pix_fmt) or _luma_chroma(pix_fmt) or _rgb(pix_fmt)
    if layout is not None:
        return layout
    for pattern, target in _CONVERTED:
        if re.fullmatch(pattern, pix_fmt):
            return PixelLayout(**{**vars(pixel_layout(target)), "convert": target})
    raise InputError(f"pixel format {pix_fmt} cannot be read; convert the source to yuv444p16 or rgb48 first")


def _wide(name: str) -> PixelLayout | None:
    """Layouts of floating-point samples, 0..1, and of 32-bit integers: grey and RGB, read at 16 bits."""
    if not (m := re.fullmatch(r"(gray|ya|gbra?p|rgba?)(f16|f32|32|96|128)(le|be)", name)):
        return None
    size = 2 if m[2] == "f16" else 4
    dtype = f"{'>' if m[3] == 'be' else '<'}{m[2][0] if m[2][0] == 'f' else 'u'}{size}"
    shift = 0 if m[2][0] == "f" else 16
    if m[1] in ("gray", "ya"):
        return PixelLayout("grey", 16, dtype, (Component(0, 0, 2 if m[1] == "ya" else 1),), shift=shift)
    packed = tuple(Component(0, i, len(m[1])) for i in range(3))
    return PixelLayout("rgb", 16, dtype, _GBR_PLANAR if m[1].startswith("gbr") else packed, (0, 0), shift)


def _luma_chroma(name: str) -> PixelLayout | None:
    """Layouts of grey and Y'CbCr formats."""
    if name in ("monow", "monob"):
        return PixelLayout("bilevel", 8, "u1", inverted=name == "monow")
    if m := re.fullmatch(r"(gray|ya)(\d+)?(le|be)?", name):
        depth = int(m[2] or 8)
        step = 2 if m[1] == "ya" else 1
        return PixelLayout("grey", depth, _dtype(depth, m[3]), (Component(0, 0, step),))
    if m := re.fullmatch(r"yuv[aj]?(410|411|420|422|440|444)p(\d+)?(msb)?(le|be)?", name):
        depth = int(m[2] or 8)
        shift = 16 - depth if m[3] else 0
        return PixelLayout("yuv", depth, _dtype(depth, m[4]), _PLANAR, _SUBSAMPLING[m[1]], shift)
    if m := re.fullmatch(r"(nv12|nv21|nv16|nv24|nv42|nv20|p[024]1[026])(le|be)?", name):
        return _semiplanar(m[1], m[2])
    return _packed_yuv(name)


def _semiplanar(name: str, order: str | None) -> PixelLayout:
    """Layouts with a plane of Y and one of Cb and Cr in turn; P0xx carry their value in the upper bits (Microsoft)."""
    depth = {"nv20": 10}.get(name, 8) if name.startswith("nv") else int(name[2:])
    shift = 16 - depth if name.startswith("p") else 0
    layouts = {"nv12": "420", "nv21": "420", "nv16": "422", "nv20": "422", "nv24": "444", "nv42": "444"}
    subsampling = _SUBSAMPLING[layouts.get(name) or {"p0": "420", "p2": "422", "p4": "444"}[name[:2]]]
    first, second = Component(1, 0, 2), Component(1, 1, 2)
    chroma = (second, first) if name in ("nv21", "nv42") else (first, second)
    return PixelLayout("yuv", depth, _dtype(depth, order), (Component(0), *chroma), subsampling, shift)


def _packed_yuv(name: str) -> PixelLayout | None:
    """Layouts with Y, Cb and Cr side by side in one plane."""
    m = re.fullmatch(r"y21([026])(le|be)", name)
    if m or name in _PACKED_422:
        y, cb, cr = _PACKED_422.get(name, (0, 1, 3))
        depth = 10 + int(m[1]) if m else 8
        components = (Component(0, y, 2), Component(0, cb, 4), Component(0, cr, 4))
        return PixelLayout("yuv", depth, _dtype(depth, m and m[2]), components, (1, 0), 16 - depth if m else 0)
    if name in _PACKED_444:
        y, cb, cr, step = _PACKED_444[name]
        return PixelLayout("yuv", 8, "u1", tuple(Component(0, at, step) for at in (y, cb, cr)), (0, 0))
    if m := re.fullmatch(r"(ayuv64|xv36|xv48)(le|be)", name):  # xv: U, Y, V, unused
        depth = 12 if m[1] == "xv36" else 16
        places = (1, 2, 3) if m[1] == "ayuv64" else (1, 0, 2)
        return PixelLayout(
            "yuv", depth, _dtype(16, m[2]), tuple(Component(0, at, 4) for at in places), (0, 0), 16 - depth
        )
    return None


def _rgb(name: str) -> PixelLayout | None:
    """Layouts of RGB formats; alpha is left out."""
    if name == "pal8":
        return PixelLayout("palette", 8, "u1", subsampling=(0, 0))
    if m := re.fullmatch(r"gbra?p(\d+)?(msb)?(le|be)?", name):
        depth = int(m[1] or 8)
        shift = 16 - depth if m[2] else 0
        return PixelLayout("rgb", depth, _dtype(depth, m[3]), _GBR_PLANAR, (0, 0), shift)
    if m := re.fullmatch(r"(rgb24|bgr24|[argb0]{4}|rgb48|bgr48|rgba64|bgra64)(le|be)?", name):
        letters = m[1].rstrip("0123456789") if m[1][-1] in "48" else m[1]
        depth = 16 if m[1][-2:] in ("48", "64") else 8
        components = tuple(Component(0, letters.index(c), len(letters)) for c in "rgb")
        return PixelLayout("rgb", depth, _dtype(depth, m[2]), components, (0, 0))
    m = re.fullmatch(r"(.+?)(le|be)?", name)
    if m and m[1] in _BITFIELDS:
        fields, size = _BITFIELDS[m[1]]
        dtype = f"{'>' if m[2] == 'be' else '<'}u{size}"
        return PixelLayout("bitfields", 10 if size == 4 else 8, dtype, subsampling=(0, 0), fields=fields)
    return None


def _dtype(depth: int, order: str | None) -> str:
    return "u1" if depth <= 8 else ">u2" if order == "be" else "<u2"


def read_planes(frame: av.VideoFrame, layout: PixelLayout, matrix: Matrix) -> tuple[Plane, tuple[Plane, Plane] | None]:
    """Copies of luma (H, W) and of the (Cb, Cr) planes at the layout's depth; None where there is no chroma."""
    if layout.convert:
        frame = frame.reformat(format=layout.convert, src_color_range=_FULL_RANGE, dst_color_range=_FULL_RANGE)
    height, width = frame.height, frame.width
    if layout.is_rgb:
        luma, cb, cr = rgb_planes(_rgb_samples(frame, layout), matrix, layout.bit_depth)
        return luma, (cb, cr)
    if layout.kind == "bilevel":
        bits = np.unpackbits(_rows(frame.planes[0], height, "u1"), axis=1, count=width)
        return (bits ^ layout.inverted) * np.uint8(255), None
    luma = _samples(frame, layout, 0, (height, width))
    if layout.subsampling is None:
        return luma, None
    horizontal, vertical = layout.subsampling
    size = (-(-height >> vertical), -(-width >> horizontal))
    return luma, (_samples(frame, layout, 1, size), _samples(frame, layout, 2, size))


def rgb_planes(rgb: Samples, matrix: Matrix, bit_depth: int) -> tuple[Plane, Plane, Plane]:
    """Full-range (Y', Cb, Cr), each (H, W), from R'G'B' codes (H, W, 3), rounded to `bit_depth` (H.273 §8.3).

    R = G = B = v gives exactly Y' = v and Cb = Cr = 2^(bit_depth - 1): float32 holds 16-bit codes to 2^-8.
    """
    kr, kb = KR_KB[matrix]
    kg = 1 - kr - kb
    blue, red = 0.5 / (1 - kb), 0.5 / (1 - kr)
    half = float(1 << (bit_depth - 1))
    weights = [
        [kr, kg, kb, 0.0],
        [-kr * blue, -kg * blue, (1 - kb) * blue, half],
        [(1 - kr) * red, -kg * red, -kb * red, half],
    ]
    mixed = cv2.transform(rgb.astype(np.float32), np.array(weights, np.float32))
    codes = np.clip(np.rint(mixed), 0, (1 << bit_depth) - 1).astype(np.uint8 if bit_depth <= 8 else np.uint16)
    y, cb, cr = (np.ascontiguousarray(codes[..., i]) for i in range(3))
    return y, cb, cr


def _rgb_samples(frame: av.VideoFrame, layout: PixelLayout) -> Samples:
    """R'G'B' codes (H, W, 3) at the layout's depth."""
    size = (frame.height, frame.width)
    if layout.kind == "rgb":
        return np.stack([_samples(frame, layout, i, size) for i in range(3)], axis=-1)
    words = _rows(frame.planes[0], frame.height, layout.dtype)[:, : frame.width]
    if layout.kind == "palette":
        palette = _words(frame.planes[1])  # native-endian ARGB
        return np.stack([(palette >> s & 255).astype(np.uint8)[words] for s in (16, 8, 0)], axis=-1)
    peak = (1 << layout.bit_depth) - 1
    values = [(words >> low & (1 << width) - 1).astype(np.uint32) * peak for low, width in layout.fields]
    spans = [(1 << width) - 1 for _, width in layout.fields]
    return np.stack([(2 * v + n) // (2 * n) for v, n in zip(values, spans, strict=True)], axis=-1)


def _words(plane: Any) -> NDArray[np.uint32]:
    return np.frombuffer(plane, np.uint32)


def _samples(frame: av.VideoFrame, layout: PixelLayout, index: int, size: tuple[int, int]) -> Plane:
    """A copy of one component's samples, in native byte order."""
    at = layout.components[index]
    rows = _rows(frame.planes[at.plane], size[0], layout.dtype)
    view = rows[:, at.offset :: at.step][:, : size[1]]
    if layout.dtype[1] == "f":
        view = np.rint(np.clip(np.nan_to_num(view.astype(np.float32)), 0, 1) * 65535)
    elif layout.shift:
        view = view >> layout.shift
    return cast(Plane, view.astype(layout.sample_dtype, order="C", copy=True))


def _rows(plane: Any, height: int, dtype: str) -> Samples:
    """A view of a plane's rows from top to bottom, padding included."""
    stride = plane.line_size
    rows = np.frombuffer(plane, np.uint8, abs(stride) * height).reshape(height, abs(stride))
    whole = abs(stride) // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize
    return (rows if stride > 0 else rows[::-1])[:, :whole].view(dtype)
