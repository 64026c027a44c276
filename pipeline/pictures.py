"""What the image formats have in common: one decoded picture, and the protocol of a file that holds one or more."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Plane

ImageFormat = Literal["jpeg", "png", "tiff", "webp", "bmp", "dpx"]
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Picture:
    """One picture as stored, before any rotation.

    pixels: (H, W) grey or (H, W, 3) RGB code values, black 0, white 2**bit_depth - 1, uint8 up to 8 bits, uint16 above.
    alpha: (H, W), same type and depth. orientation: EXIF 1..8. icc: the profile of `pixels`; None reads as sRGB.
    notes: what decoding had to change.
    """

    pixels: Plane
    bit_depth: int
    alpha: Plane | None = None
    orientation: int = 1
    icc: bytes | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype not in (np.uint8, np.uint16) or self.pixels.shape[2:] not in ((), (3,)):
            raise ValueError(f"expected (H, W) or (H, W, 3) uint8 or uint16, got {self.pixels.shape = }")
        if not self.pixels.flags.c_contiguous:
            raise ValueError(f"expected pixels row after row, got {self.pixels.strides = }")
        if self.alpha is not None and self.alpha.shape != self.pixels.shape[:2]:
            raise ValueError(f"expected alpha of {self.pixels.shape[:2]}, got {self.alpha.shape = }")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def is_rgb(self) -> bool:
        """Whether the pixels are RGB triples."""
        return self.pixels.ndim == 3


class ImageFile(Protocol):
    """An opened image file: headers are read, pixels are not."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of every page."""
        ...

    def read(self, page: int) -> Picture:
        """Decode one page."""
        ...

    def write(self, page: int, picture: Picture, rgb: NDArray[Any]) -> None:
        """Encode a page's colours (H, W, 3), of the type, depth and profile of `output_profile`; pages in order."""
        ...

    def finish(self) -> bytes:
        """The whole file, in the same format with the same metadata."""
        ...


def sniff(head: bytes) -> ImageFormat | None:
    """The format of a file by its first 32 bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(_TIFF_MAGIC):
        return "tiff"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if (
        head[:2] == b"BM"
        and len(head) >= 18
        and struct.unpack_from("<I", head, 14)[0] in (12, 16, 40, 52, 56, 64, 108, 124)
    ):
        return "bmp"
    return "dpx" if head[:4] in (b"SDPX", b"XPDS") else None
