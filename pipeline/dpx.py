"""DPX (SMPTE ST 268-1): read through FFmpeg, written with the source's own header so that its fields stay."""

from __future__ import annotations

import struct

import av
import numpy as np
from av.error import FFmpegError

from pipeline.errors import InputError
from pipeline.frames import Plane
from pipeline.pictures import Picture
from pipeline.rasters import split_alpha, with_alpha

_ORDER = {b"SDPX": ">", b"XPDS": "<"}
_GENERIC_HEADER = 1664  # bytes of the file, image and orientation headers; film and television headers may follow
_RGB, _RGBA = 50, 51
_FILLED_A = 1  # words of 32 (or 16) bits with the unused bits lowest
# Header field "image orientation" → EXIF orientation.
_ORIENTATIONS = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 6, 6: 8, 7: 7}


class DpxFile:
    """An opened DPX with one image element."""

    def __init__(self, data: bytes) -> None:
        if len(data) <= _GENERIC_HEADER:
            raise InputError("is truncated")
        self._data, self._order = data, _ORDER[data[:4]]
        orientation, elements, self._width, self._height = self._fields("HHII", 768)
        self._orientation = _ORIENTATIONS.get(orientation, 1)
        self._depth = data[803]
        self._out = b""
        if elements != 1:
            raise InputError(f"has {elements} image elements; files with one are supported")
        if self._depth not in (8, 10, 12, 16):
            raise InputError(f"has {self._depth} bits a sample; 8, 10, 12 and 16 are supported")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height)."""
        return [(self._width, self._height)]

    def read(self, page: int) -> Picture:  # noqa: ARG002
        """Decode the picture; code values are read as sRGB-encoded, whatever the header's transfer characteristic."""
        context = av.CodecContext.create("dpx", "r")
        try:
            frames = [*context.decode(av.Packet(self._data)), *context.decode(None)]
        except FFmpegError as e:
            raise InputError("is damaged, or packs its samples in a way that FFmpeg does not read") from e
        if len(frames) != 1 or (frames[0].width, frames[0].height) != (self._width, self._height):
            raise InputError("could not be decoded by FFmpeg; the file is damaged or of a rare kind")
        frame = frames[0]
        name = frame.format.name
        if name.startswith("gray"):
            wanted = "gray" if self._depth == 8 else f"gray{self._depth}le"
        elif self._depth == 8:
            wanted = "rgba" if "a" in name else "rgb24"
        elif self._depth == 16:
            wanted = "rgba64le" if "a" in name else "rgb48le"
        else:
            wanted = f"{'gbrap' if 'a' in name else 'gbrp'}{self._depth}le"
        pixels, alpha = split_alpha(np.ascontiguousarray(frame.reformat(format=wanted).to_ndarray()))
        return Picture(pixels, self._depth, alpha, self._orientation)

    def write(self, page: int, picture: Picture, rgb: Plane) -> None:  # noqa: ARG002
        """Pack as one RGB or RGBA element at the source's depth and byte order."""
        samples = with_alpha(rgb, picture.alpha)
        packed = _pack(samples, self._depth, self._order)
        offset = self._fields("I", 4)[0]
        header = bytearray(self._data[: offset if _GENERIC_HEADER <= offset < len(self._data) else _GENERIC_HEADER])
        fields = (
            (4, "I", len(header)),
            (16, "I", len(header) + len(packed)),
            (800, "B", _RGB if samples.shape[2] == 3 else _RGBA),
            (804, "H", _FILLED_A if self._depth in (10, 12) else 0),
            (806, "H", 0),  # not run-length encoded
            (808, "I", len(header)),
            (812, "I", 0),  # padding of lines and of the image
            (816, "I", 0),
        )
        for at, kind, value in fields:
            struct.pack_into(self._order + kind, header, at, value)
        self._out = bytes(header) + packed

    def finish(self) -> bytes:
        """The whole file."""
        return self._out

    def _fields(self, kinds: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + kinds, self._data, at)


def _pack(samples: Plane, depth: int, order: str) -> bytes:
    """Samples (H, W, C) as DPX lays them out; lines begin on 32-bit boundaries."""
    height = samples.shape[0]
    if depth == 10:  # three to a word, across pixels where there are four samples in one
        lines = samples.reshape(height, -1).astype(np.uint32)
        words = np.pad(lines, ((0, 0), (0, -lines.shape[1] % 3))).reshape(height, -1, 3)
        return (words[..., 0] << 22 | words[..., 1] << 12 | words[..., 2] << 2).astype(f"{order}u4").tobytes()
    lines = (samples << 4 if depth == 12 else samples).astype("u1" if depth == 8 else f"{order}u2").reshape(height, -1)
    raw = np.ascontiguousarray(lines).view(np.uint8).reshape(height, -1)
    return np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4))).tobytes()
