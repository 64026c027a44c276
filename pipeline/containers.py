"""Which container a reel goes into: the source's where it holds the result, else one that holds all of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import PurePosixPath

import av
import numpy as np

from pipeline.chroma import chroma_size
from pipeline.demux import NO_PTS, open_whole
from pipeline.encode import FieldMarker, make_frame
from pipeline.encoders import EncoderSpec, open_encoder
from pipeline.errors import StorageError, UnsupportedError
from pipeline.frames import Source, StreamInfo
from pipeline.join import CodedPicture, write_reel
from pipeline.mux import Reel
from pipeline.packet_index import packet_index
from pipeline.probe import OtherStream, probe
from pipeline.scratch import scratch_file
from pipeline.storage import is_full
from pipeline.streams import Container, before_zero, describe, is_timecode, lost_tags, rescale
from pipeline.timing import frame_ticks, least_ticks, one_timeline
from pipeline.wrapped_pcm import plain_codec
from pipeline.written import find_problems

__all__ = ["Container", "choose_container", "preflight"]

_MP4 = Container("mp4", ".mp4", "mp4", (("movflags", "+faststart"),))
_MOV = Container("mov", ".mov", "mov")
_MKV = Container("Matroska", ".mkv", "matroska")
_WEBM = Container("WebM", ".webm", "webm")
# max_delay 0: the muxer would gather audio packets otherwise, and a reader guess the times of all but the first.
_TS = Container("MPEG-TS", ".ts", "mpegts", (("mpegts_copyts", "1"), ("max_delay", "0")))
_REORDER = 2  # pictures that x264 and x265 hold back at their defaults
_MILLISECOND = Fraction(1, 1000)


def choose_container(info: StreamInfo, spec: EncoderSpec, others: Sequence[OtherStream] = ()) -> Container:
    """The container for a reel; `notes` say why it is not the source's, and what it rounds.

    others: the streams that go along, as `other_streams` gives them; they are tried for real where there are any.
    Data streams that none holds are left out. Raises UnsupportedError where no container holds the rest, naming what
    stands in the way.
    """
    found = _first_that_holds(info, spec)
    if isinstance(found, Container):
        return found
    data = tuple(stream.index for stream in others if stream.type == "data")
    if data and isinstance(bare := _first_that_holds(info, spec, data), Container):
        return _with_what_it_holds(info, spec, bare)
    why = "; ".join(text for _, text in found)
    names = f" ({len(others)} other streams)" if others else ""
    raise UnsupportedError(
        f"{info.source.url}: no container holds this reel{names}: {why}; "
        "convert that stream beforehand, remove it, or choose another --codec"
    )


def _first_that_holds(
    info: StreamInfo, spec: EncoderSpec, without: tuple[int, ...] = ()
) -> Container | list[tuple[Container, str]]:
    """The first container that does, with its notes; where none does, why each does not."""
    refusals: list[tuple[Container, str]] = []
    for kind in dict.fromkeys((_wished(info, spec), _MKV, *_own(info), _MOV, _MP4)):
        container = replace(kind, without=without)
        refusal = _refusal(info.source, info, spec, container)
        if refusal is not None and (shift := _before_zero(info)):
            container, first = replace(container, shift=shift), refusal
            refusal = _refusal(info.source, info, spec, container) and first
        if refusal is None:
            return replace(container, notes=tuple(_notes(info, spec, container, refusals)))
        refusals.append((container, refusal))
    return refusals


def _with_what_it_holds(info: StreamInfo, spec: EncoderSpec, container: Container) -> Container:
    """With those data streams again that each fit alone; what is left out is said."""
    alone = (tuple(i for i in container.without if i != index) for index in container.without)
    unheld = tuple(
        index
        for index, rest in zip(container.without, alone, strict=True)
        if _refusal(info.source, info, spec, replace(container, without=rest)) is not None
    )
    with open_whole(info.source) as source:
        names = [describe(source.streams[index]) for index in unheld]
    said = (f"{name} is left out: no container for this reel holds it" for name in names)
    return replace(container, without=unheld, notes=(*container.notes, *said))


def preflight(source: Source, info: StreamInfo, spec: EncoderSpec, container: Container) -> None:
    """Write a few packets of every stream with the real headers, and read them back.

    Raises UnsupportedError naming what the container cannot hold and a container that can.
    """
    refusal = _refusal(source, info, spec, container)
    if refusal is None:
        return
    for other in (_MKV, _MOV, _MP4):
        if other.format != container.format and _refusal(source, info, spec, other) is None:
            raise UnsupportedError(f"{source.url}: {refusal}; {other.name} ({other.extension}) can")
    raise UnsupportedError(f"{source.url}: {refusal}; no other container here can either")


def _own(info: StreamInfo) -> tuple[Container, ...]:
    """The source's own container where that is MP4 or MOV."""
    if "mov" not in info.container.split(","):
        return ()
    return (_MOV,) if PurePosixPath(info.source.url).suffix.lower() in (".mov", ".qt") else (_MP4,)


def _wished(info: StreamInfo, spec: EncoderSpec) -> Container:
    """The source's own container where the codec is at home in it; MOV for ProRes and Matroska for FFV1 as is usual."""
    if spec.codec in ("prores", "ffv1"):
        return _MOV if spec.codec == "prores" else _MKV
    suffix = PurePosixPath(info.source.url).suffix.lower()
    kinds = info.container.split(",")
    for own in _own(info):
        return replace(own, extension=".m4v") if suffix == ".m4v" else own
    if "webm" in kinds and suffix == ".webm" and spec.codec == "av1":
        return _WEBM
    if "mpegts" in kinds and spec.codec in ("h264", "hevc"):
        blu_ray = suffix in (".m2ts", ".mts")
        return replace(_TS, extension=suffix, options=(*_TS.options, ("mpegts_m2ts_mode", "1"))) if blu_ray else _TS
    return _MKV


def _notes(
    info: StreamInfo, spec: EncoderSpec, container: Container, refusals: Sequence[tuple[Container, str]]
) -> Iterator[str]:
    """Why another container than the source's, and what is rounded."""
    suffix = PurePosixPath(info.source.url).suffix.lower()
    if refusals:
        yield f"written as {container.extension}: {'; '.join(why for _, why in refusals)}"
    elif container.extension != suffix:
        yield f"written as {container.extension}, not {suffix or info.container}: {_home(spec, container)}"
    if container.shift:
        yield f"every time is {float(container.shift):g} s later: {container.name} has no times before zero"
    if container.milliseconds and "matroska" not in info.container and _needs_rounding(info):
        yield "timestamps rounded to the nearest millisecond: Matroska's resolution"
    yield from _tag_notes(info, container)


def _before_zero(info: StreamInfo) -> Fraction:
    with open_whole(info.source) as source:
        return before_zero(source, info.start_pts * info.time_base)


def _tag_notes(info: StreamInfo, container: Container) -> Iterator[str]:
    """What becomes of tags, timecode and wrapped sound."""
    with open_whole(info.source) as source:
        if lost := lost_tags(source, container.format):
            yield f"{container.name} has no place for the tags {', '.join(lost)}"
        if container.format == "mpegts":
            yield "MPEG-TS has no tags: the provenance is the name of its service and provider"
        for stream in source.streams:
            if codec := plain_codec(stream, container.format):
                yield f"{describe(stream)} becomes {codec}, sample for sample: {container.name} holds it only so"
            if is_timecode(stream) and container.format == "matroska":
                yield f"timecode track {stream.index} kept as the TIMECODE tag: Matroska has no timecode tracks"


def _home(spec: EncoderSpec, container: Container) -> str:
    if spec.codec in ("prores", "ffv1"):
        return f"the usual container of {spec.codec}"
    return f"{container.name} holds {spec.codec} with every timestamp"


def _refusal(source: Source, info: StreamInfo, spec: EncoderSpec, container: Container) -> str | None:
    """Why a container does not do; None when it does."""
    if container.milliseconds and _collides(info):
        return f"{container.name} cannot keep pictures apart that lie within one millisecond"
    return _trial(source, info, spec, container)


def _times(info: StreamInfo) -> list[int]:
    """Display times of all pictures, sorted, in the stream's time base; doubled ones parted as the decoder does."""
    step = frame_ticks(info.fps, info.time_base)
    if not info.timestamps:
        return [info.start_pts + n * step for n in range(info.frames)]
    index = packet_index(info.source)
    timed = index.shown & (index.pts != NO_PTS)
    moved = one_timeline(index, info, timed)
    least, times, late = least_ticks(info.fps, info.time_base), list[int](), False
    for pts in np.sort(moved).tolist():
        late = bool(times) and pts < times[-1] + (least if late else 1)
        times.append(times[-1] + least if late else pts)
    return times


def _needs_rounding(info: StreamInfo) -> bool:
    """Whether any picture's time is not a whole number of milliseconds."""
    unit = info.time_base / _MILLISECOND
    return any(pts % unit.denominator for pts in _times(info))


def _collides(info: StreamInfo) -> bool:
    """Whether two pictures would get one time in milliseconds."""
    if not info.vfr and info.fps <= 900:
        return False
    rounded = [rescale(pts, info.time_base, _MILLISECOND) for pts in _times(info)]
    return len(set(rounded)) < len(rounded)


def _trial(source: Source, info: StreamInfo, spec: EncoderSpec, container: Container) -> str | None:
    """Write two pictures and the first packets of every other stream, read them back; None when all is there."""
    step = frame_ticks(spec.fps, spec.time_base)
    pts = [info.start_pts, info.start_pts + step]
    payloads = _sample(spec)
    reel = Reel(info, spec, container, {"colorized": "yes"})
    pictures = [CodedPicture(data, at, step, True) for data, at in zip(payloads, pts, strict=True)]
    try:
        with scratch_file(container.extension) as path, open_whole(source) as opened:
            written = write_reel(
                path, opened, reel,
                pictures=pictures, pts=pts, reorder=_REORDER, sample=True,
            )  # fmt: skip
            problems = find_problems(path, written.expected) or _lost_properties(
                Source(str(path), written.expected.format), info, spec
            )
    except UnsupportedError as e:
        return str(e).removeprefix(f"{info.source.url}: ")
    except av.FFmpegError as e:
        if is_full(e.errno):
            raise _untried(OSError(e.errno, e.strerror)) from e
        return f"{container.name} fails ({e.strerror or e})"
    except OSError as e:
        raise _untried(e) from e
    return f"{container.name} does not give back what is written: {problems[0]}" if problems else None


def _untried(e: OSError) -> StorageError:
    return StorageError(f"{tempfile.gettempdir()}: a trial file cannot be written: {e.strerror or e}; set TMPDIR")


def _lost_properties(trial: Source, info: StreamInfo, spec: EncoderSpec) -> list[str]:
    """What a reader of the file does not learn of the pictures."""
    read = probe(trial)
    pairs = {
        "matrix": (spec.color.matrix, read.color.matrix),
        "range": (spec.color.full_range, read.color.full_range),
        "transfer": (spec.color.transfer, read.color.transfer),
        "primaries": (spec.color.primaries, read.color.primaries),
        "field order": (spec.field_order, read.field_order),
        "rotation": (info.rotation, read.rotation),
        "mirroring": (info.mirrored, read.mirrored),
        "pixel aspect": (spec.sar.limit_denominator(255), read.sar.limit_denominator(255)),
    }
    return [f"its {name} is lost" for name, (meant, got) in pairs.items() if meant != got]


@lru_cache(maxsize=4)
def _sample(spec: EncoderSpec) -> tuple[bytes, bytes]:
    """Two coded key pictures."""
    dtype = np.uint8 if spec.bit_depth <= 8 else np.uint16
    luma = np.zeros((spec.height, spec.width), dtype)
    chroma = np.zeros(chroma_size(spec.height, spec.width, spec.subsampling), dtype)
    coded = []
    for _ in range(2):
        context = open_encoder(spec)
        frame = make_frame(spec, (luma, chroma, chroma))
        frame.pts, frame.time_base = 0, spec.time_base
        if spec.codes_fields:
            frame = FieldMarker(spec).mark(frame)
        coded.append(b"".join(bytes(p) for p in (*context.encode(frame), *context.encode(None))))
    return coded[0], coded[1]
