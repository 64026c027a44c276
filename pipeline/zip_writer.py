"""Zip, written: members copied compressed as they lie or with new data, every other field as in the source."""

from __future__ import annotations

import bz2
import dataclasses
import lzma
import struct
import zlib
from typing import IO

from pipeline.errors import InputError
from pipeline.zips import (
    BZIP2,
    CENTRAL,
    CENTRAL_HEAD,
    DEFLATED,
    DESCRIPTOR,
    ENCRYPTED,
    END,
    END64,
    END64_HEAD,
    END_HEAD,
    EXTRA_ZIP64,
    LOCAL,
    LOCAL_HEAD,
    LOCATOR64,
    LOCATOR64_HEAD,
    STORED,
    ZipEntry,
    bounded,
    data_start,
    extra_fields,
)  # fmt: skip

_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF
_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_CHUNK = 1 << 20


class ZipWriter:
    """Writes members one after another to `f`, then the directory on close(); nothing in it depends on the time."""

    def __init__(self, f: IO[bytes], comment: bytes = b"") -> None:
        self._f, self._comment = f, comment
        self._records: list[bytes] = []
        self._position = 0

    def copy(self, source: IO[bytes], entry: ZipEntry) -> None:
        """Copy a member's data compressed as it lies."""
        start, extra = data_start(source, entry)
        read = bounded(source, start, entry.stored)
        self._header(entry, extra)
        copied = 0
        while chunk := read(_CHUNK):
            self._put(chunk)
            copied += len(chunk)
        if copied < entry.stored:
            raise InputError("it is truncated")
        if _keeps_descriptor(entry):
            wide = "QQ" if max(entry.size, entry.stored) >= _FULL32 else "II"
            self._put(struct.pack(f"<4sI{wide}", _DESCRIPTOR_MAGIC, entry.crc, entry.stored, entry.size))

    def add(self, source: IO[bytes], entry: ZipEntry, data: bytes) -> None:
        """Write `data` in place of the member's own, with its method, name, date, mode and comment."""
        _, extra = data_start(source, entry)
        packed = _compress(entry.method, data)
        crc = zlib.crc32(data)
        self._header(dataclasses.replace(entry, size=len(data), stored=len(packed), crc=crc), extra)
        self._put(packed)

    def close(self) -> None:
        """Write the central directory and the end records."""
        start, count = self._position, len(self._records)
        for record in self._records:
            self._put(record)
        size = self._position - start
        if count >= _FULL16 or max(start, size) >= _FULL32:
            end64 = self._position
            self._put(END64_HEAD.pack(END64, END64_HEAD.size - 12, 45, 45, 0, 0, count, count, size, start))
            self._put(LOCATOR64_HEAD.pack(LOCATOR64, 0, end64, 1))
        n = min(count, _FULL16)
        self._put(END_HEAD.pack(END, 0, 0, n, n, min(size, _FULL32), min(start, _FULL32), len(self._comment)))
        self._put(self._comment)

    def _header(self, entry: ZipEntry, local_extra: bytes) -> None:
        flags = entry.flags if _keeps_descriptor(entry) else entry.flags & ~DESCRIPTOR
        offset = self._position
        wide = max(entry.size, entry.stored) >= _FULL32
        needs = max(entry.needs, 45) if wide or offset >= _FULL32 else entry.needs
        local = (struct.pack("<HHQQ", EXTRA_ZIP64, 16, entry.size, entry.stored) if wide else b"") + _plain(local_extra)
        size, stored = (_FULL32, _FULL32) if wide else (entry.size, entry.stored)
        common = (flags, entry.method, entry.time, entry.date, entry.crc, stored, size, len(entry.name))
        self._put(LOCAL_HEAD.pack(LOCAL, needs, *common, len(local)) + entry.name + local)
        values = ([entry.size, entry.stored] if wide else []) + ([offset] if offset >= _FULL32 else [])
        extra = struct.pack(f"<HH{len(values)}Q", EXTRA_ZIP64, 8 * len(values), *values) if values else b""
        extra += _plain(entry.extra)
        head = CENTRAL_HEAD.pack(
            CENTRAL, entry.made_by, needs, *common, len(extra), len(entry.comment),
            0, entry.internal, entry.external, min(offset, _FULL32),
        )  # fmt: skip
        self._records.append(head + entry.name + extra + entry.comment)

    def _put(self, data: bytes) -> None:
        self._f.write(data)
        self._position += len(data)


def _keeps_descriptor(entry: ZipEntry) -> bool:
    """Of an encrypted member: whether there is one decides what a password is checked against (APPNOTE 6.1.6)."""
    return bool(entry.flags & ENCRYPTED and entry.flags & DESCRIPTOR)


def _compress(method: int, data: bytes) -> bytes:
    if method == STORED:
        return data
    if method == DEFLATED:
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        return deflate.compress(data) + deflate.flush()
    if method == BZIP2:
        return bz2.compress(data)
    lzma1 = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 23, "lc": 3, "lp": 0, "pb": 2}
    properties = struct.pack("<BBHBI", 9, 4, 5, (2 * 5 + 0) * 9 + 3, 1 << 23)
    return properties + lzma.compress(data, lzma.FORMAT_RAW, filters=[lzma1])


def _plain(extra: bytes) -> bytes:
    """The extra field without its ZIP64 part, and without what is damaged."""
    return b"".join(extra[at : at + 4 + length] for at, key, length in extra_fields(extra) if key != EXTRA_ZIP64)
