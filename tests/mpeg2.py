"""MPEG-2 (ISO 13818-2) with each field coded by itself, which FFmpeg does not make; every picture is one flat grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

SIDE = 64
FRAME, TOP, BOTTOM = 3, 1, 2  # picture_structure
_DC_LUMA = {0: "100", 1: "00", 2: "01", 3: "101", 4: "110", 5: "1110", 6: "11110", 7: "111110"}  # table B.12
_DC_CHROMA, _END_OF_BLOCK = "00", "10"  # of size 0 (table B.13); table B.14

Kind = Literal["frame", "tff", "bff"]


def _bits(*fields: tuple[int, int]) -> str:
    """(count, value) of each field."""
    return "".join(format(value, f"0{count}b") for count, value in fields)


def _unit(code: int, bits: str) -> bytes:
    """What follows a start code."""
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\1" + bytes([code]) + int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def _sequence() -> bytes:
    """Interlaced, 4:2:0, 25 frames a second (6.2.2.1, 6.2.2.3), and a closed group of pictures (6.2.2.6)."""
    size = _bits((12, SIDE), (12, SIDE), (4, 1), (4, 3), (18, 0x3FFFF), (1, 1), (10, 100), (3, 0))
    extension = _bits((4, 1), (8, 0x48), (1, 0), (2, 1), (16, 0), (1, 1), (8, 0), (8, 0))
    group = _bits((12, 0), (1, 1), (12, 0), (1, 1), (1, 0))
    return _unit(0xB3, size) + _unit(0xB5, extension) + _unit(0xB8, group)


def _picture(number: int, structure: int, level: int) -> bytes:
    """An intra picture (6.2.3, 6.2.3.1); a frame is a progressive one."""
    frame = int(structure == FRAME)
    header = _bits((10, number), (3, 1), (16, 0xFFFF), (1, 0))
    coding = _bits((4, 8), (16, 0xFFFF), (2, 0), (2, structure), (1, frame), (1, frame), (6, 0), (2, 3 * frame), (1, 0))
    change = level - 128
    size = abs(change).bit_length()
    first = _DC_LUMA[size] + _bits((size, change if change > 0 else change + (1 << size) - 1)) + _END_OF_BLOCK
    same, chroma = _DC_LUMA[0] + _END_OF_BLOCK, _DC_CHROMA + _END_OF_BLOCK
    blocks = [first + 3 * same + 2 * chroma, *[4 * same + 2 * chroma] * (SIDE // 16 - 1)]
    row = _bits((5, 1), (1, 0)) + "".join("11" + block for block in blocks)
    rows = SIDE // 16 if frame else SIDE // 32
    return _unit(0, header) + _unit(0xB5, coding) + b"".join(_unit(n + 1, row) for n in range(rows))


def write_fields(path: Path, kinds: Sequence[Kind]) -> Path:
    """Picture n is of grey 40 + n, or, as two fields, of 40 + n in the first and 140 + n in the second."""
    data = b""
    for n, kind in enumerate(kinds):
        data += _sequence() if n % 10 == 0 else b""
        if kind == "frame":
            data += _picture(n % 10, FRAME, 40 + n)
        else:
            order = (TOP, BOTTOM) if kind == "tff" else (BOTTOM, TOP)
            data += b"".join(_picture(n % 10, field, 40 + n + 100 * i) for i, field in enumerate(order))
    path.write_bytes(data + b"\0\0\1\xb7")
    return path
