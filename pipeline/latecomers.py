"""Streams that begin after FFmpeg has looked at a file's beginning: subtitles of a DVD, sound, a film under other PIDs.

What PyAV hands out of a file are the streams that FFmpeg knew when it had opened it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.demux import LateStream, giving_packets, is_unknown, main_stream, open_whole
from pipeline.errors import InputError
from pipeline.frames import Source

if TYPE_CHECKING:
    from av.container import InputContainer

_LOOKED_AT = tuple(1 << 20 + bits for bits in (4, 6, 8))  # bytes at the beginning, which are held in memory meanwhile
_UNKNOWN = "none"  # FFmpeg's codec of what is no stream at all, but damage that looks like the beginning of one


def seen_whole(source: Source, late: Sequence[LateStream], untold_sound: bool) -> tuple[Source, list[str]]:
    """(the source, looking as far for its other streams as is needed and possible, what is still left out, in words).

    late, untold_sound: as in PacketIndex. Raises InputError where one is a film.
    """
    for stream in late:
        if stream.kind == "video" and stream.codec != _UNKNOWN:
            raise in_parts(source, stream.codec)
    wanted = len(late) + (_untold_sounds(source) if untold_sound else 0)
    source, streams = _looking_further(source, wanted) if wanted else (source, 0)
    unseen = [stream for stream in late if stream.index >= streams]
    return source, [f"{stream.kind} ({stream.codec}) that begins in its middle is left out" for stream in unseen]


def in_parts(source: Source, codec: str) -> InputError:
    """The error of a film that goes on elsewhere."""
    return InputError(
        f"{source.url}: another video stream ({codec}) begins in its middle, as where recordings were put end to end; "
        "split the file there and pass the parts"
    )


def _untold_sounds(source: Source) -> int:
    """How many sounds have been announced at the file's beginning, but come only behind what FFmpeg looked at."""
    with open_whole(source) as container:
        unknown = {stream.index for stream in container.streams.audio if is_unknown(stream)}
        return len(giving_packets(container, unknown))


def _looking_further(source: Source, wanted: int) -> tuple[Source, int]:
    """(a source that finds more of the `wanted` streams, how many streams it finds in all)."""
    with open_whole(source) as container:
        main, known = main_stream(container, source).index, len(container.streams)
        begun = told = _told(container, known)
        streams = known
    for looked_at in _LOOKED_AT:
        wider = replace(source, looked_at=looked_at)
        with open_whole(wider) as container:
            if main_stream(container, source).index != main:
                break
            if _told(container, known) > told:
                source, told, streams = wider, _told(container, known), len(container.streams)
            if told - begun >= wanted or looked_at >= container.size:
                break
    return source, streams


def _told(container: InputContainer, known: int) -> int:
    """How many streams there are, without those of the first `known` of which nothing but the codec is."""
    return len(container.streams) - sum(map(is_unknown, islice(container.streams, known)))
