"""Decompression in bounded steps: a reader gives what was asked for and no more, so a bomb costs one buffer."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Literal, Protocol

from pipeline.errors import InputError

Codec = Literal["gz", "bz2", "xz"]
MAGIC: dict[Codec, bytes] = {"gz": b"\x1f\x8b\x08", "bz2": b"BZh", "xz": b"\xfd7zXZ\x00"}

_CHUNK = 1 << 18
_XZ_MEMORY = 256 << 20  # bytes for the dictionary that a header may ask for; xz -9 asks for 64 MiB


class Decompressor(Protocol):
    """What bz2 and lzma offer: bounded output, and whether more input is wanted."""

    @property
    def eof(self) -> bool:
        """Whether the stream's end marker was met."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without further input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Input after the end marker."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes."""
        ...


class Inflate:
    """zlib behind the interface of bz2 and lzma. `wbits` 31: gzip with its checks; -15: raw, as in zip."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self._full = False

    @property
    def eof(self) -> bool:
        """Whether the stream's end marker was met."""
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without further input."""
        return not self._full and not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """Input after the end marker."""
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes."""
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))
        self._full = max_length >= 0 and len(out) == max_length
        return out


class ZipLzma:
    """Method 14 of zip: a four-byte header and the LZMA1 properties, then a raw stream (APPNOTE 5.8.8)."""

    def __init__(self) -> None:
        self._head = b""
        self._inner: lzma.LZMADecompressor | None = None

    @property
    def eof(self) -> bool:
        """Whether the stream's end marker was met."""
        return self._inner is not None and self._inner.eof

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without further input."""
        return self._inner is None or self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        """Input after the end marker."""
        return self._inner.unused_data if self._inner else b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes."""
        if self._inner is None:
            self._head += data
            if len(self._head) < 9:
                return b""
            size, packed, dictionary = struct.unpack_from("<HBI", self._head, 2)
            if size != 5 or dictionary > _XZ_MEMORY or packed >= 225:
                raise lzma.LZMAError("bad LZMA properties")
            lc, lp, pb = packed % 9, packed // 9 % 5, packed // 45
            lzma1 = {"id": lzma.FILTER_LZMA1, "dict_size": max(4096, dictionary), "lc": lc, "lp": lp, "pb": pb}
            self._inner = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma1])
            data = self._head[9:]
        return self._inner.decompress(data, max_length)


def decompressor(codec: Codec) -> Decompressor:
    """A fresh decompressor of one stream."""
    if codec == "gz":
        return Inflate(31)
    if codec == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


class Expander:
    """Forward reader of a compressed stream; `position` counts expanded bytes.

    `followed`: whether something other than padding was found after the end of the compressed data; it is not read.

    read: gives the compressed bytes. make: a fresh decompressor for each concatenated stream.
    limit: expanded bytes after which InputError says that the data expands too far.
    InputError also tells damage and truncation; what was read before stays good.
    """

    def __init__(
        self, read: Callable[[int], bytes], make: Callable[[], Decompressor], limit: int, magic: bytes = b""
    ) -> None:
        self._read, self._make, self._limit, self._magic = read, make, limit, magic
        self._inner: Decompressor | None = make()
        self._exhausted = False
        self.position, self.followed = 0, False

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the data."""
        parts: list[bytes] = []
        while size > 0 and (part := self._some(min(size, _CHUNK))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Go forward; InputError where the data ends before."""
        while size > 0:
            part = self._some(min(size, _CHUNK))
            if not part:
                raise InputError("the data ends early: the file is truncated")
            size -= len(part)

    def _some(self, size: int) -> bytes:
        while self._inner is not None:
            data = b""
            if self._inner.needs_input and not self._exhausted:
                data = self._read(_CHUNK)
                self._exhausted = not data
            try:
                out = self._inner.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as e:
                raise InputError(f"compressed data is damaged ({e})") from e
            if self._inner.eof:
                self._next_stream()
            elif not out and self._exhausted:
                raise InputError("compressed data ends early: the file is truncated")
            if out:
                self.position += len(out)
                if self.position > self._limit:
                    raise InputError(f"expands to more than {self._limit} bytes, which looks like a bomb")
                return out
        return b""

    def _next_stream(self) -> None:
        """After an end marker: the next concatenated stream past zero padding; anything else is not ours."""
        assert self._inner is not None
        rest, self._inner = self._inner.unused_data.lstrip(b"\0"), None
        while self._magic and len(rest) < len(self._magic) and (more := self._read(_CHUNK)):
            rest = (rest + more).lstrip(b"\0")
        if self._magic and rest.startswith(self._magic):
            upstream, first = self._read, [rest]
            self._inner = self._make()
            self._read = lambda size: first.pop() if first else upstream(size)
        else:
            self.followed = bool(self._magic and rest)
