"""Baseline JPEG from coefficients (ITU-T T.81): libraries round pixels before they transform them, this rounds once.

Chroma at full size; a picture is coded band by band, each of which is a restart interval.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.int16]  # (..., 64) quantised coefficients in zigzag order

_DIAGONALS = sorted(
    ((row, column) for row in range(8) for column in range(8)),
    key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]),
)
ZIGZAG = np.array([8 * row + column for row, column in _DIAGONALS])  # T.81 figure A.6: where the k-th is in a block
_EOB, _ZRL = 0x00, 0xF0  # end of block, and a run of 16 zeros
_LONGEST = 16  # bits of a code
_SIZE = np.array([abs(v).bit_length() for v in range(-2048, 2048)], np.uint8)  # T.81 tables F.1 and F.2
_OFFSET = 2048
_ONES = ((1 << np.arange(16)) - 1).astype(np.uint16)  # by how many
# Symbols are numbered through all tables: DC and AC of luma, DC and AC of chroma.
_TABLE = 256
_AC_TABLES = np.array([_TABLE, 3 * _TABLE, 3 * _TABLE], np.int32)  # of luma, Cb and Cr


@dataclass(frozen=True)
class Huffman:
    """An optimal code of the symbols counted, none longer than 16 bits and none all ones (T.81, annexes C and K.2)."""

    counts: tuple[int, ...]

    @cached_property
    def symbols(self) -> tuple[tuple[int, ...], list[int]]:
        """How many codes there are of each length 1 to 16, and the symbols by length of code."""
        lengths = _lengths({symbol: count for symbol, count in enumerate(self.counts) if count})
        of_length = [0] * (_LONGEST + 1)
        for length in lengths.values():
            of_length[length] += 1
        return tuple(of_length[1:]), sorted(lengths, key=lambda symbol: (lengths[symbol], symbol))

    @cached_property
    def codes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """(codes, lengths in bits), by symbol."""
        codes, lengths = np.zeros(256, np.uint64), np.zeros(256, np.int64)
        of_length, symbols = self.symbols
        code, left = 0, iter(symbols)
        for length, count in enumerate(of_length, 1):
            for _ in range(count):
                symbol = next(left)
                codes[symbol], lengths[symbol] = code, length
                code += 1
            code <<= 1
        return codes, lengths

    def segment(self, kind: int, number: int) -> bytes:
        """The table as a file holds it (B.2.4.2). kind: 0 for DC, 1 for AC."""
        of_length, symbols = self.symbols
        return bytes([kind << 4 | number, *of_length, *symbols])


Tables = tuple[Huffman, Huffman, Huffman, Huffman]  # DC and AC of luma, DC and AC of chroma


@dataclass(frozen=True)
class Symbols:
    """What a restart interval is coded as, in order, the components' blocks in turns.

    symbols: (T,) run and size, or of a difference of DC size alone, 256 times the number of their table added.
    bits: (T,) what follows the code of each, in as many bits as the size is (F.1.2).
    """

    symbols: NDArray[np.uint16]
    bits: NDArray[np.uint16]

    @classmethod
    def of(cls, blocks: Blocks) -> Symbols:
        """The symbols of the blocks (N, 3, 64) of luma, Cb and Cr."""
        differences = blocks.copy()
        differences[1:, :, 0] -= blocks[:-1, :, 0]
        coded = differences != 0
        coded[..., 0] = True
        found = np.flatnonzero(coded)
        values = differences.reshape(-1).take(found)
        at = found.astype(np.int32)
        place = at & 63
        is_dc = place == 0
        zeros = np.zeros_like(at)  # passed over since the one before
        np.subtract(at[1:], at[:-1], out=zeros[1:])
        zeros[is_dc] = 1
        zeros -= 1
        is_last = place < 63
        is_last[:-1] &= is_dc[1:]
        sizes = _SIZE.take(values + np.int16(_OFFSET))
        table = np.broadcast_to(_AC_TABLES, (len(blocks), 3)).ravel().take(at >> 6)
        symbols = (zeros & 15) << 4
        symbols += table
        symbols += sizes
        symbols[is_dc] -= _TABLE
        bits = (values + (values >> 15)).view(np.uint16) & _ONES.take(sizes)
        return cls(*_completed(symbols, bits, table, zeros, is_last))

    def counts(self) -> NDArray[np.int64]:
        """How often there is each symbol, (1024,)."""
        return np.bincount(self.symbols, minlength=1024)

    def coded(self, tables: Tables) -> bytes:
        """One restart interval, filled with ones to a whole byte and stuffed (B.1.1.5)."""
        codes = np.concatenate([table.codes[0] for table in tables])
        lengths = np.concatenate([table.codes[1] for table in tables])
        sizes = np.arange(1024) & 15
        values: NDArray[Any] = (codes << sizes.astype(np.uint64)).take(self.symbols) | self.bits
        return _packed(values, (lengths + sizes).take(self.symbols)).replace(b"\xff", b"\xff\x00")


def best_tables(counts: NDArray[np.int64]) -> Tables:
    """The tables for symbols counted as `Symbols.counts` does."""
    luma_dc, luma_ac, chroma_dc, chroma_ac = (Huffman(tuple(part.tolist())) for part in counts.reshape(4, 256))
    return luma_dc, luma_ac, chroma_dc, chroma_ac


def container(
    size: tuple[int, int],
    quantization: Sequence[NDArray[np.uint8]],
    tables: Tables,
    interval: int,
    intervals: Iterable[bytes],
) -> bytes:
    """A baseline JFIF file of Y'CbCr. size: (width, height).

    quantization: of luma and of chroma, (64,) in zigzag order. interval: blocks of a component in each of the coded
    intervals, but the last.
    """
    width, height = size
    parts = [b"\xff\xd8", marker_segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")]
    parts += [marker_segment(0xDB, bytes([number, *table])) for number, table in enumerate(quantization)]
    components = bytes([1, 0x11, 0, 2, 0x11, 1, 3, 0x11, 1])
    parts.append(marker_segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + components))
    parts += [
        marker_segment(0xC4, table.segment(kind=number % 2, number=number // 2)) for number, table in enumerate(tables)
    ]
    parts.append(marker_segment(0xDD, struct.pack(">H", interval)))
    parts.append(marker_segment(0xDA, bytes([3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0])))
    for number, data in enumerate(intervals):
        if number:
            parts.append(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        parts.append(data)
    return b"".join([*parts, b"\xff\xd9"])


def marker_segment(marker: int, payload: bytes) -> bytes:
    """A marker with its length and what it says (B.1.1.4)."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _completed(
    symbols: NDArray[np.int32],
    bits: NDArray[np.uint16],
    table: NDArray[np.int32],
    zeros: NDArray[np.int32],
    is_last: NDArray[np.bool_],
) -> NDArray[np.uint16]:
    """Symbols and bits (2, T) with those that stand for sixteen zeros before them and for the end of a block behind."""
    widths = (zeros >> 4).astype(np.intp)
    widths += is_last
    widths += 1
    at = widths.cumsum()
    at -= 1
    completed = np.zeros((2, at[-1] + 1), np.uint16)
    last = np.flatnonzero(is_last)
    completed[0, at[last]] = table[last] + _EOB
    at[last] -= 1
    completed[0, at], completed[1, at] = symbols, bits
    after = np.flatnonzero(zeros > 15)
    for before in (1, 2, 3):
        after = after[zeros[after] >= 16 * before]
        completed[0, at[after] - before] = table[after] + _ZRL
    return completed


def _packed(values: NDArray[np.uint64], lengths: NDArray[np.int64]) -> bytes:
    """Values of `lengths` bits, 1 to 27 each, one after another, the first bit first; ones fill the last byte."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    words = starts >> 5  # of 32 bits; each has the start of a value, as none is as long
    window = values << (64 - (starts & 31) - lengths).astype(np.uint64)  # over two words
    firsts = np.append(0, 1 + np.flatnonzero(words[1:] != words[:-1]))
    pairs = np.add.reduceat(window, firsts)
    total = int(ends[-1])
    stream = np.zeros(len(pairs) + 1, np.uint64)
    stream[:-1] = pairs >> np.uint64(32)
    stream[1:] += pairs & np.uint64(0xFFFFFFFF)
    packed = bytearray(stream.astype(">u4").tobytes()[: -(-total // 8)])
    packed[-1] |= (1 << -total % 8) - 1
    return bytes(packed)


def _lengths(counts: dict[int, int]) -> dict[int, int]:
    """Bits of each symbol in the best code of at most 16 (package-merge, Larmore & Hirschberg 1990).

    A symbol more, never seen and so among the longest, takes the code of all ones, which T.81 keeps free.
    """
    leaves = sorted((count, (symbol,)) for symbol, count in (*counts.items(), (-1, 0)))
    merged: list[tuple[int, tuple[int, ...]]] = list(leaves)
    for _ in range(_LONGEST - 1):
        pairs = zip(merged[::2], merged[1::2], strict=False)
        merged = sorted([*leaves, *((a[0] + b[0], a[1] + b[1]) for a, b in pairs)])
    lengths = Counter(symbol for _, package in merged[: 2 * len(leaves) - 2] for symbol in package)
    del lengths[-1]
    return lengths
