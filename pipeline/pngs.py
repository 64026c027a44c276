"""PNG's chunks (ISO 15948): what the pixels need, what is passed on, and a bound on what may expand."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import imagecodecs

from pipeline.frames import Plane

_LEVEL = 4  # of zlib; level 6 takes 2.4 times as long for 3 % fewer bytes
_PROFILE_BYTES = 64 << 20  # expanded; larger ones are no profiles
# Chunks that describe samples in a way that RGB changes, and those that PNG's encoder makes anew.
_DROPPED = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"hIST", b"sBIT")


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, payload) of every chunk, in order; the last may be cut short."""
    for kind, start, end in _places(data):
        yield kind, data[start + 8 : end - 4]


def pixels_alone(data: bytes) -> bytes:
    """The file without what its pixels do not need: text of any size, bombs and damage in it cannot hold them up."""
    kept = (data[start:end] for kind, start, end in _places(data) if not kind[0] & 0x20 or kind == b"tRNS")
    return data[:8] + b"".join(kept)


def frame_count(data: bytes) -> int:
    """How many frames an animation says it has, 1 for a still."""
    payload = next((payload for kind, payload in chunks(data) if kind == b"acTL"), b"")
    return int(struct.unpack_from(">I", payload)[0]) if len(payload) >= 4 else 1


def profile(data: bytes) -> bytes | None:
    """The ICC profile; None where there is none, or it is damaged or larger than any profile."""
    payload = next((payload for kind, payload in chunks(data) if kind == b"iCCP"), None)
    if payload is None:
        return None
    inflate = zlib.decompressobj()
    try:
        icc = inflate.decompress(payload[payload.index(b"\0") + 2 :], _PROFILE_BYTES)
    except (ValueError, zlib.error):
        return None
    return icc if inflate.eof else None


def exif(data: bytes) -> bytes:
    """The EXIF structure, empty where there is none."""
    return next((payload for kind, payload in chunks(data) if kind == b"eXIf"), b"")


def encode(source: bytes, pixels: Plane, drop_profile: bool) -> bytes:
    """A PNG of `pixels` with the source's ancillary chunks; sRGB takes the place of a grey profile."""
    encoded = bytes(imagecodecs.png_encode(pixels, level=_LEVEL))
    dropped = (*_DROPPED, b"iCCP", b"gAMA", b"cHRM", b"sRGB") if drop_profile else _DROPPED
    kept = b"".join(_chunk(kind, payload) for kind, payload in chunks(source) if kind not in dropped)
    if drop_profile:
        kept = _chunk(b"sRGB", b"\0") + kept
    head = 8 + 25  # signature and IHDR
    return encoded[:head] + kept + encoded[head:]


def _places(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of every chunk up to IEND: what follows that is not the picture's."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, at + 12 + length
        if kind == b"IEND":
            return
        at += 12 + length


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
