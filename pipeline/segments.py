"""Cutting a reel into segments by its packets alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from pipeline.access import seek_keyframe
from pipeline.demux import NO_PTS, DecodeReport, main_stream, open_media, read_only
from pipeline.frames import Segment, Source, StreamInfo
from pipeline.h264 import recovery_lag
from pipeline.packet_index import PacketIndex, packet_index
from pipeline.planes import pixel_layout
from pipeline.timing import MOST_REORDERED, one_timeline, packet_times

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_COMPARED = 64  # packets that a trial seek must give exactly as reading the file through gives them
_FAILURES = 16  # trials in a row after which a file is taken to be unseekable
_NEVER = int(np.iinfo(np.int64).max)


def cut_segments(source: Source, info: StreamInfo, target_seconds: float, warmup_frames: int) -> tuple[Segment, ...]:
    """Segments of about `target_seconds` that partition the reel's timeline: a function of file and arguments alone.

    A segment starts `warmup_frames` pictures after a keyframe, its `seek`, so that decoding from there gives just the
    warm-up and then the segment. Each of these keyframes has been sought, and gave the packets that reading the file
    through gives. Where that fails, and where timestamps are missing or disturbed, segments grow together, in the worst
    case to one for the whole reel.
    """
    index = packet_index(source)
    # A palette comes with the packet in which it changes, keyframe or not: decoding must begin at the beginning.
    timed = (info.timestamps or info.decoding_times) and pixel_layout(info.pix_fmt).kind != "palette"
    cuts = list(_cuts(source, info, index, target_seconds, warmup_frames)) if timed else []
    starts = [None, *(cut.start for cut in cuts)]
    ends = [*starts[1:], None]
    ranks = [0, *(cut.rank for cut in cuts), int(index.shown.sum())]
    seeks = [None, *(cut.seek for cut in cuts)]
    return tuple(Segment(i, starts[i], ends[i], seeks[i], ranks[i + 1] - ranks[i]) for i in range(len(starts)))


@dataclass(frozen=True)
class _Cut:
    """A segment border: before the picture at `start`, the `rank`-th shown one, reached from the keyframe `seek`."""

    start: int
    rank: int
    seek: int


def _cuts(
    source: Source, info: StreamInfo, index: PacketIndex, target_seconds: float, warmup_frames: int
) -> Iterator[_Cut]:
    """Borders near the target length, each with its keyframe tried."""
    timeline = _Timeline(index, info)
    if info.decoding_times:  # the keyframe's picture comes out some time after its packet
        warmup_frames += MOST_REORDERED
    entries, starts = timeline.borders(timeline.entries, timeline.entries, warmup_frames)
    target = max(1, round(Fraction(target_seconds) / info.time_base))
    last, n, failures = info.start_pts, 0, 0
    with open_media(source) as container:
        stream = main_stream(container, source)
        read_only(container, stream)
        while failures < _FAILURES:
            n = max(n, int(np.searchsorted(starts, last + target * 3 // 4)))
            if n >= len(starts) or info.end_pts - starts[n] < target // 2:
                return
            entry = int(entries[n])
            packets = seek_keyframe(container, stream, info, timeline.time(entry), DecodeReport())
            cut = timeline.cut(entry, warmup_frames, _lag(stream, index, entry, packets))
            if cut and cut.start > last:
                yield cut
                last, failures = cut.start, 0
            else:
                failures += 1
                n = max(n + 1, int(np.searchsorted(starts, starts[n] + target // 4)))


def _lag(
    stream: VideoStream, index: PacketIndex, entry: int, packets: Iterator[av.Packet[VideoStream]] | None
) -> int | None:
    """Frames until decoding that begins with these `packets` is exact; None if they are not those from `entry` on."""
    found = list(islice(packets, _COMPARED)) if packets else []
    expected = slice(entry, entry + _COMPARED)
    same = (
        [NO_PTS if p.pts is None else p.pts for p in found] == index.pts[expected].tolist()
        and [p.size for p in found] == index.size[expected].tolist()
        and [p.is_keyframe for p in found] == index.keyframe[expected].tolist()
    )
    context = stream.codec_context
    if not same or (index.keyframe.all() and not _decodes_as_key(stream, found[0])):
        return None
    # The keyframes of other codecs stand alone but for leading pictures, which decoders drop.
    h264 = context.codec.canonical_name == "h264"
    return recovery_lag(context.extradata, bytes(found[0])) if h264 else 0


def _decodes_as_key(stream: VideoStream, packet: av.Packet[VideoStream]) -> bool:
    """What the decoder says of a packet, for files that flag every packet as a keyframe: rightly (FFV1), or not."""
    context = stream.codec_context
    context.flush_buffers()
    try:
        return any(frame.key_frame for frame in (*context.decode(packet), *context.decode(None)))
    except FFmpegError:
        return False
    finally:
        context.flush_buffers()


class _Timeline:
    """What the packets' timestamps say of where a reel can be cut.

    `entries` are the positions of keyframes that all earlier pictures lie before, on a timeline that has not jumped
    back. A picture is disturbed if its timestamp is missing or doubled.
    """

    def __init__(self, index: PacketIndex, info: StreamInfo) -> None:
        self.index = index
        self._told = packet_times(index, info)
        timed = index.shown & (self._told != NO_PTS)
        self._pts = self._told.copy()
        self._pts[timed] = one_timeline(index, info, timed)
        positions = np.flatnonzero(timed)
        self._order = positions[np.argsort(self._pts[timed], kind="stable")]  # of the packets, as they are shown
        self._shown = self._pts[self._order]
        self._keys = np.flatnonzero(index.keyframe)
        self._least_after = np.append(np.minimum.accumulate(np.where(timed, self._pts, _NEVER)[::-1])[::-1], _NEVER)
        doubled = np.isin(self._pts, self._shown[1:][np.diff(self._shown) == 0])
        self._disturbed_before = np.append(0, np.cumsum(index.shown & (doubled | ~timed)))
        unmoved = self._pts == self._told
        times, counts = np.unique(self._told[index.keyframe], return_counts=True)
        findable = np.isin(self._told, times[counts == 1])  # two of one time, and a seek could reach either
        self.entries = np.flatnonzero(index.keyframe & timed & unmoved & findable & self._settled(timed))

    def time(self, position: int) -> int:
        """What the packet at `position` is sought by."""
        return int(self._told[position])

    def _settled(self, timed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether every picture of earlier packets is shown before a packet's picture, whatever had to be retimed."""
        greatest_before = np.append(NO_PTS, np.maximum.accumulate(np.where(timed, self._pts, NO_PTS))[:-1])
        # A doubled timestamp is raised to one above the picture's before it, which may push those that follow.
        ranks = np.arange(len(self._shown))
        raised = np.append(NO_PTS, np.maximum.accumulate(self._shown - ranks) + ranks)
        raised_before = raised[np.searchsorted(self._shown, self._pts)]
        return (greatest_before < self._pts) & (raised_before < self._pts)

    def cut(self, entry: int, warmup_frames: int, lag: int | None) -> _Cut | None:
        """The border reached from the keyframe at `entry`, whose pictures are exact after `lag` frames."""
        exact = entry if lag == 0 else self._next_key(entry)
        if lag is None or self.index.shown[entry:exact].sum() < lag or exact == len(self.index):
            return None
        _, starts = self.borders(np.array([entry]), np.array([exact]), warmup_frames)
        if not len(starts):
            return None
        return _Cut(int(starts[0]), int(np.searchsorted(self._shown, starts[0])), self.time(entry))

    def _next_key(self, position: int) -> int:
        """Position of the first keyframe after `position`, the number of packets where there is none."""
        return int(np.append(self._keys, len(self.index))[np.searchsorted(self._keys, position, side="right")])

    def borders(
        self, entries: NDArray[np.intp], exact: NDArray[np.intp], warmup_frames: int
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The `entries` that give a border, and its pts: `warmup_frames` pictures after the packet at `exact`.

        All pictures before a border must be coded before the keyframe that follows it, and none from the entry to
        that keyframe be disturbed.
        """
        ranks = np.searchsorted(self._shown, self._pts[exact]) + warmup_frames
        inside = ranks < len(self._shown)
        entries, exact, ranks = entries[inside], exact[inside], ranks[inside]
        starts = self._shown[ranks]
        at = np.maximum(exact, self._order[ranks])
        after = np.append(self._keys, len(self.index))[np.searchsorted(self._keys, at, side="right")]
        sound = (self._least_after[after] > starts) & (self._disturbed_before[after] == self._disturbed_before[entries])
        return entries[sound], starts[sound]
