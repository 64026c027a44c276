"""Tar, read as a stream of headers: every header's bytes are kept, so that a rewritten archive differs in sizes alone.

POSIX.1-2017 pax, ustar, and GNU long names. The standard library's reader is not used because it ends silently at a
damaged header and reads extended headers of any size into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import InputError

BLOCK = 512
RECORD = 20 * BLOCK  # the end of an archive is padded to this
_EXTENDED_BYTES = 1 << 20  # a pax or long-name header larger than this is hostile
_REGULAR = b"0\07"
_NO_DATA = b"123456"  # links, devices, folders, fifos: a size here is not followed by data
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
KINDS = {b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"5": "folder", b"6": "fifo"}


class Reader(Protocol):
    """A forward reader that knows its place."""

    position: int

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        ...

    def skip(self, size: int) -> None:
        """Go forward; InputError where the data ends before."""
        ...


@dataclass(frozen=True)
class TarEntry:
    """One member. `header` holds its raw header blocks, extended ones included; `size` bytes of data follow them.

    `other_names` are those that readers of fewer, or more, extensions than ours take it by.
    """

    name: bytes
    kind: bytes  # the type flag
    size: int
    header: bytes
    sparse: bool = False
    other_names: tuple[bytes, ...] = ()

    @property
    def regular(self) -> bool:
        """Whether it is a plain file."""
        return self.kind in _REGULAR and not self.sparse

    @property
    def padding(self) -> int:
        """Bytes that fill the last block of the data."""
        return -self.size % BLOCK


def is_tar(block: bytes) -> bool:
    """Whether a file that begins with these 512 bytes is a tar archive."""
    return len(block) == BLOCK and block.strip(b"\0") != b"" and _checksum_holds(block)


def read_entries(reader: Reader) -> Iterator[TarEntry]:
    """The members in order. The caller reads (or not) an entry's data before the next; the rest is skipped here.

    Raises InputError at a damaged header and at an archive that ends early.
    """
    while (entry := _next_entry(reader)) is not None:
        end = reader.position + entry.size + entry.padding
        yield entry
        reader.skip(end - reader.position)


def with_size(entry: TarEntry, size: int) -> bytes:
    """The entry's header blocks for data of another size; everything else stays byte for byte."""
    blocks = bytearray()
    at = 0
    while at < len(entry.header) - BLOCK:
        head = entry.header[at : at + BLOCK]
        length = _number(head[_SIZE])
        payload = entry.header[at + BLOCK : at + BLOCK + length]
        if head[156:157] == b"x" and b"size" in (records := _pax_records(payload)):
            records[b"size"] = b"%d" % size
            payload = _pax_bytes(records)
        blocks += _resized(head, len(payload)) + payload + bytes(-len(payload) % BLOCK)
        at += BLOCK + length + (-length % BLOCK)
    return bytes(blocks) + _resized(entry.header[-BLOCK:], size)


def _next_entry(reader: Reader) -> TarEntry | None:
    header, long_name = b"", None
    records: dict[bytes, bytes] = {}
    while True:
        block = reader.read(BLOCK)
        if len(block) < BLOCK or (header and not block.strip(b"\0")):
            raise InputError("the archive ends without its end marker: it is truncated")
        if not block.strip(b"\0"):
            return None
        if not _checksum_holds(block):
            raise InputError("a member's header is damaged; the members after it cannot be found")
        header += block
        kind = block[156:157]
        if kind in b"xgXLK":
            payload = _payload(reader, _number(block[_SIZE]), len(header))
            header += payload[0] + payload[1]
            if kind in b"xX":
                records |= _pax_records(payload[0])
            elif kind == b"g" and {b"path", b"size", b"linkpath"} & _pax_records(payload[0]).keys():
                raise InputError("a global header renames or resizes all members, which is not supported")
            elif kind == b"L":
                long_name = payload[0].rstrip(b"\0")
            continue
        return _entry(reader, header, records, long_name)


def _entry(reader: Reader, header: bytes, records: dict[bytes, bytes], long_name: bytes | None) -> TarEntry:
    block = header[-BLOCK:]
    kind = block[156:157]
    size = _number(block[_SIZE])
    if b"size" in records:
        size = _decimal(records[b"size"])
    name = block[:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    names = [name, long_name, records.get(b"path"), records.get(b"GNU.sparse.name")]
    known = [candidate for candidate in names[:3] if candidate is not None]
    name = known[-1]
    others = tuple(candidate for candidate in names if candidate is not None and candidate != name)
    sparse = kind == b"S" or any(key.startswith(b"GNU.sparse") for key in records)
    more = kind == b"S" and block[482]
    while more:  # old GNU sparse maps go on in blocks of their own
        extension = reader.read(BLOCK)
        if len(extension) < BLOCK or len(header) > _EXTENDED_BYTES:
            raise InputError("a sparse member's map is damaged")
        header += extension
        more = extension[504]
    if kind in _NO_DATA:
        size = 0
    elif kind in _REGULAR and name.endswith(b"/"):
        kind = b"5"  # V7 folders, whose data, should there be any, does follow
    return TarEntry(name, kind, size, header, sparse, others)


def _payload(reader: Reader, size: int, so_far: int) -> tuple[bytes, bytes]:
    if size + so_far > _EXTENDED_BYTES:
        raise InputError(f"an extended header of {size} bytes is not credible")
    data, fill = reader.read(size), reader.read(-size % BLOCK)
    if len(data) < size:
        raise InputError("the archive ends inside a header: it is truncated")
    return data, fill


def _number(digits: bytes) -> int:
    """Octal text, or GNU base-256 where the top bit is set."""
    if digits[:1] and digits[0] & 0x80:
        if digits[0] != 0x80:
            raise InputError("a member says that it has a negative size")
        return int.from_bytes(digits[1:], "big")
    text = digits.split(b"\0")[0].strip()
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise InputError("a member's size is not a number")
    return int(text, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InputError("a member's size is not a number")
    return int(text)


def _checksum_holds(block: bytes) -> bool:
    """Whether the checksum is the sum of the block's bytes, its own field as spaces (some old tars sum signed)."""
    text = block[_CHECKSUM].split(b"\0")[0].strip()
    if not text or text.strip(b"01234567"):
        return False
    plain = block[:148] + b" " * 8 + block[156:]
    excess = int(text, 8) - sum(plain)
    return excess == 0 or excess == -256 * sum(b > 127 for b in plain)


def _resized(block: bytes, size: int) -> bytes:
    digits = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    plain = block[:124] + digits + block[136:148] + b" " * 8 + block[156:]
    return plain[:148] + b"%06o\0 " % sum(plain) + plain[156:]


def _pax_records(payload: bytes) -> dict[bytes, bytes]:
    """`length key=value\\n` records; the length counts itself."""
    records, at = {}, 0
    while at < len(payload) and payload[at]:
        digits = payload[at : at + 20].split(b" ")[0]
        if not digits.isdigit():
            raise InputError("an extended header is damaged")
        length = int(digits)
        record = payload[at + len(digits) + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or at + length > len(payload):
            raise InputError("an extended header is damaged")
        records[key] = value[:-1]
        at += length
    return records


def _pax_bytes(records: dict[bytes, bytes]) -> bytes:
    out = b""
    for key, value in records.items():
        length = base = len(key) + len(value) + 3
        while length != base + len(str(length)):
            length = base + len(str(length))
        out += b"%d %s=%s\n" % (length, key, value)
    return out
