"""A still picture's lightness to the network, and the network's colour back onto it at exactly that lightness."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property, lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.bars import WHOLE, Window, find_window
from pipeline.chroma import guided_bands
from pipeline.color import WHITE_RGB, XYZ_TO_RGB, linear_to_srgb, rgb_to_lab
from pipeline.frames import Plane
from pipeline.infer import network_size
from pipeline.pictures import Picture
from pipeline.planes import rgb_planes
from pipeline.profiles import from_srgb, grey_lightness, is_srgb, profile_space, srgb_profile, to_srgb
from pipeline.quality import has_real_colour
from pipeline.turns import SHORT_OPERATIONS

Floats = NDArray[np.float32]
_LOOKED_AT = 1 << 21  # pixels that tell whether a picture is in colour
_JOINT = np.float32(6 / 29)  # of f, where CIE Lab's cube root goes over into a line
_SLACK = np.float32(1e-9)  # of linear light, for what is not out of gamut
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class Canvas:
    """A picture and its lightness: what the network is shown, and what colour is laid on."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._tinted = picture.is_rgb and not _is_neutral(picture.pixels)
        self._icc = _unlike_srgb(picture)
        space = profile_space(picture.icc)
        self._table = grey_lightness(picture.icc, "rgb" if space == "rgb" else "gray", picture.bit_depth)
        pixels: NDArray[Any] = picture.pixels
        self.grey: Plane = pixels
        if self._tinted:
            self.grey = rgb_planes(pixels, "bt601", picture.bit_depth)[0]
        elif picture.is_rgb:
            self.grey = np.ascontiguousarray(pixels[..., 0])

    @property
    def in_colour(self) -> bool:
        """Whether the picture has real colour already, which a tint is not."""
        if not self._tinted:
            return False
        step = max(1, round((self.grey.size / _LOOKED_AT) ** 0.5))
        depth = self._picture.bit_depth
        planes = rgb_planes(np.ascontiguousarray(self._picture.pixels[::step, ::step]), "bt601", depth)
        return has_real_colour(*planes, depth)

    def network_input(self) -> Floats:
        """L* (1, h, w), 0..100, upright, of what lies between black bars, at the network's size for that."""
        return np.ascontiguousarray(upright(self._view[1], self._picture.orientation))[None]

    def colour(self, ab: Floats) -> tuple[Plane, int]:
        """The picture in colour; black bars round it stay without.

        ab: (2, h/4, w/4) or finer from the network, upright. Returns RGB codes (H, W, 3) at the picture's depth under
        `output_profile`, and how many pixels were pulled toward neutral to stay inside sRGB.
        """
        window = self._view[0]
        rgb = np.empty((*self.grey.shape, 3), self.grey.dtype)
        if window != WHOLE:
            self._lay(np.zeros_like(ab), WHOLE, rgb)
        return rgb, self._lay(np.ascontiguousarray(as_stored(ab, self._picture.orientation)), window, rgb)

    def _lay(self, ab: Floats, window: Window, rgb: Plane) -> int:
        """Put the colours of a window, as stored, into the picture's; how many pixels were pulled toward neutral."""
        own, inside = window.of(self._picture.pixels if self._tinted else self.grey), window.of(rgb)
        pulled = 0
        with SHORT_OPERATIONS if self._icc is None else nullcontext():  # LittleCMS takes long
            for rows, a, b in guided_bands(ab, window.of(self.grey), self._picture.bit_depth):
                linear, moved = linear_colour(self._lightness(own[rows]), a, b)
                inside[rows] = self._codes(linear)
                pulled += moved
        return pulled

    @cached_property
    def _view(self) -> tuple[Window, Floats]:
        """What lies between black bars, and its L* (h, w) at the network's size, both as stored."""
        whole = self._shown(WHOLE)
        window = find_window(whole) or WHOLE
        return window, whole if window == WHOLE else self._shown(window)

    def _shown(self, window: Window) -> Floats:
        """L* (h, w) of a window at the network's size for it, as stored."""
        pixels = window.of(self._picture.pixels if self._tinted else self.grey)
        height, width = pixels.shape[:2]
        if self._picture.orientation in _TRANSPOSED:
            size = network_size(height, width)
        else:
            h, w = network_size(width, height)
            size = w, h
        return self._lightness(_resize(pixels, size))

    def _lightness(self, pixels: Plane) -> Floats:
        """L* of codes (H, W), or of RGB (H, W, 3) where the picture is tinted."""
        if pixels.ndim == 2:
            return self._table.take(pixels)
        if self._icc is None:
            encoded = pixels.astype(np.float32) / ((1 << self._picture.bit_depth) - 1)
        else:
            encoded = to_srgb(_at_16_bits(pixels, self._picture.bit_depth), self._icc, "rgb").astype(np.float32) / 65535
        return rgb_to_lab(encoded)[..., 0].astype(np.float32)

    def _codes(self, linear: Floats) -> Plane:
        depth = self._picture.bit_depth
        if self._icc is None:
            return encode(linear, depth)
        full = from_srgb(encode(linear, 16).astype(np.uint16), self._icc)
        return full if depth == 16 else np.rint(full * (((1 << depth) - 1) / 65535)).astype(self.grey.dtype)


def output_profile(picture: Picture) -> bytes | None:
    """The profile that colours are written under: the source's own RGB one, sRGB in place of one for grey or CMYK."""
    return picture.icc if profile_space(picture.icc) in ("rgb", None) else srgb_profile()


def linear_colour(lightness: Floats, a: Floats, b: Floats) -> tuple[Floats, int]:
    """Linear sRGB (3, H, W) in 0..1 of L*, a*, b* planes (H, W), and how many pixels were out of gamut.

    Those are pulled toward the grey of the same luminance in linear light, so that L* is held; ab = 0 gives exact grey.
    """
    f = (lightness + np.float32(16)) / np.float32(116)
    y = _light(f)
    dx = _light(f + a / np.float32(500)) - y
    dz = _light(f - b / np.float32(200)) - y
    linear = np.empty((3, *y.shape), np.float32)
    for i in range(3):
        np.multiply(dx, np.float32(XYZ_TO_RGB[i, 0] * WHITE_RGB[0]), out=linear[i])
        linear[i] += dz * np.float32(XYZ_TO_RGB[i, 2] * WHITE_RGB[2])
    red, green, blue = linear
    rise = np.maximum(np.maximum(np.maximum(red, green), blue), _SLACK)
    fall = np.maximum(-np.minimum(np.minimum(red, green), blue), _SLACK)
    room = np.minimum(np.minimum((1 - y) / rise, y / fall), np.float32(1))
    linear *= room
    linear += y
    np.clip(linear, 0, 1, out=linear)
    return linear, int(np.count_nonzero(room < 1))


def encode(linear: Floats, bit_depth: int) -> Plane:
    """Linear light (3, H, W), 0..1, to sRGB codes (H, W, 3) of a depth; at 8 bits to 0.05 of a code, by a table."""
    if bit_depth == 8:
        steps = np.rint(linear * np.float32(65535)).astype(np.uint16)
        return cast(Plane, cv2.merge([cv2.LUT(plane, _encoding_8()) for plane in steps]))
    peak = np.float32((1 << bit_depth) - 1)
    wide: NDArray[np.uint16] = np.rint(linear_to_srgb(np.moveaxis(linear, 0, -1)) * peak).astype(np.uint16)
    return wide


def upright(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A plane (..., H, W) as EXIF `orientation` wants it looked at; a view."""
    if orientation in _TRANSPOSED:
        plane = np.swapaxes(plane, -1, -2)
    if orientation in (2, 3, 6, 7):
        plane = plane[..., ::-1]
    return plane[..., ::-1, :] if orientation in (3, 4, 7, 8) else plane


def as_stored(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The inverse of `upright`."""
    if orientation in (3, 4, 7, 8):
        plane = plane[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        plane = plane[..., ::-1]
    return np.swapaxes(plane, -1, -2) if orientation in _TRANSPOSED else plane


def _light(f: Floats) -> Floats:
    """`lab_f_inverse` in few passes: its cube and its line, each of the part of f that is its own."""
    light = np.maximum(f, _JOINT)
    light *= light * light
    light += np.minimum(f - _JOINT, np.float32(0)) * (3 * _JOINT * _JOINT)
    return light


def _resize(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    shrinking = pixels.shape[1] >= size[0] and pixels.shape[0] >= size[1]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR))


def _unlike_srgb(picture: Picture) -> bytes | None:
    """The picture's RGB profile where it has one, as grey pictures may, that differs from sRGB."""
    icc = picture.icc
    return icc if icc and profile_space(icc) == "rgb" and not is_srgb(icc) else None


def _is_neutral(pixels: Plane) -> bool:
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def _at_16_bits(pixels: Plane, bit_depth: int) -> NDArray[np.uint16]:
    wide: NDArray[np.uint16] = np.rint(pixels * (65535 / ((1 << bit_depth) - 1))).astype(np.uint16)
    return wide


@lru_cache(maxsize=1)
def _encoding_8() -> NDArray[np.uint8]:
    return np.rint(linear_to_srgb(np.arange(65536) / 65535) * 255).astype(np.uint8)
