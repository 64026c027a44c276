"""When pictures are shown: rate, extent and continuity, from the packets' timestamps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.demux import NO_PTS
from pipeline.frames import StreamInfo, Timeline
from pipeline.packet_index import PacketIndex

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

NO_LIMIT = int(np.iinfo(np.int64).max)
_MILLISECOND = Fraction(1, 1000)
DEFAULT_FPS = Fraction(25)  # FFmpeg's own for raw streams
MOST_REORDERED = 20  # frames; no codec puts a picture further than 16 from its place in decoding order
_CLOCKED = ("mpegts", "mpeg")  # whose clock of 33 bits at 90 kHz starts over after 26.5 hours (ISO 13818-1, 2.4.3.7)
_CLOCK = Fraction(1 << 33, 90000)  # seconds; more than half ahead is rather behind, with the new round FFmpeg adds
_JITTER_SECONDS = 0.0006  # deviation from an even grid that rounding to milliseconds explains
_JITTER_TICKS = 0.6  # and rounding to the time base
_FEW_UNTOLD = 1.1  # pictures for each with a time of its own; their rate is then measured by the latter alone
_NEARLY = 0.2  # relative difference of the rate that is measured so from the one that headers claim
_NEAR, _SAME = 2e-3, 1e-4  # relative difference of rates; 24 and 24000/1001 differ by 1e-3
_COMMON_RATES = (
    *(Fraction(n) for n in (*range(1, 31), 48, 50, 60, 72, 75, 90, 96, 100, 120, 144, 200, 240)),
    *(Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120)),
)


@dataclass(frozen=True)
class Timing:
    """Rate and extent of a stream, and its timelines, as in StreamInfo."""

    time_base: Fraction
    fps: Fraction
    vfr: bool
    start_pts: int
    end_pts: int
    timelines: tuple[Timeline, ...] = ()


def frame_ticks(fps: Fraction, time_base: Fraction) -> int:
    """Duration of one picture in ticks, at least one."""
    return max(1, round(1 / (fps * time_base)))


def least_ticks(fps: Fraction, time_base: Fraction) -> int:
    """How far apart pictures are put whose timestamps do not part them: a millisecond, as Matroska has, or a tick."""
    return min(frame_ticks(fps, time_base), max(1, math.ceil(_MILLISECOND / time_base)))


def _by_dts(info: StreamInfo) -> bool:
    """Whether packets tell no more than when they are decoded, as in AVI."""
    return info.decoding_times and info.container == "avi"


def packet_times(index: PacketIndex, info: StreamInfo) -> NDArray[np.int64]:
    """What packets are known and sought by: pts, or dts where these time the pictures."""
    return index.dts if _by_dts(info) else index.pts


def packet_time(packet: av.Packet[VideoStream], info: StreamInfo) -> int | None:
    """As `packet_times`, of one packet."""
    return packet.dts if _by_dts(info) else packet.pts


def counted_timing(stream: VideoStream, index: PacketIndex, fps: Fraction | None) -> Timing:
    """Pictures counted, where the file does not time them."""
    rate = fps or stream.guessed_rate or DEFAULT_FPS
    return Timing(1 / rate, rate, False, 0, int(index.shown.sum()))


def decoder_timing(stream: VideoStream, index: PacketIndex) -> Timing:
    """By when packets are decoded, at least one of which says so: AVI in dts at its rate, other files in pts."""
    if stream.container.format.name != "avi":
        return stream_timing(stream, index)
    time_base, rate = cast(Fraction, stream.time_base), stream.guessed_rate or DEFAULT_FPS
    told = index.dts[index.shown & (index.dts != NO_PTS)]
    return Timing(time_base, rate, False, int(told.min()), int(told.max()) + frame_ticks(rate, time_base))


def stream_timing(stream: VideoStream, index: PacketIndex) -> Timing:
    """By the packets' timestamps; at least one picture has one. Those before it are counted back from it."""
    time_base = cast(Fraction, stream.time_base)
    declared = stream.guessed_rate or stream.average_rate
    told = index.shown & (index.pts != NO_PTS)
    step = frame_ticks(declared or DEFAULT_FPS, time_base)
    jump = jump_ticks(declared or DEFAULT_FPS, time_base)
    ahead = ahead_ticks(stream.container.format.name, time_base)
    pts = continued(index.pts[told], index.dts[told], jump, step, ahead)
    timelines = _timelines(index.pts[told], pts, time_base)
    order = np.argsort(pts, kind="stable")
    pts, durations = pts[order], index.duration[told][order]
    fps, vfr = frame_rate(pts, time_base, declared)
    at = np.flatnonzero(told)
    if (pictures := int(index.shown[at[0] : at[-1] + 1].sum())) > _FEW_UNTOLD * len(pts):
        fps, vfr = _rate_of(pictures, int(pts[-1] - pts[0]) * time_base, declared), False
    tick = frame_ticks(fps, time_base)
    first = min(np.flatnonzero(told)[order[0]], np.argmax(told) + MOST_REORDERED)
    untimed = int((index.shown & ~told)[:first].sum())
    start, end = int(pts[0]) - untimed * tick, int(pts[-1]) + (int(durations[-1]) or tick)
    return Timing(time_base, fps, vfr, start, end, timelines)


def _rate_of(pictures: int, seconds: Fraction, declared: Fraction | None) -> Fraction:
    """The rate of pictures of which many have no time of their own, as where MPEG's packets hold several of them.

    The first and last that are told may be some pictures out of their order: what the headers claim wins if it is near.
    """
    measured = (pictures - 1) / seconds if seconds else DEFAULT_FPS
    near = declared is not None and abs(declared / measured - 1) < _NEARLY
    return cast(Fraction, declared) if near else measured.limit_denominator(100_000) or declared or DEFAULT_FPS


def _timelines(told: NDArray[np.int64], moved: NDArray[np.int64], time_base: Fraction) -> tuple[Timeline, ...]:
    """The parts of a stream that were moved alike; none where nothing was."""
    by = moved - told
    starts = [0, *(np.flatnonzero(np.diff(by)) + 1).tolist()]
    if len(starts) == 1:
        return ()
    return tuple(
        Timeline(int(part.min()) * time_base, int(part.max()) * time_base, int(by[at]) * time_base)
        for at, part in zip(starts, np.split(told, starts[1:]), strict=True)
    )


def jump_ticks(fps: Fraction, time_base: Fraction) -> int:
    """How far a timestamp must run backward to begin a new timeline rather than be a picture out of its place."""
    return int(max(Fraction(1), MOST_REORDERED / fps) / time_base)


def ahead_ticks(container: str, time_base: Fraction) -> int:
    """How far a timestamp must run ahead to begin a new timeline: in MPEG's streams half a round of their clock.

    FFmpeg takes what lies more than a minute before the file's beginning for the clock's next round.
    """
    return int(_CLOCK / 2 / time_base) if container in _CLOCKED else NO_LIMIT


def one_timeline(index: PacketIndex, info: StreamInfo, told: NDArray[np.bool_]) -> NDArray[np.int64]:
    """As `continued`, of those packets of a stream that are `told` a time."""
    step, jump = frame_ticks(info.fps, info.time_base), jump_ticks(info.fps, info.time_base)
    times = packet_times(index, info)[told]
    return continued(times, index.dts[told], jump, step, ahead_ticks(info.container, info.time_base))


def continued(pts: NDArray[np.int64], dts: NDArray[np.int64], jump: int, step: int, ahead: int) -> NDArray[np.int64]:
    """Timestamps in file order, with each new timeline moved to `step` after the greatest before it.

    A new one begins more than `jump` ticks back or `ahead` ticks ahead. Back, decoding times start over too; where they
    go on, a picture was coded across a gap.
    """
    pts, begin = pts.copy(), 0
    while True:
        greatest, latest = np.maximum.accumulate(pts[begin:]), np.maximum.accumulate(dts[begin:])
        over = (dts[begin + 1 :] <= latest[:-1]) | (latest[:-1] == NO_PTS)
        new = (over & (pts[begin + 1 :] < greatest[:-1] - jump)) | (pts[begin + 1 :] - greatest[:-1] > ahead)
        if not new.any():
            return pts
        at = begin + 1 + int(new.argmax())
        pts[at:] += greatest[at - begin - 1] + step - pts[at]
        begin = at


class Course:
    """Follows a stream, packet by packet, through the pictures' timelines: `offset` seconds are added to its times.

    Where it lacks one of the timelines, as sound that begins with the second recording, its own times do not show it.
    """

    def __init__(self, timelines: Sequence[Timeline], container: str) -> None:
        self._timelines = timelines
        # FFmpeg counts the rounds of MPEG's clock from where it first meets a stream.
        self._turns = (Fraction(0), _CLOCK, -_CLOCK) if container in _CLOCKED else (Fraction(0),)
        self._at = (0, Fraction(0))  # the timeline, and the turn that brings the stream into it
        self.offset = Fraction(0)

    def moved(self, seconds: Fraction, jumped: bool, following: Fraction) -> Fraction:
        """When a packet is due; `seconds`: its own time, which with the present offset is a `jumped` one or fits.

        One that is of no timeline goes to `following`, and what comes after it likewise. One of an earlier timeline is
        late, and changes nothing.
        """
        found = self._found(seconds)
        if found is None and jumped:
            self.offset = following - seconds
        elif found is not None and (jumped or (found[0] >= self._at[0] and not self._is_near(*self._at, seconds))):
            offset = self._timelines[found[0]].offset + found[1]
            if found[0] < self._at[0]:
                return seconds + offset
            self._at, self.offset = found, offset
        return seconds + self.offset

    def _found(self, seconds: Fraction) -> tuple[int, Fraction] | None:
        """The next timeline but the present one that a time lies in or near, else an earlier one, and the turn."""
        near = [
            (n, turn)
            for turn in self._turns
            for n in range(len(self._timelines))
            if (n, turn) != self._at and self._is_near(n, turn, seconds)
        ]
        return next((at for at in near if at[0] >= self._at[0]), near[-1] if near else None)

    def _is_near(self, n: int, turn: Fraction, seconds: Fraction) -> bool:
        return self._timelines[n].near(seconds + turn)


def frame_rate(pts: NDArray[np.int64], time_base: Fraction, declared: Fraction | None) -> tuple[Fraction, bool]:
    """(average rate, whether it varies) of sorted timestamps; `declared` is what the headers claim.

    Constant means that every picture lies on an even grid but for the rounding of the time base or, in files that once
    had millisecond timestamps, of a millisecond. A rate that a header or convention names exactly is taken over.
    """
    if len(pts) < 2 or pts[-1] == pts[0]:
        return (declared or DEFAULT_FPS), False
    span = int(pts[-1] - pts[0])
    step = span / (len(pts) - 1)
    measured = (len(pts) - 1) / (span * time_base)
    slack = min(max(_JITTER_TICKS, _JITTER_SECONDS / float(time_base)), 0.4 * step)  # ticks; a lost picture is a step
    away = {rate: abs(float(rate / measured) - 1) for rate in (declared, *_COMMON_RATES) if rate}
    near = sorted((rate for rate in away if away[rate] < _NEAR), key=lambda r: (away[r] >= _SAME, r != declared))
    for rate in near:
        if _deviation(pts, float(1 / (rate * time_base))) <= slack:
            return rate, False
    # One wild timestamp can put years between the pictures; what the headers claim is then nearer the truth.
    average = measured.limit_denominator(100_000) or declared or DEFAULT_FPS
    return average, _deviation(pts, step) > slack


def _deviation(pts: NDArray[np.int64], step: float) -> float:
    """How far timestamps stray from a grid of `step` ticks, in ticks: half the width of the band that holds them."""
    strays = (pts - pts[0]) - step * np.arange(len(pts))
    return float(strays.max() - strays.min()) / 2
