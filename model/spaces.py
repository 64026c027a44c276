"""Colour spaces of networks, on batches: the lightness a network sees, the chroma it learns, and back to CIE ab.

Every network sees CIE L* (0..100) of a grey picture. What it says of colour is in one of two spaces:

- `lab`: CIE a*, b* (D65, 2°), as in pipeline.color.
- `yuv`: U, V of sRGB-encoded RGB by ITU-T H.273, BT.601 weights, full range of 8 bits: Cb - 128 and Cr - 128,
  -127.5..127.5. The lightness beside it is that of the grey with the colour's Y'.

All functions are differentiable and made of operations that ONNX has.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.color import KR_KB, RGB_TO_XYZ, WHITE_D65

Space = Literal["lab", "yuv"]
SPACES: dict[str, str] = {
    "lab": "CIE Lab, D65, 2 degrees; input L* 0..100, output a* b*",
    "yuv": "U V of sRGB-encoded RGB, BT.601, full range, -128..128; input L* 0..100, output turned to a* b*",
}
UNIT: dict[str, float] = {"lab": 110.0, "yuv": 128.0}  # chroma that a regression head gives as 1; none is larger

_KR, _KB = KR_KB["bt601"]
_EPSILON, _SLOPE, _OFFSET = (6 / 29) ** 3, (29 / 6) ** 2 / 3, 4 / 29  # of CIE Lab's f, as in pipeline.color


def checked_space(name: str) -> Space:
    """The name as a Space; ValueError where it is none."""
    if name not in get_args(Space):
        raise ValueError(f"expected a colour space of {', '.join(get_args(Space))}, got {name[:40]}")
    return name  # type: ignore[return-value]


def rgb_to_space(space: Space, rgb: Tensor) -> tuple[Tensor, Tensor]:
    """(N, h, w, 3) uint8 sRGB to (L* (N, 1, h, w) of the grey in 0..100, true chroma (N, 2, h, w)), float32."""
    if space == "lab":
        return lab(linear_light(rgb))
    luma, chroma = yuv(rgb)
    return grey_lightness(luma), chroma


def to_ab(space: Space, lightness: Tensor, chroma: Tensor) -> Tensor:
    """CIE ab (N, 2, h, w) of chroma (N, 2, h, w) at L* (N, 1, h, w) of the grey.

    U, V are added to the grey's Y', drawn towards neutral, Y' held, as far as R'G'B' would leave 0..1.
    """
    if space == "lab":
        return chroma
    luma = grey_luma(lightness)
    u, v = torch.chunk(chroma / 255, 2, dim=1)
    red, blue = 2 * (1 - _KR) * v, 2 * (1 - _KB) * u
    green = -(_KR * red + _KB * blue) / (1 - _KR - _KB)
    offset = torch.cat([red, green, blue], dim=1)
    room = torch.where(offset > 0, 1 - luma, luma)
    kept = (room / offset.abs().clamp_min(1e-6)).amin(1, keepdim=True).clamp(0, 1)
    return lab(_decoded((luma + kept * offset).clamp(0, 1)))[1]


def linear_light(rgb: Tensor) -> Tensor:
    """(N, h, w, 3) uint8 sRGB to (N, 3, h, w) float32 linear light 0..1 (IEC 61966-2-1)."""
    code = torch.arange(256, dtype=torch.float64, device=rgb.device) / 255
    return _decoded(code).float()[rgb.int()].permute(0, 3, 1, 2)


def lab(linear: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, h, w) linear sRGB to L* (N, 1, h, w) in 0..100 and ab (N, 2, h, w); as pipeline.color, on a batch."""
    matrix = torch.tensor(RGB_TO_XYZ / WHITE_D65[:, None], dtype=linear.dtype).to(linear.device, non_blocking=True)
    x, y, z = torch.chunk(lab_f(F.conv2d(linear, matrix[:, :, None, None])), 3, dim=1)
    return 116 * y - 16, torch.cat([500 * (x - y), 200 * (y - z)], dim=1)


def yuv(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """(N, h, w, 3) uint8 sRGB to Y' (N, 1, h, w) in 0..1 and U, V (N, 2, h, w) in -127.5..127.5."""
    red, green, blue = torch.chunk(rgb.permute(0, 3, 1, 2).float() / 255, 3, dim=1)
    luma = _KR * red + (1 - _KR - _KB) * green + _KB * blue
    u, v = (blue - luma) / (2 * (1 - _KB)), (red - luma) / (2 * (1 - _KR))
    return luma, 255 * torch.cat([u, v], dim=1)


def grey_lightness(luma: Tensor) -> Tensor:
    """L* 0..100 of the grey of this Y' (0..1), any shape."""
    return 116 * lab_f(_decoded(luma)) - 16


def grey_luma(lightness: Tensor) -> Tensor:
    """Y' (0..1) of the grey of this L*, any shape: inverse of `grey_lightness`; L* outside 0..100 is clipped."""
    f = (lightness.clamp(0, 100) + 16) / 116
    linear = torch.where(f > 6 / 29, f**3, (f - _OFFSET) / _SLOPE)
    above = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, above, 12.92 * linear)


def lab_f(t: Tensor) -> Tensor:
    """The cube root of CIE Lab with its linear toe, as in pipeline.color."""
    return torch.where(t > _EPSILON, t.clamp_min(1e-3) ** (1 / 3), _SLOPE * t + _OFFSET)


def _decoded(encoded: Tensor) -> Tensor:
    """SRGB EOTF of 0..1, any shape (IEC 61966-2-1)."""
    above = ((encoded.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(encoded > 0.04045, above, encoded / 12.92)
