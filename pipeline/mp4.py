"""The boxes of an MP4 or MOV, and what they ask of players that is not followed.

Sources: ISO 14496-12, sections 4.2 (boxes) and 12.1 (of pictures); QuickTime File Format, "clean aperture".
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import IO, NamedTuple

_HEADER = 8  # bytes of size and type before a box's content; 16 where the size is a long one
_TO_DESCRIPTIONS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_DESCRIPTIONS_AT, _ENTRY, _SIZE_AT = 8, 78, 24  # of stsd's first; bytes of a visual sample entry, of them before width
_MOST = 4096  # boxes beside each other that are looked at


class Box(NamedTuple):
    """A box's type, and the offsets of its content's beginning and end."""

    kind: bytes
    start: int
    end: int


def boxes(f: IO[bytes], start: int, end: int) -> Iterator[Box]:
    """The boxes that lie between two offsets of a file; damage ends them."""
    at = start
    while at + _HEADER <= end:
        f.seek(at)
        header = f.read(2 * _HEADER)
        length, begin = int.from_bytes(header[:4], "big"), _HEADER
        if length == 1:
            length, begin = int.from_bytes(header[8:16], "big"), 2 * _HEADER
        stop = end if length == 0 else min(end, at + length)
        if stop < at + begin:
            return
        yield Box(header[4:8], at + begin, stop)
        at = stop


def crops(f: IO[bytes]) -> bool:
    """Whether it asks players to show less of a picture than there is (`clap`)."""
    return any(_is_cropped(f, entry) for entry in _descriptions(f, 0, f.seek(0, io.SEEK_END), _TO_DESCRIPTIONS))


def _descriptions(f: IO[bytes], start: int, end: int, path: tuple[bytes, ...]) -> Iterator[Box]:
    """The entries that describe samples of pictures."""
    for box in islice(boxes(f, start, end), _MOST):
        if not path:
            yield box
        elif box.kind == path[0]:
            inside = box.start + (_DESCRIPTIONS_AT if box.kind == _TO_DESCRIPTIONS[-1] else 0)
            visual = box.kind != b"minf" or any(b.kind == b"vmhd" for b in islice(boxes(f, inside, box.end), _MOST))
            yield from _descriptions(f, inside, box.end, path[1:]) if visual else ()


def _is_cropped(f: IO[bytes], entry: Box) -> bool:
    f.seek(entry.start + _SIZE_AT)
    whole = [int.from_bytes(f.read(2), "big") for _ in range(2)]
    for box in islice(boxes(f, entry.start + _ENTRY, entry.end), _MOST):
        if box.kind == b"clap":
            f.seek(box.start)
            width, height, across, down = (_ratio(f.read(8)) for _ in range(4))
            return [width, height] != whole or bool(across or down)
    return False


def _ratio(data: bytes) -> Fraction:
    numerator, denominator = int.from_bytes(data[:4], "big", signed=True), int.from_bytes(data[4:], "big")
    return Fraction(numerator, denominator or 1)
