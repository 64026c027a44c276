"""ICC profiles (ICC.1:2022, through LittleCMS): the lightness a code has under one, and colours written under one.

Everything goes by way of sRGB at 16 bits with relative colorimetric intent: white stays white, neutral stays neutral.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

from pipeline.color import lab_f, srgb_to_linear

Space = Literal["gray", "rgb", "cmyk"]
_SPACES: dict[bytes, Space] = {b"GRAY": "gray", b"RGB ": "rgb", b"CMYK": "cmyk"}
_RELATIVE_COLORIMETRIC = 1
_EXACT = imagecodecs.CMS.FLAGS.NOOPTIMIZE  # the tables that LittleCMS would put in place are off by 4 codes near black
_DATE = slice(24, 36)  # of a profile's creation, in its header
_FIXED_DATE = np.array([2000, 1, 1, 0, 0, 0], ">u2").tobytes()
_SAME = 0.02  # of full scale: profiles that differ less from sRGB are sRGB, written by someone else


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An sRGB profile; the same bytes on every day."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_DATE] = _FIXED_DATE
    return bytes(profile)


def profile_space(icc: bytes | None) -> Space | None:
    """The colour space a profile is for; None for no profile, a damaged one, or one of another space."""
    if icc is None or len(icc) < 128 or icc[36:40] != b"acsp":
        return None
    space = _SPACES.get(icc[16:20])
    return space if space and _usable(icc, space) else None


def grey_lightness(icc: bytes | None, space: Space, bit_depth: int) -> NDArray[np.float32]:
    """L* 0..100 of every grey code of `bit_depth`, float32: of the code itself, or of R = G = B = code.

    A profile that is not for `space` ("gray" or "rgb") does not count; without one the code is sRGB.
    """
    return _grey_lightness(icc if profile_space(icc) == space else None, space, bit_depth)


@lru_cache(maxsize=16)
def _grey_lightness(icc: bytes | None, space: Space, bit_depth: int) -> NDArray[np.float32]:
    encoded = np.arange(1 << bit_depth) / ((1 << bit_depth) - 1)
    if icc is not None:
        ramp = np.rint(encoded * 65535).astype(np.uint16)[None]
        if space == "rgb":
            ramp = np.repeat(ramp[..., None], 3, axis=-1)
        encoded = to_srgb(ramp, icc, space)[0, :, 1] / 65535
    table = np.clip(116 * lab_f(srgb_to_linear(encoded)) - 16, 0, 100).astype(np.float32)
    table.setflags(write=False)
    return table


def to_srgb(pixels: NDArray[Any], icc: bytes, space: Space) -> NDArray[np.uint16]:
    """Pixels (H, W) or (H, W, C), full-scale uint8 or uint16, under a profile → sRGB (H, W, 3) uint16."""
    return _transform(pixels, icc, srgb_profile(), space)


def from_srgb(pixels: NDArray[np.uint16], icc: bytes) -> NDArray[np.uint16]:
    """sRGB (H, W, 3) uint16 → RGB under a profile, (H, W, 3) uint16."""
    return _transform(pixels, srgb_profile(), icc, "rgb")


@lru_cache(maxsize=64)
def is_srgb(icc: bytes) -> bool:
    """Whether an RGB profile says the same as sRGB."""
    patches = (
        np.array([[v, v, v] for v in range(0, 256, 17)] + [[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint16) * 257
    )
    return bool(np.abs(to_srgb(patches[None], icc, "rgb")[0] - patches.astype(int)).max() < _SAME * 65535)


def _transform(pixels: NDArray[Any], source: bytes, target: bytes, space: Space) -> NDArray[np.uint16]:
    result: NDArray[np.uint16] = imagecodecs.cms_transform(
        np.ascontiguousarray(pixels), source, target, colorspace=space, outcolorspace="rgb",
        outdtype="uint16", intent=_RELATIVE_COLORIMETRIC, flags=_EXACT,
    )  # fmt: skip
    return result.reshape(*pixels.shape[:2], 3)


@lru_cache(maxsize=64)
def _usable(icc: bytes, space: Space) -> bool:
    """Whether LittleCMS makes a transform of it."""
    channels = {"gray": (), "rgb": (3,), "cmyk": (4,)}[space]
    try:
        to_srgb(np.zeros((1, 2, *channels), np.uint16), icc, space)
    except (imagecodecs.CmsError, ValueError):
        return False
    return True
