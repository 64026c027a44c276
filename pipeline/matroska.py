"""Setting a Matroska track's display size in a finished file (RFC 8794, RFC 9559).

FFmpeg's muxer takes it from a field that PyAV cannot set, so the track is first given a name longer than needed, whose
bytes then make room: no other element moves, and the Tracks element keeps its size and a correct CRC-32.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.errors import VerificationError

ROOM = "\N{MIDDLE DOT}" * 32  # what the name is longer by: 64 bytes in UTF-8

_SEGMENT, _TRACKS, _TRACK_ENTRY = 0x18538067, 0x1654AE6B, 0xAE
_NAME, _VIDEO, _CRC32, _VOID = 0x536E, 0xE0, 0xBF, 0xEC
_DISPLAY = (0x54B0, 0x54BA, 0x54B2)  # DisplayWidth, DisplayHeight, DisplayUnit
_HEADER = 12  # bytes of the longest ID and size
_ASPECT_RATIO = 3  # of DisplayUnit; 0 is pixels


class Element(NamedTuple):
    """An element's ID, the offset of that, and of its content's beginning and end."""

    kind: int
    at: int
    start: int
    end: int


def display_size(width: int, height: int, sar: Fraction) -> tuple[int, int, int]:
    """(DisplayWidth, DisplayHeight, DisplayUnit) of a picture: in pixels where these are whole, else as a ratio."""
    wide = width * sar
    if wide.denominator == 1:
        return wide.numerator, height, 0
    aspect = wide / height
    return aspect.numerator, aspect.denominator, _ASPECT_RATIO


def set_display_size(path: Path, track: int, size: tuple[int, int, int], name: str) -> None:
    """Give the `track`-th track, from 0, a display size, and `name` in place of the one that has ROOM at its end."""
    with path.open("r+b") as f:
        at, length = _find_tracks(f.read(1 << 16))
        f.seek(at)
        tracks = bytearray(f.read(length))
        entry = [e for e in elements(tracks) if e.kind == _TRACK_ENTRY][track]
        tracks[entry.start : entry.end] = _with_display_size(bytes(tracks[entry.start : entry.end]), size, name)
        if len(tracks) != length:
            raise VerificationError(f"{path}: its track header has no room for the display size")
        for crc in (e for e in elements(tracks) if e.kind == _CRC32):
            tracks[crc.start : crc.end] = zlib.crc32(tracks[crc.end :]).to_bytes(4, "little")
        f.seek(at)
        f.write(tracks)


def _find_tracks(data: bytes) -> tuple[int, int]:
    """(offset, length) of the content of the Tracks element, from the beginning of a file."""
    at = 0
    while at < len(data):
        element = element_at(data, at)
        if element.kind == _TRACKS:
            return element.start, element.end - element.start
        at = element.start if element.kind == _SEGMENT else element.end
    raise VerificationError("the Matroska file has no track header where one was written; run the same command again")


def _with_display_size(entry: bytes, size: tuple[int, int, int], name: str) -> bytes:
    """A TrackEntry's content with another display size and name, as long as before if the name has left room."""
    display = (_encode(kind, _number(value)) for kind, value in zip(_DISPLAY, size, strict=True))
    content = b""
    for e in elements(entry):
        if e.kind == _VIDEO:
            body = entry[e.start : e.end]
            kept = b"".join(body[c.at : c.end] for c in elements(body) if c.kind not in _DISPLAY)
            content += _encode(_VIDEO, kept + b"".join(display))
        elif e.kind != _NAME:
            content += entry[e.at : e.end]
    if name:
        content += _encode(_NAME, name.encode())
    spare = len(entry) - len(content) - 9  # less a Void element's ID and 8 bytes of size
    return content + bytes([_VOID]) + (1 << 56 | max(0, spare)).to_bytes(8, "big") + bytes(max(0, spare))


def elements(data: bytes | bytearray) -> Iterator[Element]:
    """The elements that follow each other; raises IndexError where they are cut off in a header."""
    at = 0
    while at < len(data):
        element = element_at(data, at)
        yield element
        at = element.end


def element_at(data: bytes | bytearray, at: int) -> Element:
    """The element whose ID stands at `at`."""
    id_bytes = 9 - data[at].bit_length()
    size_at = at + id_bytes
    size_bytes = 9 - data[size_at].bit_length()
    start = size_at + size_bytes
    length = int.from_bytes(data[size_at:start], "big") & (1 << 7 * size_bytes) - 1
    return Element(int.from_bytes(data[at:size_at], "big"), at, start, start + length)


def element_in(f: IO[bytes], at: int) -> Element | None:
    """The element that begins there in a file; None at its end, and where none begins."""
    if at >= f.seek(0, io.SEEK_END):  # no disk takes a seek as far as damaged sizes go
        return None
    f.seek(at)
    header = f.read(_HEADER)
    if len(header) < _HEADER or not header[0]:
        return None
    found = element_at(header, 0)
    return Element(found.kind, at, at + found.start, at + found.end)


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def _encode(kind: int, body: bytes) -> bytes:
    """An element with the shortest size that its length fits."""
    count = next(n for n in range(1, 9) if len(body) < (1 << 7 * n) - 1)
    return _number(kind) + (1 << 7 * count | len(body)).to_bytes(count, "big") + body
