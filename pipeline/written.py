"""Reading back what was written, by demuxing alone: is every packet there, at its time?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from pipeline.copying import StreamRecord, is_pause
from pipeline.demux import NO_PTS, confined, media_file
from pipeline.storage import Place
from pipeline.streams import codec_name, is_cover, is_made_by_muxer, rescale

if TYPE_CHECKING:
    from av.container import InputContainer

# Payloads that a muxer may put into another form when the container changes (ADTS headers, start codes, sections).
_REFORMATTED = frozenset(
    ("aac", "aac_latm", "ac3", "av1", "dts", "eac3", "hdmv_pgs_subtitle", "opus", "truehd", "webvtt")
)
_CHAPTER_TOLERANCE = Fraction(1, 1000)  # seconds; MOV keeps chapters in milliseconds
_MILLISECOND = Fraction(1, 1000)  # Matroska's unit
_PCM_TOLERANCE = 0.1  # seconds; below it lies what rounding to milliseconds adds up to

Chapter = tuple[Fraction, Fraction, str]  # start and end in seconds, title


@dataclass(frozen=True)
class Expected:
    """What a written file must hold.

    video_pts: (N,) sorted, in units of `time_base`, which is the output stream's.
    streams: a record of each copied stream in order, None standing for the coded video.
    attached: bytes of each attachment and cover picture.
    same_container: source and output are of one kind, so payloads must come back byte for byte. format: FFmpeg's
    demuxer for the file, told because a file of few and small packets is not always recognised.
    """

    video_pts: Sequence[int]
    time_base: Fraction
    streams: Sequence[StreamRecord | None]
    attached: Sequence[int] = ()
    chapters: Sequence[Chapter] = ()
    same_container: bool = False
    format: str | None = None


def chapters_of(container: InputContainer, shift: Fraction = Fraction(0)) -> list[Chapter]:
    """Chapter marks in file order, `shift` seconds later."""

    def seconds(ticks: int, unit: Fraction | None) -> Fraction:
        return ticks * (unit or Fraction(0)) + shift

    return [
        (seconds(c["start"], c["time_base"]), seconds(c["end"], c["time_base"]), c["metadata"].get("title", ""))
        for c in container.chapters()
    ]


@contextmanager
def open_written(path: str | Place, format: str | None = None) -> Iterator[InputContainer]:
    """Open a file that FFmpeg has just written or is said to have; its errors come as they are."""
    options = confined()
    with media_file(str(path)) as file, av.open(file, "r", format, options, metadata_errors="replace") as written:
        yield written


def find_problems(path: str | Place, expected: Expected) -> list[str]:
    """Everything in which the file differs from what was to be written; empty when it is all there."""
    with open_written(path, expected.format) as written:
        problems = _chapter_problems(written, expected)
        attached = sorted(size for s in written.streams if (size := _attached_size(s)) is not None)
        covers = [s.index for s in written.streams if is_cover(s)]
        records = {
            s.index: StreamRecord(s.type, codec_name(s), s.time_base or Fraction(1))
            for s in written.streams
            if s.type != "attachment" and not is_made_by_muxer(s)
        }
        for packet in written.demux():
            record = records.get(packet.stream.index)
            if packet.size and record is not None and not is_pause(packet, record.codec):
                record.add(packet)
    attached = sorted([*attached, *(records.pop(index).bytes for index in covers)])
    if attached != sorted(expected.attached):
        problems.append(f"attachments of {attached} bytes, expected {sorted(expected.attached)}")
    found = list(records.values())
    if [r.kind for r in found] != [r.kind if r else "video" for r in expected.streams]:
        return [*problems, f"streams {[r.kind for r in found]}, expected {len(expected.streams)} as in the source"]
    for got, wanted in zip(found, expected.streams, strict=True):
        problems += _video_problems(got, expected) if wanted is None else _copy_problems(got, wanted, expected)
    return problems


def _video_problems(got: StreamRecord, expected: Expected) -> list[str]:
    return _pts_problems("video", sorted(got.pts), got.time_base, expected.video_pts, expected.time_base)


def _copy_problems(got: StreamRecord, wanted: StreamRecord, expected: Expected) -> Iterator[str]:
    """What a copied stream lost or changed."""
    name = f"{wanted.kind} ({wanted.codec})"
    whole = got.bytes == wanted.bytes and got.crc == wanted.crc
    if wanted.codec.startswith("pcm_") and whole:  # MOV cuts PCM into packets of its own
        yield from _pts_problems(name, got.pts[:1], got.time_base, wanted.pts[:1], wanted.time_base)
        late = float(got.end * got.time_base - wanted.end * wanted.time_base)
        if abs(late) > _PCM_TOLERANCE:
            yield f"{name}: ends {late:+.3f} s from where it should, there are gaps that the container does not keep"
        return
    # FFmpeg has no decoder for teletext, and its demuxer times that by the clock reference that happens to be near.
    teletext = wanted.kind == "subtitle" and wanted.codec == "unknown"
    if not (teletext and len(got.pts) == len(wanted.pts)):
        yield from _pts_problems(name, got.pts, got.time_base, wanted.pts, wanted.time_base)
    free = wanted.kind == "video" or wanted.codec == "dvb_subtitle"  # whose frame MPEG-TS takes off and puts on
    free = free or (not expected.same_container and wanted.codec in _REFORMATTED)
    if not whole and not free:
        yield f"{name}: payload of {got.bytes} bytes is not the source's, of {wanted.bytes}"


def _pts_problems(
    name: str, got: Sequence[int], got_unit: Fraction, wanted: Sequence[int], wanted_unit: Fraction
) -> list[str]:
    """The first packet that is not at its time, to the nearest tick of the file's own time base.

    Matroska has no times before zero; there, as in the priming of an audio codec, a reader counts back by durations.
    """
    if len(got) != len(wanted):
        return [f"{name}: {len(got)} packets, expected {len(wanted)}"]
    for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
        slack = 1 if w < 0 and g != NO_PTS and got_unit == _MILLISECOND else 0
        if abs(g - (w if got_unit == wanted_unit else rescale(w, wanted_unit, got_unit))) > slack:
            shown = "at no time" if g == NO_PTS else f"at {float(g * got_unit):.6f} s"
            return [f"{name}: packet {i} is {shown}, expected {float(w * wanted_unit):.6f} s"]
    return []


def _chapter_problems(written: InputContainer, expected: Expected) -> list[str]:
    got = chapters_of(written)
    same = len(got) == len(expected.chapters) and all(
        abs(g[0] - w[0]) <= _CHAPTER_TOLERANCE and g[2] == w[2] for g, w in zip(got, expected.chapters, strict=True)
    )
    return (
        [] if same else [f"{len(got)} chapters, expected {len(expected.chapters)} with the source's times and titles"]
    )


def changed_tags(path: str | Place, tags: Mapping[str, str]) -> list[str]:
    """The keys of `tags`, in any case, that the file does not have with the same value; a longer comment will do."""
    if not tags:
        return []
    with open_written(path) as written:
        # MOV shows the timecode as a tag of the file, of its streams, or of both.
        got = {k: v for s in written.streams for k, v in s.metadata.items() if k == "timecode"}
        got |= {_key(k): v for k, v in written.metadata.items()}
    return [k for k, v in tags.items() if got.get(_key(k)) != v and not _longer_comment(k, v, got)]


def _longer_comment(key: str, value: str, got: Mapping[str, str]) -> bool:
    return key.lower() == "comment" and got.get("comment", "").startswith(value)


def _key(key: str) -> str:
    return key.lower().replace(" ", "_")


def _attached_size(stream: Any) -> int | None:
    return len(stream.data) if stream.type == "attachment" else None
