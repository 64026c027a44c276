"""Single pictures from far apart: the keyframes near evenly spaced times, each decoded by itself."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from types import TracebackType
from typing import TYPE_CHECKING, Self

from av.error import FFmpegError

from pipeline.decode import open_stream, read_picture
from pipeline.demux import DecodeReport, is_storages, read_packets
from pipeline.errors import InputError, StorageError
from pipeline.ffv1 import damage_finder
from pipeline.frames import Plane, Source, StreamInfo
from pipeline.planes import pixel_layout
from pipeline.timing import packet_time

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_SPACING = Fraction(4)  # seconds
# How far behind a time its keyframe may lie. Seeking by decoding time lands behind one that is shown at that time, and
# the next may be a spacing and a little further on.
_BEHIND = Fraction(5)  # seconds
_STRIDE = 4  # how many times as far each further look goes


@dataclass(frozen=True)
class Keyframe:
    """A picture and when it is shown; luma (H, W), as the decoder made it."""

    pts: int
    luma: Plane


class Keyframes:
    """The keyframes of a reel round a moment that moves on; a context manager.

    Which ones there are round a moment depends on the file alone, not on where reading began. There are none where
    packets do not tell when they are shown, or start over, or need those before them for their colours.
    """

    def __init__(self, source: Source, info: StreamInfo, reach: Fraction) -> None:
        """reach: seconds to both sides of the moment."""
        self._source, self._info = source, info
        self._step = max(1, round(_SPACING / info.time_base))
        self._behind = max(self._step, round(_BEHIND / info.time_base))
        self._reach = round(reach / info.time_base)
        timed = (info.timestamps or info.decoding_times) and not info.timelines
        self._usable = timed and pixel_layout(info.pix_fmt).kind != "palette"
        self._stack = contextlib.ExitStack()
        self._opened: tuple[InputContainer, VideoStream, VideoCodecContext] | None = None
        self._following = 0  # of the evenly spaced times, counted from the reel's start
        self._last: int | None = None  # pts of the keyframe that was reached last
        self._near: deque[Keyframe] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def near(self, pts: int) -> tuple[Keyframe, ...]:
        """Those within reach of a moment, in order; moments never go back. Raises StorageError where reading fails."""
        # A time is given the keyframe before it or, where seeking lands behind that, one a little after it.
        first, last = pts - self._reach - self._behind, pts + self._reach + self._step
        self._following = max(self._following, math.ceil((first - self._info.start_pts) / self._step))
        while self._usable and self._time(self._following) < min(last, self._info.end_pts):
            found = self._read(pts - self._reach)
            self._near.extend([found] if found else [])
        while self._near and self._near[0].pts < pts - self._reach:
            self._near.popleft()
        return tuple(each for each in self._near if each.pts <= pts + self._reach)

    def _time(self, number: int) -> int:
        """The evenly spaced time of a number, in pts."""
        return self._info.start_pts + number * self._step

    def _read(self, oldest: int) -> Keyframe | None:
        """The keyframe near the following time, unless it was the last one, too, or is too old or damaged."""
        time = self._time(self._following)
        self._following += 1
        packets = self._from_keyframe(time)
        if packets is None:
            return None
        packet, rest = packets
        pts = packet_time(packet, self._info)
        if pts is not None and pts < time - self._reach:
            self._pass_over(pts)
        if pts is None or pts < max(oldest, time - self._reach) or pts == self._last:
            return None
        self._last = pts
        _, stream, decoder = self._open()
        if damage_finder(stream.codec_context)(packet):
            return None
        decoder.flush_buffers()
        try:
            further = islice(rest, int(self._info.field_packets))
            frames = [frame for each in chain([packet], further, [None]) for frame in decoder.decode(each)]
            if not frames or frames[0].is_corrupt or not frames[0].key_frame:
                return None
            return Keyframe(pts, read_picture(frames[0], pts, self._source, self._info, DecodeReport()).luma)
        except (FFmpegError, InputError):  # another size of picture, too
            return None
        finally:
            decoder.flush_buffers()

    def _pass_over(self, old: int) -> None:
        """Go on to the first time whose keyframe is not this old one any more, found in few steps.

        Beyond the last keyframe some demuxers read all that follows, at every seek.
        """
        last = math.ceil((self._info.end_pts - self._info.start_pts) / self._step) - 1
        stride, growing = 1, True
        while stride:
            ahead = min(self._following - 1 + stride, last)
            packets = self._from_keyframe(self._time(ahead)) if ahead >= self._following else None
            if packets and packet_time(packets[0], self._info) == old:
                self._following = ahead + 1
                stride *= _STRIDE if growing else 1
            else:
                stride, growing = stride // _STRIDE, False

    def _open(self) -> tuple[InputContainer, VideoStream, VideoCodecContext]:
        self._opened = self._opened or open_stream(self._source, self._stack)
        return self._opened

    def _from_keyframe(self, time: int) -> tuple[av.Packet[VideoStream], Iterator[av.Packet[VideoStream]]] | None:
        """The first keyframe's packet that seeking to a time gives, and those after it."""
        container, stream, _ = self._open()
        try:
            container.seek(time, stream=stream)
        except FFmpegError as e:
            if is_storages(e):
                raise StorageError(f"{self._source.url}: reading failed: {e.strerror or e}") from e
            return None
        packets = read_packets(container, stream, self._source, DecodeReport())
        for packet in packets:
            shown = packet_time(packet, self._info)
            if shown is not None and shown > time + self._behind:
                return None
            if packet.is_keyframe:
                return packet, packets
        return None
