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
from pipeline.demux import DecodeReport, read_packets
from pipeline.errors import InputError
from pipeline.frames import Plane, Source, StreamInfo
from pipeline.planes import pixel_layout
from pipeline.timing import packet_time

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_SPACING = Fraction(4)  # seconds


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
        # A time is given the keyframe before it or, where seeking lands behind that, one less than a step after it.
        first, last = pts - self._reach - self._step, pts + self._reach + self._step
        start = self._info.start_pts
        self._following = max(self._following, math.ceil((first - start) / self._step))
        while self._usable and (time := start + self._following * self._step) < min(last, self._info.end_pts):
            self._following += 1
            found = self._read(time, pts - self._reach)
            self._near.extend([found] if found else [])
        while self._near and self._near[0].pts < pts - self._reach:
            self._near.popleft()
        return tuple(each for each in self._near if each.pts <= pts + self._reach)

    def _read(self, time: int, oldest: int) -> Keyframe | None:
        """The keyframe near a time, unless it was the last one, too, or is too old or damaged."""
        container, stream, decoder = self._opened = self._opened or open_stream(self._source, self._stack)
        packets = self._from_keyframe(container, stream, time)
        if packets is None:
            return None
        packet, rest = packets
        pts = packet_time(packet, self._info)
        if pts is None or pts < oldest or pts == self._last:
            return None
        self._last = pts
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

    def _from_keyframe(
        self, container: InputContainer, stream: VideoStream, time: int
    ) -> tuple[av.Packet[VideoStream], Iterator[av.Packet[VideoStream]]] | None:
        """The first keyframe's packet that seeking to a time gives, and those after it."""
        try:
            container.seek(time, stream=stream)
        except FFmpegError:
            return None
        packets = read_packets(container, stream, self._source, DecodeReport())
        for packet in packets:
            shown = packet_time(packet, self._info)
            if shown is not None and shown >= time + self._step:
                return None
            if packet.is_keyframe:
                return packet, packets
        return None
