"""Listing the packets of an MP4 or MOV on a store without reading the pictures, which are nearly all of it.

Its demuxer knows times, sizes and keyframes from the index (moov, moof), and hands on what it reads of the media data
(mdat). So that part is given as zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from pipeline.ranges import RangeFile

if TYPE_CHECKING:
    from av.container import InputContainer

SKIMMING = {"fflags": "noparse"}  # options to open with: a parser would look for keyframes in the zeros
_HEADER = 8  # bytes of size and type before a box's content; 16 where the size is a long one (ISO 14496-12, 4.2)


def is_indexed(container: InputContainer) -> bool:
    """Whether a file is of the kind that has an index of all packets."""
    return "mov" in container.format.name.split(",")


def skim(container: InputContainer) -> None:
    """Have an open container on a store, opened as SKIMMING says, read no more media data."""
    file = cast(RangeFile, cast(Any, container.file).file)  # inside PyAV's own
    with file.source.open() as boxes:
        file.hollow(list(media_data(cast(IO[bytes], boxes), file.source.size)))


def media_data(f: IO[bytes], size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the content of each top-level mdat box of a file of `size` bytes."""
    at = 0
    while at + _HEADER <= size:
        f.seek(at)
        header = f.read(2 * _HEADER)
        length, begin = int.from_bytes(header[:4], "big"), _HEADER
        if length == 1:
            length, begin = int.from_bytes(header[8:16], "big"), 2 * _HEADER
        end = size if length == 0 else min(size, at + length)
        if end < at + begin:
            return
        if header[4:8] == b"mdat":
            yield at + begin, end
        at = end
