"""The source's other streams, packet by packet, at times that a muxer accepts; with a record of what was copied."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError, InvalidDataError
from av.stream import Discard

from pipeline.demux import NO_PTS
from pipeline.errors import StorageError
from pipeline.frames import Timeline
from pipeline.streams import codec_name, describe, rescale
from pipeline.timing import Course, ahead_ticks
from pipeline.wrapped_pcm import Unwrapper, plain_codec

if TYPE_CHECKING:
    from av.container import InputContainer

_FRUITLESS = 16  # read errors in a row after which a file is given up
_LEAD = 16  # pictures by which a first decoding time may precede the display: the most any codec reorders
_JUMP_SECONDS = 1  # backward, which no repair but only a new timeline explains
_SAMPLE_PACKETS, _SAMPLE_BYTES = 500, 64 << 20
_ADTS_HEADER, _SAMPLE_RATES = 7, 13  # bytes, and how many rates have a code
_EMPTY_TEXT = b"\0\0"


@dataclass
class StreamRecord:
    """What one stream carried: `pts` per packet and the last one's `end`, in `time_base`, and all payload bytes.

    A packet without a timestamp counts as NO_PTS.
    """

    kind: str
    codec: str
    time_base: Fraction
    pts: array[int] = field(default_factory=lambda: array("q"))
    end: int = 0
    bytes: int = 0
    crc: int = 0

    def add(self, packet: Any) -> None:
        """Count a packet in."""
        self.pts.append(NO_PTS if packet.pts is None else packet.pts)
        self.end = (packet.pts or 0) + (packet.duration or 0)
        self.bytes += packet.size
        self.crc = zlib.crc32(packet, self.crc)


def is_pause(packet: Any, codec: str) -> bool:
    """Whether a packet is a pause of a mov_text track; muxers put those in by themselves."""
    return codec == "mov_text" and packet.size == 2 and bytes(packet) == _EMPTY_TEXT


def _is_adts(packet: Any) -> bool:
    """Whether a packet begins with an ADTS header (ISO 14496-3, 1.A.2.2), as far as FFmpeg's filter for them asks."""
    head = bytes(memoryview(packet)[:_ADTS_HEADER])
    if len(head) < _ADTS_HEADER or head[0] != 0xFF or head[1] >> 4 != 0xF:
        return False
    rate, length = head[2] >> 2 & 15, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return rate < _SAMPLE_RATES and length >= _ADTS_HEADER


def _has_adts_headers(stream: Any) -> bool:
    return codec_name(stream) == "aac" and stream.container.format.name == "mpegts"


class _Clock:
    """Gives a stream's packets decoding times that rise, changing as little as can be.

    Where a timeline starts over, as in recordings put end to end, the stream goes on by what the pictures' `timelines`
    say, so that it stays in step with these; where they say nothing, from where it ended.
    """

    def __init__(
        self,
        stream: Any,
        strict: bool,
        timelines: Sequence[Timeline] = (),
        shift: Fraction = Fraction(0),
    ) -> None:
        self._stream, self._strict, self._shift = stream, strict, shift
        self._course = Course(timelines, stream.container.format.name)
        self._last: int | None = None
        self._end = 0
        self.repaired = 0

    def set(self, packet: Any, unit: Fraction) -> None:
        """Bring a packet's times into `unit`, filling in what is missing."""
        source = packet.time_base or self._stream.time_base
        later = round(self._shift / unit)
        pts, dts = (
            None if ticks is None else rescale(ticks, source, unit) + later for ticks in (packet.pts, packet.dts)
        )
        duration = max(0, rescale(packet.duration or 0, source, unit))
        pts, dts = self._continued(pts, dts, unit)
        given = (pts, dts)
        if pts is None:
            pts = self._end if dts is None else dts
        if dts is None:
            dts = self._guess(pts, duration)
        if self._last is not None and dts < self._last + self._strict:
            dts = self._last + self._strict
        pts = max(pts, dts)
        self.repaired += given[0] != pts or (given[1] not in (None, dts))
        self._last, self._end = dts, pts + duration
        packet.pts, packet.dts, packet.duration, packet.time_base = pts, dts, duration, unit

    def _continued(self, pts: int | None, dts: int | None, unit: Fraction) -> tuple[int | None, int | None]:
        told = pts if dts is None else dts
        if told is None:
            return pts, dts
        due = told + round(self._course.offset / unit)
        ahead = ahead_ticks(self._stream.container.format.name, unit)
        jumped = self._last is not None and (due < self._last - _JUMP_SECONDS / unit or due - self._last > ahead)
        seconds, following = (ticks * unit - self._shift for ticks in (told, self._end))
        offset = round((self._course.moved(seconds, jumped, following) - seconds) / unit)
        return (None if pts is None else pts + offset), (None if dts is None else dts + offset)

    def _guess(self, pts: int, duration: int) -> int:
        """A decoding time for a packet without one: ahead of display where pictures are reordered."""
        if self._stream.type != "video":
            return pts
        return pts - _LEAD * max(1, duration) if self._last is None else self._last + 1


class Copier:
    """Reads the streams in `targets` (source index → output stream) and keeps a record of each."""

    def __init__(
        self,
        source: InputContainer,
        targets: Mapping[int, Any],
        url: str,
        *,
        muxer: str,
        sample: bool = False,
        timelines: Sequence[Timeline] = (),
        shift: Fraction = Fraction(0),
    ) -> None:
        """`muxer`: FFmpeg's, that the streams go into. Matroska's takes packets of equal decoding time, and wants those
        as one that hold the parts of one PGS subtitle, as Blu-ray stores them; all but MPEG-TS's want AAC without ADTS
        headers, so that packets whose header is damaged cannot go along, and PCM without headers of its own.

        `sample`: read the beginning only.

        `shift`: seconds by which everything becomes later.

        `timelines`: the pictures', and how far these were moved, each to follow the one before.
        """
        lenient = muxer in ("matroska", "webm")
        self._source, self._targets, self._url, self._sample = source, targets, url, sample
        self._streams = [s for s in source.streams if s.index in targets]
        self._clocks = {
            s.index: _Clock(s, not lenient and s.type not in ("subtitle", "data"), timelines, shift)
            for s in self._streams
        }
        self.records = {
            s.index: StreamRecord(
                s.type, plain_codec(s, muxer) or codec_name(s), cast(Fraction, targets[s.index].time_base)
            )
            for s in self._streams
        }
        self._joining = {
            s.index: BitStreamFilterContext("pgs_frame_merge", s)
            for s in self._streams
            if lenient and codec_name(s) == "hdmv_pgs_subtitle"
        }
        self._unheaded = {s.index: 0 for s in self._streams if muxer != "mpegts" and _has_adts_headers(s)}
        self._unwrapping = {s.index: Unwrapper(s) for s in self._streams if plain_codec(s, muxer)}
        self._broken = dict.fromkeys(self._unwrapping, 0)
        self.damaged = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each stream that had to be repaired."""
        lines = [
            f"{clock.repaired} packets of {describe(stream)} had missing or backward timestamps; repaired"
            for stream in self._streams
            if (clock := self._clocks[stream.index]).repaired
        ]
        lines += [
            f"{count} damaged packets of {describe(self._source.streams[index])} left out: only MPEG-TS holds them"
            for index, count in self._unheaded.items()
            if count
        ]
        lines += [
            f"{count} packets of {describe(self._source.streams[index])} left out: damaged, or PCM of another kind"
            for index, count in self._broken.items()
            if count
        ]
        if self.damaged:
            lines.append(f"{self.damaged} damaged stretches of the file skipped while copying the other streams")
        return tuple(lines)

    def packets(self) -> Iterator[tuple[float, Any, Any]]:
        """(seconds, packet, output stream) in file order, times in the output stream's time base."""
        if not self._streams:
            return
        for stream in self._source.streams:
            if stream.index not in self._targets and not self._sample:
                stream.discard = Discard.all
        for packet in self._beginning() if self._sample else self._read(self._streams):
            index = packet.stream.index
            joining = self._joining.get(index)
            for whole in joining.filter(packet) if joining else [packet]:
                yield from self._timed(index, whole)
        for index, joining in self._joining.items():
            for rest in joining.filter(None):
                yield from self._timed(index, rest)

    def _timed(self, index: int, packet: Any) -> Iterator[tuple[float, Any, Any]]:
        record = self.records[index]
        if index in self._unheaded and not _is_adts(packet):
            self._unheaded[index] += 1
        elif (packet := self._unwrapped(index, packet)) and not is_pause(packet, record.codec):
            self._clocks[index].set(packet, record.time_base)
            record.add(packet)
            yield float(packet.dts * record.time_base), packet, self._targets[index]

    def _unwrapped(self, index: int, packet: Any) -> Any | None:
        if index not in self._unwrapping:
            return packet
        try:
            return self._unwrapping[index].unwrap(packet)
        except FFmpegError:
            self._broken[index] += 1
            return None

    def _beginning(self) -> Iterator[Any]:
        """The streams' packets among the first of the file; a sparse stream is not looked for to its end."""
        spent = 0
        for packet in islice(self._read(list(self._source.streams)), _SAMPLE_PACKETS):
            if packet.stream.index in self._targets:
                yield packet
            spent += packet.size
            if spent > _SAMPLE_BYTES:
                return

    def _read(self, streams: list[Any]) -> Iterator[Any]:
        failures = 0
        while failures < _FRUITLESS:
            try:
                for packet in self._source.demux(streams):
                    failures = 0
                    if packet.size:
                        yield packet
                return
            except IndexError:  # PyAV, at the end of a file in which a stream began after the headers
                return
            except InvalidDataError:
                self.damaged += 1
                failures += 1
            except (FFmpegError, OSError) as e:
                raise StorageError(f"{self._url}: reading failed: {getattr(e, 'strerror', None) or e}") from e
