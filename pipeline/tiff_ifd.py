"""A directory of a classic TIFF (TIFF 6.0, section 2: an IFD), such as EXIF's or GPS's, moved into another file."""

from __future__ import annotations

import struct

_INTEROPERABILITY = 40965  # in EXIF, points to a further directory
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of a value, by type


def copy_directory(data: bytes, offset: int, order: str, base: int) -> bytes:
    """The directory at `offset` of `data` with its values, laid out anew for a file in which it begins at `base`.

    order: "<" or ">", of both files. EXIF's directory of interoperability is left out, as are values that together
    would be larger than the data. Raises struct.error where the data ends before the directory does.
    """
    count = struct.unpack_from(f"{order}H", data, offset)[0]
    entries, values = bytearray(), bytearray()
    for at in range(offset + 2, offset + 2 + 12 * count, 12):
        code, kind, n, where = struct.unpack_from(f"{order}HHII", data, at)
        size = n * _SIZES.get(kind, 1)
        if code == _INTEROPERABILITY or size + len(values) > len(data):
            continue
        entry = data[at : at + 12]
        if size > 4:
            entry = entry[:8] + struct.pack(f"{order}I", len(values))
            values += data[where : where + size].ljust(size + size % 2, b"\0")
        entries += entry
    return _relocated(entries, values, order, base)


def _relocated(entries: bytearray, values: bytearray, order: str, base: int) -> bytes:
    """A directory whose entries hold offsets into `values`, with those made offsets into the file."""
    start = base + 2 + len(entries) + 4
    placed = bytearray()
    for at in range(0, len(entries), 12):
        _, kind, n, where = struct.unpack_from(f"{order}HHII", entries, at)
        inline = n * _SIZES.get(kind, 1) <= 4
        placed += entries[at : at + 12] if inline else entries[at : at + 8] + struct.pack(f"{order}I", start + where)
    return b"".join([struct.pack(f"{order}H", len(entries) // 12), placed, bytes(4), values])
