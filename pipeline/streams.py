"""What a file's streams are to the output: to be coded, copied, attached or made again by the muxer; their tags."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from av.stream import Discard, Disposition

if TYPE_CHECKING:
    from av.container import InputContainer

# Tags written by the muxer itself, or true of the source file only.
_STALE_GLOBAL = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder", "duration"))
_STALE_STREAM = frozenset(("encoder", "duration", "vendor_id", "bps", "number_of_frames", "number_of_bytes"))
_STALE_PREFIXES = ("_statistics", "bps-", "number_of_frames-", "number_of_bytes-", "duration-")
# Tags that FFmpeg writes in the form iTunes made usual (movenc.c, mov_write_ilst_tag).
_ITUNES_KEYS = frozenset(
    (
        *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "grouping"),
        *("lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords"),
        *("creation_time", "timecode"),  # in MOV's own headers
    )
)


@dataclass(frozen=True)
class Container:
    """An output container: FFmpeg's muxer and its options; `notes` states what it cannot keep exactly.

    `shift`: seconds by which everything is later than in the source, where the container has no negative times.
    `without`: indices of the source's data streams that no container holds.
    """

    name: str
    extension: str
    format: str
    options: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    shift: Fraction = Fraction(0)
    without: tuple[int, ...] = ()

    @property
    def milliseconds(self) -> bool:
        """Whether timestamps are rounded to 1 ms: Matroska's default TimestampScale, the only one FFmpeg writes."""
        return self.format in ("matroska", "webm")


def rescale(ticks: int, source: Fraction, target: Fraction) -> int:
    """Ticks of one time base in another, to the nearest, halves away from zero (as av_rescale_q)."""
    numerator = abs(ticks) * source.numerator * target.denominator
    denominator = source.denominator * target.numerator
    nearest = (2 * numerator + denominator) // (2 * denominator)
    return nearest if ticks >= 0 else -nearest


def before_zero(source: InputContainer, start: Fraction) -> Fraction:
    """How long before zero the file begins, in whole milliseconds; `start`: of the pictures, in seconds."""
    starts = [s.start_time * s.time_base for s in source.streams if s.start_time is not None and s.time_base]
    return Fraction(max(0, math.ceil(-1000 * min([start, *starts]))), 1000)


def is_cover(stream: Any) -> bool:
    """Whether a stream is one attached picture."""
    return bool(stream.type == "video" and stream.disposition & Disposition.attached_pic)


def is_made_by_muxer(stream: Any) -> bool:
    """Whether it is a track that MOV makes of chapters or of the timecode tag, and makes again."""
    return bool(stream.type == "data" and (stream.discard == Discard.all or is_timecode(stream)))


def is_timecode(stream: Any) -> bool:
    """Whether it is MOV's timecode track; its video stream has the same timecode as a tag."""
    return bool(stream.type == "data" and "timecode" in stream.metadata)


def codec_name(stream: Any) -> str:
    """FFmpeg's name of a stream's codec."""
    context = stream.codec_context
    return (context.codec.canonical_name if context else getattr(stream, "name", None)) or "unknown"


def describe(stream: Any) -> str:
    """A stream in words for an error or a note: "subtitle stream 3 (subrip)"."""
    return f"{stream.type} stream {stream.index} ({codec_name(stream)})"


def stream_metadata(stream: Any) -> dict[str, str]:
    """A stream's tags that are still true of its copy."""
    return {
        k: v
        for k, v in stream.metadata.items()
        if k.lower() not in _STALE_STREAM and not k.lower().startswith(_STALE_PREFIXES)
    }


def kept_tags(source: InputContainer, format: str) -> dict[str, str]:
    """The file's tags that are still true of the output and that a container of `format` holds."""
    tags = {k: v for k, v in source.metadata.items() if k.lower() not in _STALE_GLOBAL}
    if format == "mpegts":
        return {}
    if format == "mp4" and uses_itunes(source):
        return {k: v for k, v in tags.items() if k.lower() in _ITUNES_KEYS}
    return tags


def lost_tags(source: InputContainer, format: str) -> list[str]:
    """The tags that such a container has no place for."""
    kept = kept_tags(source, format)
    return [k for k in source.metadata if k not in kept and k.lower() not in _STALE_GLOBAL]


def uses_itunes(source: InputContainer) -> bool:
    """Whether mp4's iTunes atoms are the way to keep this file's tags; the other way keeps any key, but no cover."""
    covers = any(is_cover(s) for s in source.streams.video)
    return covers or all(k.lower() in _ITUNES_KEYS | _STALE_GLOBAL for k in source.metadata)


def cover_pictures(source: InputContainer) -> dict[int, bytes]:
    """The attached pictures, which demuxers hand out before anything else."""
    streams = [s for s in source.streams.video if is_cover(s)]
    covers: dict[int, bytes] = {}
    for packet in _first_packets(source, streams):
        covers.setdefault(packet.stream.index, bytes(packet))
    return covers


def _first_packets(source: InputContainer, streams: list[Any]) -> Iterator[Any]:
    """The first packet of each stream."""
    missing = {s.index for s in streams}
    if not missing:
        return
    for packet in source.demux(streams):
        if packet.size and packet.stream.index in missing:
            missing.remove(packet.stream.index)
            yield packet
        if not missing:
            return
