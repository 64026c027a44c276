"""What is in a file: the main video stream as a StreamInfo, and the streams that travel with it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from pipeline.demux import (
    NO_PTS,
    DecodeReport,
    main_stream,
    open_media,
    open_whole,
    read_only,
    read_packets,
    rival_streams,
    unusable_streams,
)
from pipeline.errors import InputError
from pipeline.frames import FieldOrder, Source, StreamInfo
from pipeline.latecomers import in_parts, seen_whole
from pipeline.matroska_links import CROPPED, not_followed
from pipeline.mp4 import crops
from pipeline.packet_index import PacketIndex, packet_index
from pipeline.planes import pixel_layout
from pipeline.scans import scan_source
from pipeline.shapes import Shape, changed
from pipeline.storage import open_input
from pipeline.tags import color_tags, color_warnings, cut_short, field_order, left_out, orientation
from pipeline.timing import Timing, counted_timing, decoder_timing, stream_timing

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

__all__ = ["Chapter", "OtherStream", "chapters", "open_media", "other_streams", "probe", "scan_source"]

_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS of a demuxer; of a format asked for by name, PyAV gives the muxer's
_LOOKED_AT = 24  # pictures decoded to see whether their order is told: more than any reordering spans


@dataclass(frozen=True)
class OtherStream:
    """A stream that is not coloured but travels along."""

    index: int
    type: str
    codec: str
    language: str = ""
    title: str = ""
    attached_picture: bool = False


@dataclass(frozen=True)
class Chapter:
    """A chapter mark, in seconds from the beginning."""

    start: float
    end: float
    title: str = ""


def probe(source: Source, fps: Fraction | None = None) -> StreamInfo:
    """Describe the main video stream: all its packets are read and its first picture is decoded.

    The result's `source` is the one to go on with: FFmpeg may have to be told how to see all streams.

    `fps` is the rate of streams that carry no timestamps (raw H.264); others keep their own. Raises InputError where
    there is nothing that can be coloured, StorageError where reading fails.
    """
    index = packet_index(source)
    source, left_behind = seen_whole(source, index.late, index.untold_sound)
    if not index.shown.any():
        raise InputError(f"{source.url}: {_why_nothing(index)}")
    with open_media(source) as container:
        stream = main_stream(container, source)
        read_only(container, stream)
        raw = source.format is None and bool(container.format.flags & _NO_TIMESTAMPS)
        frame, ordered = _first_pictures(container, stream, source, index)
        return _describe(
            source,
            container=container.format.name,
            stream=stream,
            frame=frame,
            index=index,
            ordered=ordered,
            raw=raw,
            fps=fps,
            notes=left_behind,
        )


def _why_nothing(index: PacketIndex) -> str:
    if not len(index):
        return "holds no picture; check that it plays"
    hidden = f"its edit list hides all of its {len(index)} pictures"
    return f"{hidden}; to be rid of it: ffmpeg -ignore_editlist 1 -i FILE -map 0 -c copy NEW"


def _describe(
    source: Source,
    *,
    container: str,
    stream: VideoStream,
    frame: av.VideoFrame,
    index: PacketIndex,
    ordered: bool,
    raw: bool,
    fps: Fraction | None,
    notes: Sequence[str],
) -> StreamInfo:
    context = stream.codec_context
    layout = pixel_layout(frame.format.name)
    order, order_warnings = _fields(context, frame, index)
    unusable = unusable_streams(source, list(stream.container.streams))
    degrees, mirrored, display_warnings = orientation(frame)
    warnings = [*_rivals(source, stream, unusable), *notes, *index.warnings, *color_warnings(context, frame)]
    warnings += [*order_warnings, *display_warnings, *left_out(frame, stream), *_changes(source, index.shapes)]
    warnings += [*_not_followed(source, container), *unusable.values()]
    told = ordered and not raw and bool((index.shown & (index.pts != NO_PTS)).any())
    times = index.dts if container == "avi" else index.pts
    by_decoder = not told and not raw and bool((index.shown & (times != NO_PTS)).any())
    timing = _timing(stream, index, fps, told=told, by_decoder=by_decoder)
    if timing.timelines:
        over = len(timing.timelines) - 1
        warnings.append(f"its timestamps start over ({over}×); pictures go on from the ones before")
    warnings += cut_short(stream, timing.end_pts * timing.time_base)
    if layout.convert:
        warnings.append(f"pixel format {frame.format.name} is read as {layout.convert}")
    return StreamInfo(
        source=source,
        container=container,
        index=stream.index,
        codec=context.codec.canonical_name,
        width=frame.width,
        height=frame.height,
        pix_fmt=frame.format.name,
        bit_depth=layout.bit_depth,
        subsampling=layout.subsampling,
        time_base=timing.time_base,
        fps=timing.fps,
        vfr=timing.vfr,
        frames=int(index.shown.sum()),
        start_pts=timing.start_pts,
        end_pts=timing.end_pts,
        color=color_tags(context, frame, layout),
        timestamps=told,
        decoding_times=by_decoder,
        sar=stream.sample_aspect_ratio or Fraction(1),
        rotation=degrees,
        mirrored=mirrored,
        field_order=order,
        mixed_fields=0 < sum(index.fields) < index.shown.sum(),
        field_packets=index.field_packets,
        timelines=timing.timelines,
        silent=tuple(unusable),
        warnings=tuple(warnings),
    )


def _fields(context: VideoCodecContext, frame: av.VideoFrame, index: PacketIndex) -> tuple[FieldOrder, list[str]]:
    """As `field_order`; where the first picture is progressive, by what most of the interlaced ones say."""
    top, bottom = index.fields
    order, warnings = field_order(context, frame)
    if not frame.interlaced_frame and top + bottom:
        order = "tff" if top >= bottom else "bff"
        warnings = [f"{top + bottom} of its pictures are interlaced, and all are treated so"]
    if other := {"tff": bottom, "bff": top}.get(order, 0):
        warnings.append(
            f"{other} of its pictures have the other order of fields; they are marked as the rest ({order})"
        )
    return order, warnings


def _timing(stream: VideoStream, index: PacketIndex, fps: Fraction | None, *, told: bool, by_decoder: bool) -> Timing:
    if told:
        return stream_timing(stream, index)
    return decoder_timing(stream, index) if by_decoder else counted_timing(stream, index, fps)


def _changes(source: Source, shapes: Sequence[Shape]) -> Iterator[str]:
    """What changes in mid-stream and cannot be kept; raises InputError for what cannot be in one reel."""
    for one, other in pairwise(shapes):
        where = f"after {other.after} pictures"
        if not one.fits(other):
            raise changed(source, str(one), str(other), where)
        if one.sar != other.sar:
            ratios = (f"{sar.numerator}:{sar.denominator}" for sar in (one.sar, other.sar))
            yield f"its pixels change from {' to '.join(ratios)} {where}; the output's stay as they were"
        if one.full_range != other.full_range:
            ranges = "full to limited" if one.full_range else "limited to full"
            yield f"luma changes from {ranges} range {where}; it is kept as it is, and marked as before"


def _not_followed(source: Source, container: str) -> list[str]:
    """What the file asks of players that is not done, and that FFmpeg does not tell."""
    if "matroska" in container:
        with open_input(source.url) as file:
            return not_followed(file)
    if "mov" in container.split(","):
        with open_input(source.url) as file:
            return [CROPPED] if crops(file) else []
    return []


def _rivals(source: Source, main: VideoStream, silent: Container[int]) -> list[str]:
    """That there are other films in the file, which stay as they are; raises InputError where one cannot."""
    rivals = rival_streams(cast("InputContainer", main.container), main)
    if not rivals:
        return []
    for rival in rivals:
        if rival.codec_context and not rival.width and rival.index not in silent:  # FFmpeg knows it from the file's end
            raise in_parts(source, _codec_name(rival))
    return [
        f"of its {len(rivals) + 1} video streams only {_film(main)} is coloured, the one that players show; "
        f"copied as it is: {', '.join(map(_film, rivals))}; "
        f"to colour that, take it out: ffmpeg -i FILE -map 0:{rivals[0].index} -c copy NEW"
    ]


def _film(stream: VideoStream) -> str:
    """A video stream in words: "0 (h264, 320×180)"."""
    size = f", {stream.width}×{stream.height}" if stream.codec_context else ""
    return f"{stream.index} ({_codec_name(stream)}{size})"


def _first_pictures(
    container: InputContainer, stream: VideoStream, source: Source, index: PacketIndex
) -> tuple[av.VideoFrame, bool]:
    """The first picture, and whether pictures come out with their own timestamps in order.

    AVI stores no presentation order. With B-frames in H.264, HEVC and packed MPEG-4, FFmpeg does not see through it,
    nor where such a film was put into another container as it was, so that pictures are shown when they are decoded.
    """
    stream.codec_context.thread_count = 1
    pictures = _decoded(container, stream, source)
    first = next(pictures, None)
    if first is None:
        raise InputError(
            f"{source.url}: none of its {stream.codec_context.name} pictures can be decoded; check it plays"
        )
    rising = stream.codec_context.reorder_depth > 0 and bool((np.diff(index.pts[index.shown]) > 0).all())
    if stream.codec_context.codec.intra_only or not (container.format.name == "avi" or rising):
        return first, True
    pts = [first.pts, *(picture.pts for picture in islice(pictures, _LOOKED_AT))]
    told = [p for p in pts if p is not None]
    return first, told == sorted(told)


def _decoded(container: InputContainer, stream: VideoStream, source: Source) -> Iterator[av.VideoFrame]:
    """Pictures from the file's beginning, past damage."""
    for packet in chain(read_packets(container, stream, source, DecodeReport()), [None]):
        try:
            yield from stream.codec_context.decode(packet)
        except FFmpegError:
            continue


def other_streams(source: Source) -> tuple[OtherStream, ...]:
    """All streams but the one that is coloured, in file order."""
    with open_whole(source) as container:
        main = main_stream(container, source)
        return tuple(
            OtherStream(
                index=stream.index,
                type=stream.type,
                codec=_codec_name(stream),
                language=stream.metadata.get("language", ""),
                title=stream.metadata.get("title") or stream.metadata.get("filename", ""),
                attached_picture=bool(stream.disposition & Disposition.attached_pic),
            )
            for stream in container.streams
            if stream.index != main.index
        )


def _codec_name(stream: Any) -> str:
    if stream.type == "attachment":
        return stream.mimetype or "unknown"
    context = stream.codec_context  # None without a decoder
    return (context.codec.canonical_name if context else getattr(stream, "name", None)) or "unknown"


def chapters(source: Source) -> tuple[Chapter, ...]:
    """Chapter marks in file order."""
    with open_media(source) as container:
        return tuple(
            Chapter(
                start=float(mark["start"] * (mark["time_base"] or 0)),
                end=float(mark["end"] * (mark["time_base"] or 0)),
                title=mark["metadata"].get("title", ""),
            )
            for mark in container.chapters()
        )
