"""H.264 with each field coded by itself (PAFF), which x264 does not make; every macroblock is stored raw (I_PCM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from media import picture
from numpy.typing import NDArray

FRAME_NUM_BITS = POC_BITS = 8
I_PCM = 25


@dataclass
class _Bits:
    """A raw byte sequence payload, bit by bit (H.264 §7.2)."""

    bits: list[int] = field(default_factory=list)

    def u(self, count: int, value: int) -> None:
        self.bits += [value >> i & 1 for i in reversed(range(count))]

    def ue(self, value: int) -> None:
        length = (value + 1).bit_length()
        self.u(2 * length - 1, value + 1)

    def align(self) -> None:
        self.bits += [0] * (-len(self.bits) % 8)

    def bytes(self) -> bytes:
        self.align()
        return np.packbits(np.array(self.bits, np.uint8)).tobytes()


def _nal(kind: int, importance: int, payload: bytes) -> bytes:
    """A NAL unit with its start code and without start codes inside (H.264 §7.4.1.1)."""
    escaped, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([importance << 5 | kind]) + bytes(escaped)


def headers(width: int, height: int) -> bytes:
    """Sequence and picture parameter sets; width in 16s, height in 32s."""
    sps = _Bits()
    sps.u(24, 77 << 16 | 30)  # Main profile, level 3
    for value in (0, FRAME_NUM_BITS - 4, 0, POC_BITS - 4, 2):  # id, frame_num, POC by its low bits, 2 reference frames
        sps.ue(value)
    sps.u(1, 0)
    sps.ue(width // 16 - 1)
    sps.ue(height // 32 - 1)
    sps.u(5, 0b00100)  # fields may be coded apart, no MBAFF, direct_8x8_inference, no cropping, no VUI
    sps.u(1, 1)
    pps = _Bits()
    pps.u(2, 0b11)  # ids
    pps.u(2, 0b00)  # CAVLC, no bottom POC
    pps.u(3, 0b111)  # one slice group, one reference in either list
    pps.u(3, 0b000)  # no weights
    pps.u(3, 0b111)  # quantiser offsets
    pps.u(3, 0b100)  # deblocking_filter_control
    pps.u(1, 1)
    return _nal(7, 3, sps.bytes()) + _nal(8, 3, pps.bytes())


def coded_field(luma: NDArray[Any], bottom: bool, frame_num: int, poc: int, idr: bool) -> bytes:
    """One field, (h, w) of 8 bits, neutral in colour."""
    slice_ = _Bits()
    for value in (0, 7, 0):  # first macroblock, I, parameter set
        slice_.ue(value)
    slice_.u(FRAME_NUM_BITS, frame_num)
    slice_.u(2, 0b10 | bottom)
    if idr:
        slice_.ue(0)
    slice_.u(POC_BITS, poc)
    slice_.u(2 if idr else 1, 0)  # reference marking
    slice_.ue(0)
    slice_.ue(1)  # no deblocking
    data = _Bits()
    out = bytearray()
    data.bits = slice_.bits
    for row in range(0, luma.shape[0], 16):
        for column in range(0, luma.shape[1], 16):
            data.ue(I_PCM)
            out += data.bytes()
            out += luma[row : row + 16, column : column + 16].astype(np.uint8).tobytes() + bytes([128]) * 128
            data = _Bits()
    return _nal(5 if idr else 1, 3, bytes(out) + b"\x80")


def coded_frames(
    frames: int, side: int = 64, gop: int = 12, order: Sequence[int] = (0,)
) -> Iterator[tuple[int, bytes, bytes]]:
    """(ordinal, top field, bottom field) in coding order, which after a key picture takes groups in this `order`."""
    for key in range(0, frames, gop):
        behind = [first + n for first in range(1, gop, len(order)) for n in order]
        ordinals = [n for n in (0, *behind) if n < gop and key + n < frames]
        for count, n in enumerate(ordinals):
            luma = picture(key + n, side, side)
            top = coded_field(luma[::2], False, count, 2 * n, idr=n == 0)
            bottom = coded_field(luma[1::2], True, count, 2 * n + 1, idr=False)
            yield key + n, (headers(side, side) if n == 0 else b"") + top, bottom


def write_fields(path: Path, frames: int = 60, order: Sequence[int] = (0,), timed: str = "both") -> Path:
    """A film at 25 frames a second with each field in a packet of its own; `timed`: "both" of them, or the "first"."""
    unit = Fraction(1, 90000)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_mux_stream("h264", rate=25)
        stream.time_base = unit
        for place, (n, *fields) in enumerate(coded_frames(frames, order=order)):
            for second, data in enumerate(fields):
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, unit, data.startswith(b"\0\0\0\1\x67")
                if timed == "both" or not second:
                    packet.pts = 90000 + 3600 * (n + len(order) - 1) + 1800 * second
                    packet.dts = 90000 + 3600 * place + 1800 * second
                out.mux_one(packet)
    return path
