"""From a segment of a file to batches of luma and chroma planes, as the decoder made them."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.error import FFmpegError

from pipeline.access import seek_keyframe, skip_to_keyframe
from pipeline.demux import DecodeReport, main_stream, open_media, read_only, read_packets
from pipeline.errors import InputError, ReelcolorError
from pipeline.ffv1 import damage_finder
from pipeline.frames import FrameBatch, Plane, Segment, Source, StreamInfo
from pipeline.gpu import FORMATS, Hwaccel, accelerator, decoder_of, no_decoder, no_nvdec
from pipeline.planes import pixel_layout, read_planes
from pipeline.shapes import changed
from pipeline.tags import side_data
from pipeline.timing import Course, ahead_ticks, frame_ticks, jump_ticks, least_ticks, packet_time

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

__all__ = ["DecodeReport", "decode_frames", "decode_segment", "open_stream", "read_picture"]

# Slice threads, and a constant number of them: with frame threads, damaged pictures come out otherwise each time. With
# several, FFmpeg's H.264 decoder patches no damaged picture, and keeps quiet of many (h264dec.c, enable_er); its VP8
# decoder and dav1d give up pictures, and those that build on them, that they would patch or not even use; two slices of
# a damaged MPEG-2 picture may write to the same place.
_THREAD_TYPE, _THREADS = "SLICE", 2
_ONE_THREAD = ("av1", "h264", "mpeg1video", "mpeg2video", "vp8")
_BATCH_PICTURES = 16
_BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class _Picture:
    luma: Plane
    chroma: tuple[Plane, Plane] | None
    pts: int
    duration: int
    progressive: bool


def decode_segment(
    source: Source,
    info: StreamInfo,
    segment: Segment,
    warmup_frames: int,
    report: DecodeReport | None = None,
    gpu: bool = False,
) -> Generator[FrameBatch, None, None]:
    """The segment's pictures in presentation order, led by the `warmup_frames` before it (fewer at the reel's start).

    Timestamps are the stream's own, or counted where `info.timestamps` is false; they strictly rise: a missing, doubled
    or backward one is put after its predecessor. Damage is skipped or patched, and counted in `report`. gpu: decode by
    NVDEC, which gives the same; where it does not go on software does, which the report tells. Raises InputError where
    the picture's size or format changes or nothing decodes, StorageError where reading fails.
    """
    report = report if report is not None else DecodeReport()
    most = _batch_pictures(info)
    pictures: list[_Picture] = []
    warmup = decoded = 0
    for picture, inside in _segment_pictures(source, info, segment, warmup_frames, report, gpu):
        pictures.append(picture)
        decoded += inside
        warmup += not inside
        if len(pictures) == most:
            yield _batch(pictures, warmup)
            pictures, warmup = [], 0
    if pictures:
        yield _batch(pictures, warmup)
    if decoded < segment.frames:
        report.notes.append(f"{segment.frames - decoded} of {segment.frames} packets gave no picture")
    if not decoded and segment.start is None and segment.end is None:
        raise InputError(f"{source.url}: none of its pictures can be decoded; check that it plays")


def decode_frames(
    source: Source, info: StreamInfo, report: DecodeReport | None = None
) -> Generator[FrameBatch, None, None]:
    """The whole stream from beginning to end, as one segment."""
    return decode_segment(source, info, Segment(0, None, None, frames=info.frames), 0, report)


def choose_decoder(source: Source, info: StreamInfo, hwaccel: Hwaccel) -> tuple[bool, tuple[str, ...]]:
    """Whether to decode a stream by NVDEC, found by trying, and what is to be said of it.

    Formats that NVDEC is not for are decoded in software; that it is not here at all is not said of each stream.
    """
    if hwaccel == "none" or no_nvdec():
        return False, ()
    why = nvdec_failure(source, info)
    return why is None, (f"decoded in software: {why}",) if why else ()


def nvdec_failure(source: Source, info: StreamInfo) -> str | None:
    """Why NVDEC does not decode a stream as software does, by trying its first pictures; None where it does."""
    if why := no_decoder(info):
        return why
    report = DecodeReport()
    start = Segment(0, None, None)
    expected = next(decode_segment(source, info, start, 0), None)
    found = next(decode_segment(source, info, start, 0, report, gpu=True), None)
    if report.fell_back or expected is None or found is None:
        return report.fell_back or "none of its pictures can be decoded"
    planes = zip((expected.luma, *(expected.chroma or ())), (found.luma, *(found.chroma or ())), strict=True)
    return None if all(np.array_equal(one, other) for one, other in planes) else "NVDEC decodes it otherwise"


def _segment_pictures(
    source: Source, info: StreamInfo, segment: Segment, warmup_frames: int, report: DecodeReport, gpu: bool
) -> Iterator[tuple[_Picture, bool]]:
    """(picture, whether it is inside the segment): the warm-up, then the segment."""
    clock = _Clock(info)
    leading: deque[tuple[av.VideoFrame, int]] = deque(maxlen=warmup_frames)
    damage, spoilt = 0, False
    for frame, told, patched in _frames(source, info, segment.seek, report, gpu):
        pts = clock.time(told)
        if segment.start is not None and pts < segment.start:
            leading.append((frame, pts))
            continue
        if not segment.holds(pts):
            return
        while leading:
            yield read_picture(*leading.popleft(), source, info, DecodeReport()), False
        report.concealed += patched
        spoilt = report.damage > damage or (spoilt and not frame.key_frame)
        damage = report.damage
        if spoilt:
            report.spoilt.append(pts)
        report.retimed += clock.retimed
        report.woven += frame.interlaced_frame and not info.interlaced
        report.captions += side_data(frame, "A53_CC") is not None
        yield read_picture(frame, pts, source, info, report), True


def _frames(
    source: Source, info: StreamInfo, seek: int | None, report: DecodeReport, gpu: bool
) -> Iterator[tuple[av.VideoFrame, int | None, bool]]:
    """Decoded frames, the times told of them, and whether they are damaged; from the keyframe at `seek` on, or from the
    beginning (None).

    At the first sign of trouble with the GPU the software decoder takes over, past the frames that are given already.
    """
    given = 0
    if gpu:
        attempt = DecodeReport()
        try:
            for decoded in _decoded(source, info, seek, attempt, gpu=True):
                yield decoded
                given += 1
        except _GpuError as e:
            report.fell_back = str(e)
        else:
            report.unreadable += attempt.unreadable
            report.notes += attempt.notes
            return
    yield from islice(_decoded(source, info, seek, report, gpu=False), given, None)


class _GpuError(Exception):
    """NVDEC does not decode what it was given."""


def _decoded(
    source: Source, info: StreamInfo, seek: int | None, report: DecodeReport, gpu: bool
) -> Iterator[tuple[av.VideoFrame, int | None, bool]]:
    with contextlib.ExitStack() as stack:
        container, stream, decoder = open_stream(source, stack, gpu)
        packets = None if seek is None else seek_keyframe(container, stream, info, seek, report)
        if packets is None and seek is not None:
            container, stream, decoder = open_stream(source, stack, gpu)
            packets = skip_to_keyframe(read_packets(container, stream, source, report), info, seek)
            if packets is None:
                raise InputError(f"{source.url}: its keyframe at pts {seek} is gone; the file changed, plan it again")
        is_damaged = damage_finder(stream.codec_context)
        waiting: deque[int | None] = deque(maxlen=stream.codec_context.reorder_depth + 1)  # packets' times
        for packet in chain(packets or read_packets(container, stream, source, report), [None]):
            waiting.extend([packet_time(packet, info)] if packet else [])
            damaged = packet is not None and is_damaged(packet)
            try:
                for frame in decoder.decode(packet):
                    if gpu and (frame.is_corrupt or frame.format.name != FORMATS[info.pix_fmt]):
                        raise _GpuError(f"NVDEC gave {'a damaged picture' if frame.is_corrupt else frame.format.name}")
                    decoded_at = waiting.popleft() if waiting else None
                    told = decoded_at if info.decoding_times else frame.pts if info.timestamps else None
                    yield frame, told, damaged or frame.is_corrupt
            except FFmpegError as e:
                if gpu:
                    raise _GpuError(f"NVDEC failed ({e.strerror or e})") from e
                report.undecodable += 1


def open_stream(
    source: Source, stack: contextlib.ExitStack, gpu: bool = False
) -> tuple[InputContainer, VideoStream, VideoCodecContext]:
    """The file, its main stream and the decoder; the file is closed with `stack`."""
    try:
        if gpu and (why := no_nvdec()):
            raise _GpuError(why)
        container = stack.enter_context(open_media(source, accelerator() if gpu else None))
        stream = main_stream(container, source)
        decoder = decoder_of(stream) if gpu else stream.codec_context
    except (FFmpegError, ReelcolorError) as e:
        raise (_GpuError(f"NVDEC cannot be opened ({e})") if gpu else e) from e
    read_only(container, stream)
    decoder.thread_type = _THREAD_TYPE
    decoder.thread_count = 1 if stream.codec_context.codec.canonical_name in _ONE_THREAD else _THREADS
    return container, stream, decoder


class _Clock:
    """Gives each decoded frame its time, later than the frame's before it."""

    def __init__(self, info: StreamInfo) -> None:
        self._info = info
        self._last: int | None = None
        self._step, self._least = frame_ticks(info.fps, info.time_base), least_ticks(info.fps, info.time_base)
        self._jump = jump_ticks(info.fps, info.time_base)
        self._ahead = ahead_ticks(info.container, info.time_base)
        self._course = Course(info.timelines, info.container)
        self._moved = False
        self.retimed = False  # whether the last was none that its frame told

    def time(self, told: int | None) -> int:
        """pts of the next frame in presentation order; `told`: its own, None where it has none."""
        if self._last is None:
            self._last = self._info.start_pts if told is None else told
            return self._last
        following = self._last + self._step
        pts = following if told is None else self._continued(told, following)
        late = pts < self._last + (self._least if self._moved else 1)
        self.retimed = late or (told is None and self._info.timestamps)
        self._last, self._moved = (self._last + self._least if late else pts), late
        return self._last

    def _continued(self, told: int, following: int) -> int:
        """A frame's own time, or in another timeline as far into that as the packets say."""
        unit, last = self._info.time_base, following - self._step
        due = told + int(self._course.offset / unit)
        jumped = due < last - self._jump or due - last > self._ahead
        return int(self._course.moved(told * unit, jumped, following * unit) / unit)


def read_picture(frame: av.VideoFrame, pts: int, source: Source, info: StreamInfo, report: DecodeReport) -> _Picture:
    """A decoded frame's planes. Raises InputError where its size or format is not the stream's."""
    layout = pixel_layout(frame.format.name)
    expected = layout if frame.format.name == FORMATS.get(info.pix_fmt) else pixel_layout(info.pix_fmt)
    if (frame.width, frame.height) != (info.width, info.height) or layout != expected:
        was = f"{info.width}×{info.height} {info.pix_fmt}"
        raise changed(source, was, f"{frame.width}×{frame.height} {frame.format.name}", f"at pts {pts}")
    luma, chroma = read_planes(frame, layout, info.color.matrix)
    if info.codec == "rawvideo" and 8 < info.bit_depth < 16:
        report.beyond += _clip(luma, *(chroma or ()), most=(1 << info.bit_depth) - 1)
    told = 0 if info.field_packets else int(frame.duration or 0)  # that would be the first field's
    duration = told if info.timestamps else int(not info.decoding_times)
    return _Picture(luma, chroma, pts, duration, info.mixed_fields and not frame.interlaced_frame)


def _clip(*planes: Plane, most: int) -> bool:
    """Bring samples that are no codes of this depth to the greatest, in place; whether there are any.

    Raw video may hold such, as where it is cut off or was labelled with too small a depth.
    """
    beyond = any(int(plane.max()) > most for plane in planes)
    for plane in planes if beyond else ():
        np.minimum(plane, most, out=plane)
    return beyond


def _batch_pictures(info: StreamInfo) -> int:
    """Pictures a batch: at most 16, and about 64 MB."""
    horizontal, vertical = info.subsampling or (0, 0)
    chroma = 2 / (1 << horizontal + vertical) if info.subsampling is not None else 0
    size = info.width * info.height * (1 + chroma) * (1 if info.bit_depth <= 8 else 2)
    return int(max(1, min(_BATCH_PICTURES, _BATCH_BYTES // size)))


def _batch(pictures: list[_Picture], warmup: int) -> FrameBatch:
    chroma = [p.chroma for p in pictures if p.chroma is not None]
    return FrameBatch(
        luma=_stack([p.luma for p in pictures]),
        pts=np.array([p.pts for p in pictures], np.int64),
        duration=np.array([p.duration for p in pictures], np.int64),
        chroma=(_stack([cb for cb, _ in chroma]), _stack([cr for _, cr in chroma])) if chroma else None,
        progressive=np.array([p.progressive for p in pictures], np.bool_),
        warmup=warmup,
    )


def _stack(planes: list[Plane]) -> Plane:
    return cast(Plane, np.stack(planes))
