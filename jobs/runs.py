"""Huge folders of images, cut into runs of thousands: each is an album, planned and resumed by itself."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence

LEAST, MOST = 1024, 8192  # images in one of several runs; a folder of no more than MOST is one run
_ONE_IN = 2048  # a name in so many ends a run


def runs(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Cut a listing where its names say so, not by count: a picture more or less changes the runs beside it only."""
    if len(names) <= MOST:
        yield tuple(names)
        return
    start = 0
    for end, name in enumerate(names, 1):
        length = end - start
        if length == MOST or (length >= LEAST and zlib.crc32(os.fsencode(name)) % _ONE_IN == 0):
            yield tuple(names[start:end])
            start = end
    if start < len(names):
        yield tuple(names[start:])
