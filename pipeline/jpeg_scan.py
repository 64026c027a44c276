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
_LUMA_DC, _LUMA_AC, _CHROMA_DC, _CHROMA_AC = range(0, 1024, 256)  # where the symbols of each table begin


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

    symbols: (T,) run and size or size, with `_LUMA_DC`, `_LUMA_AC`, `_CHROMA_DC` or `_CHROMA_AC` added.
    coefficients: (T,) that follow each of them, 0 where none does.
    """

    symbols: NDArray[np.uint16]
    coefficients: NDArray[np.int16]

    @classmethod
    def of(cls, blocks: Blocks) -> Symbols:
        """The symbols of the blocks (N, 3, 64) of luma, Cb and Cr."""
        values = np.zeros((len(blocks), 3, 65), np.int16)  # the last is the end of block
        values[..., 1:64] = blocks[..., 1:]
        places = np.arange(65, dtype=np.int16)
        upto = np.maximum.accumulate(np.where(values != 0, places, np.int16(0)), axis=-1)
        since = np.zeros_like(upto)
        since[..., 1:] = places[1:] - upto[..., :-1]  # places since the coefficient before, this one included
        last = upto[..., -1:]
        symbols = np.where(values != 0, ((since - 1) & 15) << 4 | _SIZE[values + _OFFSET], np.int16(-1))
        symbols[(values == 0) & (since > 0) & (since % 16 == 0) & (places < last)] = _ZRL
        symbols[..., 64:] = np.where(last < 63, _EOB, -1)
        values[..., 0] = np.diff(blocks[..., 0], axis=0, prepend=np.int16(0))
        symbols[..., 0] = _SIZE[values[..., 0] + _OFFSET]
        there = symbols >= 0
        tables = np.full((3, 65), _CHROMA_AC, np.int16)
        tables[0], tables[:, 0] = _LUMA_AC, (_LUMA_DC, _CHROMA_DC, _CHROMA_DC)
        return cls((symbols + tables)[there].astype(np.uint16), values[there])

    def counts(self) -> NDArray[np.int64]:
        """How often there is each symbol, (1024,)."""
        return np.bincount(self.symbols, minlength=1024)

    def coded(self, tables: Tables) -> bytes:
        """One restart interval, filled with ones to a whole byte and stuffed (B.1.1.5)."""
        codes = np.concatenate([table.codes[0] for table in tables])
        lengths = np.concatenate([table.codes[1] for table in tables])
        sizes = _SIZE[self.coefficients + _OFFSET].astype(np.int64)
        ones = (1 << sizes) - 1
        rest = np.where(self.coefficients < 0, self.coefficients + ones, self.coefficients).astype(np.uint64)
        values: NDArray[Any] = codes[self.symbols] << sizes.astype(np.uint64) | rest
        return _packed(values, lengths[self.symbols] + sizes).replace(b"\xff", b"\xff\x00")


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


def _packed(values: NDArray[np.uint64], lengths: NDArray[np.int64]) -> bytes:
    """Values of `lengths` bits, 1 to 27 each, one after another, the first bit first; ones fill the last byte."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    words = starts >> 5  # of 32 bits; each has the start of a value, as none is as long
    window = values << (64 - (starts & 31) - lengths).astype(np.uint64)  # over two words
    firsts = np.flatnonzero(np.diff(words, prepend=-1))
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
