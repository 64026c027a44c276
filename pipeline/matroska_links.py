"""What a Matroska file says of a film beyond its own pictures in their order, whole: not followed, but said.

Sources: RFC 9559, sections 5.1.4.1.28 (cropping), 5.1.7 (chapters) and 17 (linked segments).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from pipeline.matroska import Element, element_in, elements

CROPPED = "it asks players to crop its pictures; the output is whole, and does not ask for that"

_SEGMENT, _SEEK_HEAD, _INFO, _TRACKS, _CHAPTERS, _CLUSTER = (
    0x18538067, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1043A770, 0x1F43B675,
)  # fmt: skip
_DESCRIBES = (_INFO, _TRACKS, _CHAPTERS)
_TRACK_ENTRY, _VIDEO, _CROPS = 0xAE, 0xE0, (0x54AA, 0x54BB, 0x54CC, 0x54DD)  # of the bottom, top, left and right
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
_EDITION, _ORDERED, _ATOM, _ELSEWHERE = 0x45B9, 0x45DD, 0xB6, 0x6E67  # the last: ChapterSegmentUUID
_NEIGHBOURS = (0x3CB923, 0x3EB923)  # PrevUUID, NextUUID
_MOST_BYTES, _MOST_ELEMENTS = 1 << 20, 64  # of an element that is read, and before the pictures


def not_followed(f: IO[bytes]) -> list[str]:
    """That a file wants to be shown otherwise than whole, from its beginning to its end; damage says nothing."""
    said = []
    try:
        for kind, content in _described(f):
            if kind == _INFO and any(e.kind in _NEIGHBOURS for e in elements(content)):
                said.append("it names other files as its neighbours (linked segments), which are not read")
            if kind == _TRACKS and _is_cropped(content):
                said.append(CROPPED)
            said += _ordered(content) if kind == _CHAPTERS else []
    except IndexError:
        pass
    return said


def _is_cropped(tracks: bytes) -> bool:
    videos = [video for entry in _inside(tracks, _TRACK_ENTRY) for video in _inside(entry, _VIDEO)]
    return any(any(pixels) for video in videos for side in _CROPS for pixels in _inside(video, side))


def _ordered(chapters: bytes) -> Iterator[str]:
    for edition in _inside(chapters, _EDITION):
        if any(any(flag) for flag in _inside(edition, _ORDERED)):
            elsewhere = any(_inside(atom, _ELSEWHERE) for atom in _inside(edition, _ATOM))
            order = "an order of their own" + (", with parts of other files" if elsewhere else "")
            yield f"its chapters are to be played in {order}; it is coloured from beginning to end, as it is stored"


def _inside(content: bytes, kind: int) -> list[bytes]:
    return [content[e.start : e.end] for e in elements(content) if e.kind == kind]


def _described(f: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(ID, content) of the information on a file, of its tracks and of its chapters, wherever they stand."""
    at, segment, seen, sought = 0, 0, set(), []
    for _ in range(_MOST_ELEMENTS):
        found = element_in(f, at)
        if found is None or found.kind == _CLUSTER:
            break
        if found.kind == _SEGMENT:
            segment = at = found.start
            continue
        if found.kind == _SEEK_HEAD:
            sought += [segment + position for position in _positions(_content(f, found))]
        elif found.kind in _DESCRIBES:
            seen.add(at)
            yield found.kind, _content(f, found)
        at = found.end
    for at in sorted(set(sought) - seen):
        found = element_in(f, at)
        if found is not None and found.kind in _DESCRIBES:
            yield found.kind, _content(f, found)


def _positions(seek_head: bytes) -> Iterator[int]:
    """Where these are, from the beginning of the segment's content."""
    for entry in _inside(seek_head, _SEEK):
        kinds = [int.from_bytes(kind, "big") for kind in _inside(entry, _SEEK_ID)]
        if kinds and kinds[0] in _DESCRIBES:
            yield from (int.from_bytes(position, "big") for position in _inside(entry, _SEEK_POSITION))


def _content(f: IO[bytes], found: Element) -> bytes:
    f.seek(found.start)
    return f.read(min(found.end - found.start, _MOST_BYTES))
