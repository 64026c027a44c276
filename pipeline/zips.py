"""Zip, read from its central directory and written back with every field kept (PKWARE APPNOTE 6.3.10).

Member data that does not change is copied compressed as it lies. Names stay bytes: what encoding they are in is for
display only. The standard library's module is not used because it re-encodes names and reads the whole directory into
memory.
"""

from __future__ import annotations

import bz2
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from pipeline.compression import Decompressor, Expander, Inflate, ZipLzma
from pipeline.errors import InputError

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
METHODS = (STORED, DEFLATED, BZIP2, LZMA)
ENCRYPTED, DESCRIPTOR, UTF8 = 1, 1 << 3, 1 << 11  # general purpose flags

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_SIGNATURE = b"PK\x05\x05"  # of the directory, after its records (APPNOTE 4.3.13)
END64, LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
LOCAL_HEAD = struct.Struct("<4sHHHHHIIIHH")
CENTRAL_HEAD = struct.Struct("<4sHHHHHHIIIHHHHHII")
END_HEAD = struct.Struct("<4sHHHHIIH")
END64_HEAD = struct.Struct("<4sQHHIIQQQQ")
LOCATOR64_HEAD = struct.Struct("<4sIQI")
EXTRA_ZIP64, _EXTRA_UNICODE_PATH = 0x0001, 0x7075
_FULL32 = 0xFFFFFFFF
_FULL16 = 0xFFFF
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ZipEntry:
    """One record of the central directory. `stored` and `size` are bytes before and after expansion."""

    name: bytes
    made_by: int
    needs: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    stored: int
    size: int
    internal: int
    external: int
    offset: int  # of the local header, from the file's beginning
    extra: bytes
    comment: bytes

    @property
    def mode(self) -> int:
        """Unix file mode with its type bits, 0 where the archive does not tell."""
        return self.external >> 16 if self.made_by >> 8 in (3, 19) else 0

    @property
    def text(self) -> str:
        """The name for display."""
        try:
            return self.name.decode("utf-8" if self.flags & UTF8 else "ascii")
        except UnicodeDecodeError:
            return self.name.decode("utf-8", "backslashreplace") if self.flags & UTF8 else self.name.decode("cp437")

    @property
    def other_name(self) -> bytes | None:
        """The name that the Info-ZIP Unicode Path field puts in this one's place, if any."""
        field = _fields(self.extra).get(_EXTRA_UNICODE_PATH)
        return field[5:] if field else None


@dataclass(frozen=True)
class Directory:
    """Where the central directory lies; `shift` is how far the archive begins inside its file.

    Not `whole`: the file ends before its directory, and members are known from their local headers alone.
    """

    start: int
    size: int
    count: int
    shift: int
    comment: bytes
    whole: bool = True


def find_directory(f: IO[bytes]) -> Directory:
    """Read the end records. InputError where they contradict the file."""
    end = f.seek(0, 2)
    tail_start = max(0, end - END_HEAD.size - _FULL16)
    f.seek(tail_start)
    tail = f.read()
    at = _end_record(tail)
    if at < 0:
        return Directory(end, 0, 0, 0, b"", whole=False)
    _, disk, first_disk, _, count, size, start, comment_size = END_HEAD.unpack_from(tail, at)
    comment = tail[at + END_HEAD.size :][:comment_size]
    position = tail_start + at
    locator = tail[max(0, at - LOCATOR64_HEAD.size) : at]
    if locator.startswith(LOCATOR64):
        _, _, where, _ = LOCATOR64_HEAD.unpack(locator)
        f.seek(min(where, end))
        record = f.read(END64_HEAD.size)
        if len(record) < END64_HEAD.size or not record.startswith(END64):
            raise InputError("the zip archive's 64-bit end record is damaged")
        _, _, _, _, disk, first_disk, _, count, size, start = END64_HEAD.unpack(record)
        position = where
    if disk or first_disk:
        raise InputError("the zip archive is one part of several; join them first")
    shift = position - size - start
    if shift < 0:
        raise InputError("the zip archive's central directory is not where the archive says")
    return Directory(start + shift, size, count, shift, comment)


def _end_record(tail: bytes) -> int:
    """Where the end record is in a file's last bytes, -1 if nowhere: the last whose comment ends where the file does.

    Else the last, as where something was appended. A comment may hold the signature, too.
    """
    room = len(tail) - END_HEAD.size
    at = last = tail.rfind(END, 0, max(0, room + len(END)))
    while at >= 0 and END_HEAD.unpack_from(tail, at)[-1] != room - at:
        at = tail.rfind(END, 0, at + len(END) - 1)
    return last if at < 0 else at


def read_directory(f: IO[bytes], directory: Directory) -> Iterator[ZipEntry]:
    """The members in directory order, in constant memory. InputError where the directory is damaged."""
    if not directory.whole:
        yield from _read_local_headers(f, directory.start)
        return
    read = bounded(f, directory.start, directory.size)
    buffer, at, seen = b"", 0, 0
    while True:
        if len(buffer) - at < CENTRAL_HEAD.size + 3 * _FULL16 and (more := read(_CHUNK)):
            buffer, at = buffer[at:] + more, 0
        if at == len(buffer) or buffer.startswith(_SIGNATURE, at):
            break
        if len(buffer) - at < CENTRAL_HEAD.size or not buffer.startswith(CENTRAL, at):
            raise InputError("the zip archive's central directory is damaged")
        (_, made_by, needs, flags, method, time, date, crc, stored, size, n, e, c, _, internal, external, offset) = (
            CENTRAL_HEAD.unpack_from(buffer, at)
        )
        at += CENTRAL_HEAD.size
        name, extra, comment = buffer[at : at + n], buffer[at + n : at + n + e], buffer[at + n + e : at + n + e + c]
        at += n + e + c
        if at > len(buffer):
            raise InputError("the zip archive's central directory is damaged")
        seen += 1
        size, stored, offset = _wide(extra, size, stored, offset)
        yield ZipEntry(
            name, made_by, needs, flags, method, time, date, crc, stored, size,
            internal, external, offset + directory.shift, extra, comment,
        )  # fmt: skip
    if seen != directory.count and seen & _FULL16 != directory.count:
        raise InputError(f"the zip archive says that it has {directory.count} members and lists {seen}")


def _read_local_headers(f: IO[bytes], end: int) -> Iterator[ZipEntry]:
    """The members of a truncated archive, the cut one included, as far as headers tell where the next one begins."""
    at = 0
    while at + LOCAL_HEAD.size <= end:
        f.seek(at)
        head = f.read(LOCAL_HEAD.size)
        magic, needs, flags, method, time, date, crc, stored, size, n, e = LOCAL_HEAD.unpack(head)
        name, extra = f.read(n), f.read(e)
        if magic != LOCAL or len(extra) < e:
            return
        if flags & DESCRIPTOR:
            raise InputError("the sizes of the members after it are not known; copy the archive again")
        size, stored, _ = _wide(extra, size, stored, 0)
        yield ZipEntry(name, needs, needs, flags, method, time, date, crc, stored, size, 0, 0, at, b"", b"")
        at += LOCAL_HEAD.size + n + e + stored


def data_start(f: IO[bytes], entry: ZipEntry) -> tuple[int, bytes]:
    """Where the member's data begins, and its local extra field. InputError where local and central names differ."""
    f.seek(entry.offset)
    head = f.read(LOCAL_HEAD.size)
    if len(head) < LOCAL_HEAD.size or not head.startswith(LOCAL):
        raise InputError("its local header is missing or damaged")
    *_, n, e = LOCAL_HEAD.unpack(head)
    name, extra = f.read(n), f.read(e)
    if name != entry.name:
        raise InputError("its local header has another name than the directory")
    return entry.offset + LOCAL_HEAD.size + n + e, extra


def read_data(f: IO[bytes], entry: ZipEntry) -> Iterator[bytes]:
    """The member's expanded data in chunks, never more than it says. InputError at damage or a wrong size or CRC."""
    if entry.flags & ENCRYPTED:
        raise InputError("it is encrypted")
    start, _ = data_start(f, entry)
    read = bounded(f, start, entry.stored)
    if entry.method != STORED:
        read = Expander(read, _decompressor(entry.method), entry.size).read
    crc = total = 0
    while chunk := read(_CHUNK):
        crc, total = zlib.crc32(chunk, crc), total + len(chunk)
        yield chunk
    if total != entry.size:
        raise InputError(f"it is {total} bytes long and says {entry.size}: damaged or truncated")
    if crc != entry.crc:
        raise InputError("its checksum is wrong: it is damaged")


def bounded(f: IO[bytes], start: int, length: int) -> Callable[[int], bytes]:
    """A reader of `length` bytes from `start` that leaves the file's position to others."""
    at, end = start, start + length

    def read(size: int) -> bytes:
        nonlocal at
        f.seek(at)
        data = f.read(min(size, end - at))
        at += len(data)
        return data

    return read


def _decompressor(method: int) -> Callable[[], Decompressor]:
    makers: dict[int, Callable[[], Decompressor]] = {
        DEFLATED: lambda: Inflate(-15),
        BZIP2: bz2.BZ2Decompressor,
        LZMA: ZipLzma,
    }
    if method not in makers:
        raise InputError(f"its compression method {method} is not supported")
    return makers[method]


def _wide(extra: bytes, size: int, stored: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset with the ZIP64 field in place of those that are all ones (APPNOTE 4.5.3)."""
    field = _fields(extra).get(EXTRA_ZIP64, b"")
    values = list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
    if [size, stored, offset].count(_FULL32) > len(values):
        return size, stored, offset
    return tuple(values.pop(0) if value == _FULL32 else value for value in (size, stored, offset))  # type: ignore[return-value]


def _fields(extra: bytes) -> dict[int, bytes]:
    return {key: extra[at + 4 : at + 4 + length] for at, key, length in extra_fields(extra)}


def extra_fields(extra: bytes) -> Iterator[tuple[int, int, int]]:
    """(position, kind, length of its content) of every whole field of an extra field (APPNOTE 4.5)."""
    at = 0
    while at + 4 <= len(extra):
        key, length = struct.unpack_from("<HH", extra, at)
        if at + 4 + length > len(extra):
            return
        yield at, key, length
        at += 4 + length
