"""Which pictures of FFV1 are damaged, by the CRC of their slices: FFmpeg's decoder patches them without a word.

Clauses are of RFC 9043. FFV1 has such CRCs from version 3 on, if its configuration record says so.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_VERSION = 3  # the first with slices that tell of themselves
_FOOTER = 8  # bytes after a slice: its size u(24), error_status u(8), slice_crc_parity u(32) (4.9)
_BEYOND = 2  # bytes that a range decoder is ahead of what it has given (3.8.1)
_PARITY = 4  # bytes of the CRC that ends the configuration record (4.3.2)
_CUSTOM_TABLE = 2  # coder_type: range coder, with state transitions of its own
_FIELDS = "ur ur br ur ur br ur ur"  # numbers and bits from colorspace_type to num_v_slices (4.2)
_MOST_SETS, _TABLES, _CODED = 8, 5, 128  # quantization table sets; tables of a set; entries of a table that are coded
_MOST_CONTEXTS = 1 << 14  # of all sets; FFmpeg's encoder makes 8229
_STATES = 32  # of one context (4.2.15)
_MOST_EXPONENT = 31
# What follows a state of the range coder, 8 to 248, after a one (3.8.1.5); after a zero it is the mirror image.
_AFTER_ONE = bytes(8) + bytes.fromhex(
    "1415161718191a1b1c1d1e1f20212223242525262728292a2b2c2d2e2f30313233343536373838393a3b3c3d3e3f404142434445"
    "464748494a4b4b4c4d4e4f505152535455565758595a5b5c5d5e5e5f606162636465666768696a6b6c6d6e6f7071727273747576"
    "7778797a7b7c7d7e7f80818283848585868788898a8b8c8d8e8f90919293949596979898999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8"
    "a9aaababacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebebfc0c2c2c3c4c5c6c7c8c9cacacccdcecfd0d1d1d2d3d4d5d7d7d8d9"
    "dadbdcdcdedfe0e1e2e3e3e5e5e6e7e8eaeaebecedeeeff0f1f2f3f4f5f6f7f8f8"
)
# zlib's CRC-32 is of the same polynomial, but takes a byte's lowest bit first and keeps its register inverted.
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_REFERENCES = {1: 0xFFFFFFFF, 2: 0xA1CEFD61}  # for ec 1 and 2, that is registers of 0 and 0x79408C7A


def damage_finder(context: VideoCodecContext) -> Callable[[av.Packet[VideoStream]], bool]:
    """What tells of a packet whether its picture is damaged, as far as its CRCs do; nothing but FFV1 has any."""
    is_ffv1 = context.codec.canonical_name == "ffv1"
    reference = crc_reference(context.extradata or b"") if is_ffv1 else None
    return lambda packet: reference is not None and is_damaged(bytes(packet), reference)


@lru_cache(maxsize=4)
def crc_reference(record: bytes) -> int | None:
    """What the CRC of every slice begins and ends with, as zlib.crc32 has it; None where slices have no CRC.

    record: the configuration record, which containers hold as extradata; None, too, where it cannot be read.
    """
    try:
        return _REFERENCES.get(min(2, _error_correction(record)))
    except (IndexError, ValueError):
        return None


def is_damaged(packet: bytes, reference: int) -> bool:
    """Whether any slice of a packet has a wrong CRC, or the sizes in their footers do not add up to the packet.

    A slice of no bytes is none: eight zeros would have the CRC of one.
    """
    mirrored, end = memoryview(packet.translate(_MIRRORED)), len(packet)
    while end:
        size = int.from_bytes(packet[end - _FOOTER : end - _FOOTER + 3])
        begin = end - _FOOTER - size
        if begin < 0 or not size or zlib.crc32(mirrored[begin:end], reference) != reference:
            return True
        end = begin
    return False


def _error_correction(record: bytes) -> int:
    """`ec` of a configuration record (4.2, 4.3). Raises IndexError or ValueError where it cannot be read."""
    coded, state = _RangeCoded(record[:-_PARITY] + bytes(_BEYOND)), _fresh()
    if coded.number(state) < _VERSION:
        return 0
    coded.number(state)  # micro_version
    if coded.number(state) == _CUSTOM_TABLE:
        for _ in range(1, 256):
            coded.number(state, signed=True)
    for kind in _FIELDS.split():
        coded.bit(state) if kind == "br" else coded.number(state)
    contexts = [_contexts(coded) for _ in range(_at_most(_MOST_SETS, coded.number(state)))]
    _at_most(_MOST_CONTEXTS, sum(contexts))
    deltas = [_fresh() for _ in range(_STATES)]
    for count in contexts:
        for _ in range(count if coded.bit(state) else 0):  # states_coded
            for delta in deltas:
                coded.number(delta, signed=True)
    return coded.number(state)


def _contexts(coded: _RangeCoded) -> int:
    """How many contexts a quantization table set makes, those that differ in sign alone being one (4.1)."""
    count = 1
    for _ in range(_TABLES):
        state, covered, values = _fresh(), 0, 0
        while covered < _CODED:
            covered += coded.number(state) + 1
            values += 1
        count *= 2 * values - 1
    return (count + 1) // 2


def _at_most(limit: int, value: int) -> int:
    if value > limit:
        raise ValueError(f"{value}, expected at most {limit}")
    return value


def _fresh() -> bytearray:
    return bytearray([128]) * _STATES


class _RangeCoded:
    """Reads range-coded bits and numbers (3.8.1); raises IndexError where the data end early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 2
        self._low, self._range = data[0] << 8 | data[1], 0xFF00

    def bit(self, state: bytearray, at: int = 0) -> bool:
        """A bit whose likelihood is the state at `at`, which it changes."""
        likely = state[at]
        ones = self._range * likely >> 8
        self._range -= ones
        bit = self._low >= self._range
        if bit:
            self._low, self._range = self._low - self._range, ones
            state[at] = _AFTER_ONE[likely]
        else:
            state[at] = 256 - _AFTER_ONE[256 - likely]
        if self._range < 0x100:
            self._low, self._range = self._low << 8 | self._data[self._at], self._range << 8
            self._at += 1
        return bit

    def number(self, state: bytearray, signed: bool = False) -> int:
        """A number, without its sign (3.8.1.2)."""
        if self.bit(state):
            return 0
        exponent = 0
        while self.bit(state, 1 + min(exponent, 9)):
            exponent = _at_most(_MOST_EXPONENT, exponent + 1)
        value = 1
        for power in reversed(range(exponent)):
            value = value << 1 | self.bit(state, 22 + min(power, 9))
        if signed:
            self.bit(state, 11 + min(exponent, 10))
        return value
