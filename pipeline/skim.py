"""Listing the packets of an MP4 or MOV on a store without reading the pictures, which are nearly all of it.

Its demuxer knows times, sizes and keyframes from the index (moov, moof), and hands on what it reads of the media data
(mdat). So that part is given as zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from pipeline.mp4 import boxes
from pipeline.ranges import RangeFile

if TYPE_CHECKING:
    from av.container import InputContainer

SKIMMING = {"fflags": "noparse"}  # options to open with: a parser would look for keyframes in the zeros


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
    yield from ((box.start, box.end) for box in boxes(f, 0, size) if box.kind == b"mdat")
