"""Clusters of Matroska files that are damaged, found by their CRC-32 as a demuxer reads them; FFmpeg looks at none.

Sources: RFC 8794, 11.3.1 (CRC-32), and RFC 9559, 5.1 (what a segment holds). FFmpeg's muxer writes a CRC-32 into every
cluster, of pictures, sound and all else of some seconds; what the file holds beside clusters is not looked at.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, Self

from pipeline.frames import Source
from pipeline.matroska import Element, element_at, element_in
from pipeline.storage import open_input

_EBML, _SEGMENT, _CLUSTER, _CRC32 = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xBF
# EBML, SeekHead, Info, Tracks, Cues, Chapters, Tags, Attachments, Void
_OTHERS = {_EBML, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1254C367, 0x1941A469, 0xEC}
_MARK = _CLUSTER.to_bytes(4)
_HEADER = 18  # bytes of the longest ID and size, and of a CRC-32
_MOST_ELEMENTS = 64  # before the clusters
_PIECE = 1 << 18  # bytes read at a time
_NEVER = sys.maxsize


def cluster_watch(source: Source) -> ClusterWatch | None:
    """What watches a file's clusters while it is read; None where the first has no CRC-32."""
    with open_input(source.url) as f:
        if f.read(4) != _EBML.to_bytes(4):
            return None
        first = next((e for e in _top_elements(f) if e.kind == _CLUSTER), None)
        child = first and element_in(f, first.start)
    return ClusterWatch() if child and child.kind == _CRC32 else None


def _top_elements(f: IO[bytes]) -> Iterator[Element]:
    at = 0
    for _ in range(_MOST_ELEMENTS):
        if (found := element_in(f, at)) is None:
            return
        yield found
        at = found.start if found.kind == _SEGMENT else found.end


class ClusterWatch:
    """A file for a demuxer that reads it from its beginning to its end, once it is open, and what that shows.

    clusters: how many were met. damaged: how many have a wrong CRC-32, or are stretches without an element where one
    has to be. first: an offset in the first of these. begun: set this once the demuxer has stopped to jump about in
    search of what the file holds.
    """

    def __init__(self) -> None:
        self.clusters = self.damaged = 0
        self.first = _NEVER
        self.begun = False
        self.failure: Exception | None = None
        self._file: IO[bytes]
        self._next, self._end = 0, _NEVER  # offsets of what is to be looked at next, and of the segment's end
        self._rest = b""  # what of a header has been read
        self._left = self._crc = self._told = 0  # bytes of a cluster; its CRC-32 up to them, and as it says
        self._lost = self._broken = False  # whether a cluster is searched for; whether damage was the last thing met

    def over(self, file: IO[bytes]) -> Self:
        """Read from this file."""
        self._file = file
        return self

    def read(self, size: int) -> bytes:  # noqa: D102
        at = self._file.tell()
        try:
            if self.begun and self._next < at:
                self._catch_up(at)
            data = self._file.read(size)
        except Exception as e:  # FFmpeg may take it for the file's end
            self.failure = e
            raise
        self._see(at, data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:  # noqa: D102
        return self._file.seek(offset, whence)

    def tell(self) -> int:  # noqa: D102
        return self._file.tell()

    def warnings(self, met: Fraction | None) -> list[str]:
        """What there is to say; met: seconds, the time of the last picture before damage; below zero where unknown."""
        when = f", the first about {float(met):.2f} s" if met is not None and met >= 0 else ""
        damaged = f"{self.damaged} of its {self.clusters} clusters of pictures and sound are damaged, by their CRC"
        return [f"{damaged}{when}"] if self.damaged else []

    def _catch_up(self, at: int) -> None:
        """Read what the demuxer has passed over of a cluster, as it does where damage makes an element of it."""
        self._file.seek(self._next)
        while self._next < at and (data := self._file.read(min(_PIECE, at - self._next))):
            self._see(self._next, data)
        self._file.seek(at)

    def _see(self, at: int, data: bytes) -> None:
        if not at <= self._next < at + len(data):
            return
        data = self._rest + data[self._next - at :]
        start, at, self._rest = self._next - len(self._rest), 0, b""
        while at < len(data):
            if self._left:
                at += self._sum(memoryview(data)[at : at + self._left], start + at)
            elif self._lost:
                at = self._search(data, at)
            elif len(data) - at >= _HEADER:
                at += self._begin(data[at : at + _HEADER], start + at)
            else:
                self._rest, at = data[at:], len(data)
        self._next = start + at

    def _sum(self, part: memoryview, at: int) -> int:
        self._crc = zlib.crc32(part, self._crc)
        self._left -= len(part)
        if not self._left:
            self._broken = self._crc != self._told
            self._count(self._broken, at)
        return len(part)

    def _count(self, damaged: bool, at: int) -> None:
        self.damaged += damaged
        self.first = min(self.first, at) if damaged else self.first

    def _search(self, data: bytes, at: int) -> int:
        found = data.find(_MARK, at)
        if found < 0:
            self._rest = data[max(at, len(data) - len(_MARK) + 1) :]
            return len(data)
        self._lost = False
        return found

    def _begin(self, header: bytes, at: int) -> int:
        """Bytes from an element's beginning to what is to be looked at next."""
        element = element_at(header, 0)
        if element.kind == _EBML:  # of another file, maybe, put behind the first
            self._end = _NEVER
        if at >= self._end:
            return _NEVER
        if element.kind == _SEGMENT:
            self._end = at + element.end
            return element.start
        if element.kind == _CLUSTER and at + element.end <= self._end:
            child = element_at(header, element.start)
            if child.kind == _CRC32 and child.end - child.start == 4 and child.end < element.end:
                self.clusters += 1
                self._left, self._crc = element.end - child.end, 0
                self._told = int.from_bytes(header[child.start : child.end], "little")
                return child.end
        elif element.kind in _OTHERS and not self._broken:
            return element.end
        self._count(not self._broken, at)  # else the last cluster's damaged size has led here, or a chance likeness
        self._lost = self._broken = True
        return 1
