"""The segment file: coded pictures of one segment with their exact timestamps, to be joined into a reel.

General containers round timestamps (Matroska: 1 ms), drop durations (NUT) or refuse negative ones; a segment lives
only between a worker and the assembly, so it is kept as plainly as it can be:

    RCSEGMNT | payload 0 | payload 1 | … | index (ENTRY per packet) | header (JSON) | sizes (TRAILER) | RCSEGEND

Packets are in coding order. The index and header stand at the end, so a file cut short is seen to be so at once.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, StorageError, VerificationError
from pipeline.ranges import StoredObject
from pipeline.storage import Place, readable

_START, _END = b"RCSEGMNT", b"RCSEGEND"
_TRAILER = struct.Struct("<QQ")  # number of packets, bytes of the header
_ENTRY = np.dtype([("pts", "<i8"), ("duration", "<i8"), ("size", "<u4"), ("key", "u1")])


@dataclass(frozen=True)
class SegmentHeader:
    """What every packet of a segment shares: the encoder, its out-of-band headers, and the unit of the timestamps."""

    encoder: str
    extradata: bytes
    time_base: Fraction


class PacketWriter:
    """Appends packets to an open file and hashes what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._entries: list[tuple[int, int, int, bool]] = []
        self.bytes = 0
        self._write(_START)

    def add(self, payload: Any, pts: int, duration: int, key: bool) -> None:
        """Append one packet; payload: anything with the buffer protocol."""
        view = memoryview(payload)
        self._entries.append((pts, duration, view.nbytes, key))
        self._write(view)

    def finish(self, header: SegmentHeader) -> str:
        """Write index, header and trailer; returns the hex SHA-256 of the whole file."""
        fields = {
            "encoder": header.encoder,
            "extradata": header.extradata.hex(),
            "time_base": [header.time_base.numerator, header.time_base.denominator],
        }
        text = json.dumps(fields).encode()
        self._write(np.array(self._entries, _ENTRY).tobytes())
        self._write(text)
        self._write(_TRAILER.pack(len(self._entries), len(text)))
        self._write(_END)
        return self._digest.hexdigest()

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)


@dataclass(frozen=True)
class PacketFile:
    """A segment file's header and index; `pts`, `duration` (N,) int64 and `key` (N,) bool in coding order."""

    path: str
    source: Path | StoredObject
    header: SegmentHeader
    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    size: NDArray[np.int64]
    key: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def reorder(self) -> int:
        """How many pictures the decoder must hold back: the most that any is coded after its place in time."""
        rank = np.argsort(np.argsort(self.pts, kind="stable"), kind="stable")
        return int(max(0, np.max(np.arange(len(rank)) - rank, initial=0)))

    def payloads(self, sha256: str) -> Iterator[bytes]:
        """The packets' bytes in coding order, one at a time.

        Raises VerificationError after the last one unless the whole file hashes to `sha256`.
        """
        digest = hashlib.sha256()
        try:
            with self.source.open("rb") as f:
                digest.update(f.read(len(_START)))
                for size in self.size:
                    payload = f.read(int(size))
                    digest.update(payload)
                    if len(payload) != size:
                        raise _damaged(self.path, "ends early")
                    yield payload
                digest.update(f.read())
        except OSError as e:
            raise StorageError(f"{self.path}: cannot be read: {e.strerror or e}") from e
        if digest.hexdigest() != sha256:
            raise _damaged(self.path, "its SHA-256 is not the recorded one")


def open_packets(path: str | Place) -> PacketFile:
    """Read a segment file's header and index. Raises VerificationError where it is cut short or damaged."""
    try:
        source = readable(path)
        with source.open("rb") as f:
            return _read(str(path), source, cast(IO[bytes], f))
    except InputError as e:
        raise StorageError(str(e)) from e
    except OSError as e:
        raise StorageError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, KeyError, TypeError, struct.error) as e:
        raise _damaged(str(path), "index or header cannot be read") from e


def _read(path: str, source: Path | StoredObject, f: IO[bytes]) -> PacketFile:
    tail = _TRAILER.size + len(_END)
    total = f.seek(0, 2)
    if total < len(_START) + tail:
        raise _damaged(path, "ends early")
    f.seek(total - tail)
    count, text_bytes = _TRAILER.unpack(f.read(_TRAILER.size))
    if f.read() != _END:
        raise _damaged(path, "ends early")
    index_at = total - tail - text_bytes - count * _ENTRY.itemsize
    if index_at < len(_START):
        raise _damaged(path, "index or header cannot be read")
    f.seek(index_at)
    entries = np.frombuffer(f.read(count * _ENTRY.itemsize), _ENTRY)
    fields = json.loads(f.read(text_bytes))
    size = entries["size"].astype(np.int64)
    if int(size.sum()) != index_at - len(_START):
        raise _damaged(path, "index does not fit the packets")
    header = SegmentHeader(
        encoder=str(fields["encoder"]),
        extradata=bytes.fromhex(fields["extradata"]),
        time_base=Fraction(*map(int, fields["time_base"])),
    )
    pts, duration = entries["pts"].astype(np.int64), entries["duration"].astype(np.int64)
    return PacketFile(path, source, header, pts, duration, size, entries["key"].astype(np.bool_))


def _damaged(path: str, what: str) -> VerificationError:
    return VerificationError(f"{path}: damaged segment file ({what}); run the same command again to make it anew")
