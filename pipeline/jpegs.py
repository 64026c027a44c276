"""JPEG's segments (ITU-T T.81, annex B): what is passed on, how a file was written, what would take hours to read."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice

from pipeline import jpeg_luma
from pipeline.errors import InputError
from pipeline.frames import Plane
from pipeline.jpeg_scan import marker_segment

_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # ITU-T T.81 table B.1
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_JPEG_LS = 0xF7
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)  # that neither stands alone nor is data
_MOST_SCANS = 64  # each of which is decoded over the whole picture; progressive files have 6 to 20
_MOST_SEGMENTS = 1024  # before the first scan: a profile has 255 at most; Pillow puts each to the ones before anew
_MOST_FILL = 1 << 16  # bytes of filling, which Pillow reads one by one
_BLOCK = 64  # pixels, for which a Huffman code takes a bit or more


def check(data: bytes) -> None:
    """InputError for what would keep decoders busy with far more than there is: very many segments or scans."""
    if next(islice(segments(data), _MOST_SEGMENTS, None), None) is not None:
        raise InputError(f"is a JPEG of more than {_MOST_SEGMENTS} segments, which looks like a bomb")
    check_scans(data)


def check_length(data: bytes) -> None:
    """InputError where so few bytes cannot hold all pixels: decoders would make them up without a word."""
    for marker, payload in segments(data):
        if marker in _HUFFMAN and len(payload) >= 5:
            height, width = struct.unpack_from(">HH", payload, 1)
            if width * height > 8 * _BLOCK * len(data):
                raise InputError(f"is truncated: {len(data)} bytes are too few for {width}×{height} pixels")


def check_scans(jpeg: bytes) -> None:
    """InputError for a JPEG of so many scans that decoding it would take hours (ITU-T T.81, B.1.1.2)."""
    at = scans = met = 0
    while (found := _MARKER.search(jpeg, at)) and found[1] != b"\xd9" and found.end() + 2 <= len(jpeg):
        at, met = found.end(), met + 1
        if found[1] != b"\xd8":
            at += struct.unpack_from(">H", jpeg, at)[0]
        scans += found[1] == b"\xda"
        if scans > _MOST_SCANS:
            raise InputError(f"is a JPEG of more than {_MOST_SCANS} scans, which looks like a bomb")
        if met > 2 * _MOST_SEGMENTS:
            raise InputError(f"is a JPEG of more than {2 * _MOST_SEGMENTS} segments, which looks like a bomb")


def unreadable(data: bytes) -> str:
    """What keeps Pillow from reading this."""
    for marker, payload in segments(data):
        if marker == _JPEG_LS:
            return "is a JPEG-LS; convert it to PNG or TIFF"
        if marker in _START_OF_FRAME and payload and payload[0] != 8:
            return f"is a JPEG of {payload[0]} bits a sample; convert it to a 16-bit PNG or TIFF"
    return "is damaged, or a JPEG of a rare kind"


def encode(source: bytes, rgb: Plane, lightness: Plane, profile: bytes | None, drop_profile: bool) -> bytes:
    """A JPEG of RGB (H, W, 3) at the lightness of sRGB codes (H, W) or (H, W, 3), with the source's other segments."""
    return _spliced(jpeg_luma.encode(rgb, lightness), source, profile, drop_profile)


def _spliced(encoded: bytes, source: bytes, profile: bytes | None, drop_profile: bool) -> bytes:
    """The encoded file with the source's application and comment segments: EXIF, XMP, IPTC, profile, density."""
    kept = density = b""
    for marker, payload in segments(source):
        is_profile = marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0")
        is_index = marker == 0xE2 and payload.startswith(b"MPF\0")  # offsets of further pictures, which are not kept
        if marker == 0xE0 and payload.startswith(b"JFIF\0") and len(payload) >= 12:
            density = payload[:12] + b"\0\0"
        elif (0xE1 <= marker <= 0xEF and marker != 0xEE and not is_index and not (is_profile and drop_profile)) or (
            marker == 0xFE
        ):
            kept += marker_segment(marker, payload)
    if profile:
        kept += marker_segment(0xE2, b"ICC_PROFILE\0\1\1" + profile)
    head = 4 + struct.unpack_from(">H", encoded, 4)[0]  # SOI and the encoder's own APP0
    first = marker_segment(0xE0, density) if density else encoded[2:head]
    return encoded[:2] + first + kept + encoded[head:]


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, payload) up to the first scan (ITU-T T.81 B.1.1); InputError where nearly all of that is fill bytes."""
    at, fill = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at, fill = at + 1, fill + 1
            if fill > _MOST_FILL:
                raise InputError("is a JPEG of very many fill bytes, which looks like a bomb")
            continue
        if marker == 0xDA:
            return
        length = struct.unpack_from(">H", data, at + 2)[0]
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """(width, height) that the headers of a JPEG say."""
    for marker, payload in segments(data):
        if marker in _START_OF_FRAME and len(payload) >= 5:
            height, width = struct.unpack_from(">HH", payload, 1)
            yield width, height
