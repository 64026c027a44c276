"""Opening a source and reading its packets, sound or damaged, without decoding any."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.stream import Discard, Disposition

from pipeline.errors import InputError, StorageError
from pipeline.frames import Source
from pipeline.ranges import RangeFile
from pipeline.storage import is_local, local_path, open_input
from pipeline.streams import describe

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from pipeline.clusters import ClusterWatch

NO_PTS = int(np.iinfo(np.int64).min)  # a packet without a timestamp
_PICTURE_ONLY = Disposition.attached_pic | Disposition.timed_thumbnails
_NOT_VIDEO = {"tty", "bin", "xbin", "adf", "idf"}  # demuxers that draw text files as pictures
# Demuxers that go on to read what their file names: other files, addresses, devices.
_REFERRING = {"concat", "dash", "hls", "imf", "lavfi", "rtsp", "sap", "sdp", "vobsub", "webm_dash_manifest"}
_LISTS = (b"ffconcat", b"#EXTM3U", b"# VobSub", b"<MPD", b"<AssetMap", b"<CompositionPlaylist")  # how theirs begin
_IO_ERRORS = (errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENETDOWN, errno.ENODEV)
_ANALYZED = 1 << 62  # microseconds; how far is then a matter of bytes alone, also where timestamps jump
_HEAD = 512  # bytes that tell what a file is that cannot be opened
_PRINTED = re.compile(r"^  Stream #0:(\d+)\S*: (\w+): (\w+)", re.MULTILINE)  # as av_dump_format has streams
_FRUITLESS = 16  # read errors in a row after which a file is given up


@dataclass(frozen=True, order=True)
class LateStream:
    """A stream that begins after FFmpeg has looked for streams: its index, "video", "audio", …, and its codec."""

    index: int
    kind: str
    codec: str


@contextlib.contextmanager
def open_media(
    source: Source, hwaccel: HWAccel | None = None, watch: ClusterWatch | None = None, **options: str
) -> Iterator[InputContainer]:
    """Open for demuxing; `options` are FFmpeg's, `hwaccel` decodes, `watch` sees what is read.

    Raises InputError or StorageError in one line.
    """
    if is_local(source.url) and source.format != "image2":
        check_file(source)
    with media_file(source.url, watch) as file, _open(source, file, hwaccel, options) as container:
        if container.format.name in _NOT_VIDEO:
            raise InputError(f"{source.url}: is a text file, expected a video")
        yield container


def open_whole(source: Source) -> contextlib.AbstractContextManager[InputContainer]:
    """As `open_media`, with all streams that are to be copied, also those that begin late."""
    if not source.looked_at:
        return open_media(source)
    further = {"probesize": str(source.looked_at), "analyzeduration": str(_ANALYZED), "scan_all_pmts": "1"}
    return open_media(source, None, None, **further)


@contextlib.contextmanager
def media_file(url: str, watch: ClusterWatch | None = None) -> Iterator[Any]:
    """What av.open takes for a path or URL; raises the StorageError that FFmpeg took for the end of the file."""
    if is_local(url) and watch is None:
        yield f"file:{local_path(url)}"  # or a colon in the name would make it a protocol
        return
    with open_input(url) as file:
        reader = watch.over(file) if watch else cast(RangeFile, file)
        try:
            yield reader
        finally:
            if reader.failure:
                raise reader.failure


def _open(source: Source, file: Any, hwaccel: HWAccel | None, options: dict[str, str]) -> InputContainer:
    options = confined() | dict(source.options) | options
    try:
        container: InputContainer = av.open(
            file, "r", format=source.format, options=options, metadata_errors="replace", hwaccel=hwaccel
        )
    except PermissionError as e:
        raise StorageError(f"{source.url}: cannot be read: permission denied") from e
    except (FFmpegError, EOFError, ValueError) as e:
        raise InputError(f"{source.url}: {_why_unreadable(source, e)}") from e
    except OSError as e:
        raise StorageError(f"{source.url}: cannot be read: {e.strerror or e}") from e
    return container


@lru_cache(maxsize=1)
def confined() -> dict[str, str]:
    """FFmpeg's options that keep it to the one file it is given, whatever that file or its name says."""
    return {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(sorted(av.formats_available - _REFERRING)),
        "pattern_type": "none",  # of a single image: a name with %d or * is a name
    }


def check_file(source: Source) -> os.stat_result:
    """Its status; raises for the plain reasons why a file cannot be opened."""
    try:
        found = local_path(source.url).stat()
    except (FileNotFoundError, NotADirectoryError) as e:
        raise InputError(f"{source.url}: no such file") from e
    except OSError as e:
        raise StorageError(f"{source.url}: cannot be read: {e.strerror or e}") from e
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{source.url}: is a folder, expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{source.url}: is a pipe or device, expected a file; save the stream to a file first")
    if found.st_size == 0:
        raise InputError(f"{source.url}: is empty (0 bytes); copy it again")
    return found


def _why_unreadable(source: Source, error: Exception) -> str:
    if isinstance(error, (ArgumentError, InvalidDataError)) and source.format is None:
        with open_input(source.url) as f:
            head = f.read(_HEAD)
        if any(mark in head for mark in _LISTS):
            return "is a playlist, which says where a film is; pass the film's own files"
        if head[4:8] == b"ftyp":
            return "its index (moov) is missing, the recording or copy was cut off; copy it again or recover it"
        return "is not a video that FFmpeg knows; check that it plays, then convert it to mp4 or mkv"
    reason = getattr(error, "strerror", None) or str(error)
    return f"cannot be opened as video ({reason}); check that it plays, then convert it to mp4 or mkv"


def main_stream(container: InputContainer, source: Source) -> VideoStream:
    """The video stream to colour: the one that a player shows. Raises InputError where there is none.

    Pictures that go with a film aside, that is the first that is marked as default, or the first where none is;
    FFmpeg would rather take the one of the highest bit rate.
    """
    streams = _film_streams(container)
    if not streams:
        found = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise InputError(f"{source.url}: has no video stream (found {found}); pass a video file")
    known = [s for s in streams if s.codec_context is not None]
    if not known:
        raise InputError(f"{source.url}: no decoder for its video codec; convert it to h264 or ffv1 first")
    return min(known, key=lambda s: (s.width == 0, _is_still(s), not s.disposition & Disposition.default, s.index))


def rival_streams(container: InputContainer, main: VideoStream) -> list[VideoStream]:
    """Video streams that are films too, and are not coloured."""
    return [s for s in _film_streams(container) if s.index != main.index and not _is_still(s)]


def _film_streams(container: InputContainer) -> list[VideoStream]:
    return [s for s in container.streams.video if not s.disposition & _PICTURE_ONLY]


def _is_still(stream: VideoStream) -> bool:
    """Whether the headers say that it is one picture; a cover that nobody marked as one."""
    statistics = (value for key, value in stream.metadata.items() if key.upper().startswith("NUMBER_OF_FRAMES"))
    return stream.frames == 1 or next(statistics, None) == "1"


def read_only(container: InputContainer, stream: VideoStream) -> None:
    """Have the demuxer skip every other stream."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def unusable_streams(source: Source, streams: Sequence[Any]) -> dict[int, str]:
    """Those sound and picture streams that stay behind, and why: {index: words}.

    No muxer takes one of which nothing but the codec is known. Such streams are announced and never come, as in cut
    broadcasts; or begin late, where damage is taken for their beginning. `streams`: those known without a further look.
    """
    if not source.looked_at and not any(map(is_unknown, streams)):
        return {}
    with open_whole(source) as container:
        found: list[Any] = list(container.streams)
        unknown = [s for s in found[: len(streams)] if is_unknown(s)]
        holding = giving_packets(container, {s.index for s in unknown})
        untold = [s for s in unknown if s.type == "audio" and s.index in holding]
        untold += [
            s
            for s in found[len(streams) :]
            if is_unknown(s) or (s.codec_context is None and s.type in ("audio", "video"))
        ]
        words = {s.index: f"{describe(s)} holds nothing; it is left out" for s in unknown if s.index not in holding}
        words |= {
            s.index: f"{describe(s)} begins in its middle and tells nothing of itself; it is left out" for s in untold
        }
    return words


def giving_packets(container: InputContainer, indices: set[int]) -> set[int]:
    """Which of these streams hold anything; reads the file, from where it stands, until that is known."""
    missing = set(indices)
    for stream in container.streams:
        if stream.index not in indices:
            stream.discard = Discard.all
    try:
        for packet in container.demux() if missing else ():
            if packet.size:
                missing.discard(packet.stream.index)
            if not missing:
                break
    except (FFmpegError, IndexError):  # what is unreadable, planning counts
        return indices
    return indices - missing


def late_streams(container: InputContainer) -> tuple[LateStream, ...]:
    """Those that FFmpeg came to know after the file was opened; PyAV has no list of them, FFmpeg prints one."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        text = cast(Any, container).dumps_format()
    finally:
        av.logging.set_level(level)
    found = (LateStream(int(n), kind.lower(), codec) for n, kind, codec in _PRINTED.findall(text))
    return tuple(sorted(stream for stream in found if stream.index >= len(container.streams)))


def is_unknown(stream: Any) -> bool:
    """Whether nothing but the codec is known of a sound or picture stream."""
    context = stream.codec_context
    return bool(
        context
        and ((stream.type == "audio" and not context.sample_rate) or (stream.type == "video" and not context.width))
    )


@dataclass
class DecodeReport:
    """What went wrong while reading, counted; `warnings` says it in words."""

    unreadable: int = 0  # stretches of the file that the demuxer could not make sense of
    undecodable: int = 0  # packets that the decoder refused
    concealed: int = 0  # pictures that the decoder patched
    woven: int = 0  # interlaced pictures of a stream that is taken for progressive
    captions: int = 0  # pictures with closed captions inside
    beyond: int = 0  # raw pictures with samples that are no codes of their depth
    retimed: int = 0  # pictures whose timestamp was missing, doubled or ran backward
    notes: list[str] = field(default_factory=list)
    spoilt: list[int] = field(default_factory=list)  # pts of pictures from damage on to the next keyframe, rising
    fell_back: str = ""  # why pictures that NVDEC was to decode were decoded in software

    @property
    def damage(self) -> int:
        """How much has been damaged so far."""
        return self.unreadable + self.undecodable + self.concealed

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of damage."""
        counted = (
            (self.unreadable, "damaged stretches of the file skipped"),
            (self.undecodable, "damaged packets skipped"),
            (self.concealed, "damaged pictures patched by the decoder"),
            (self.woven, "interlaced pictures coloured as whole frames, and not marked"),
            (self.captions, "pictures with closed captions inside, which are not carried over"),
            (self.beyond, "pictures with samples that are too great for their depth, which became the greatest of it"),
            (self.retimed, "pictures with a missing, doubled or backward timestamp put after the one before"),
        )
        fell_back = (f"decoded in software: {self.fell_back}",) if self.fell_back else ()
        return (*(f"{count} {what}" for count, what in counted if count), *self.notes, *fell_back)


def read_packets(
    container: InputContainer, stream: VideoStream, source: Source, report: DecodeReport
) -> Iterator[av.Packet[VideoStream]]:
    """The stream's packets from where the container stands, past damage; raises StorageError where reading fails."""
    failures = 0
    while failures < _FRUITLESS:
        try:
            for packet in container.demux(stream):
                failures = 0
                if packet.size:
                    yield packet
            return
        except IndexError:  # PyAV, at the end of a file in which a stream began after the headers
            return
        except (FFmpegError, OSError) as e:
            if is_storages(e):
                raise StorageError(f"{source.url}: reading failed: {e.strerror or e}") from e
            report.unreadable += 1
            failures += 1
    report.notes.append("the rest of the file cannot be read")


def is_storages(error: FFmpegError | OSError) -> bool:
    """Whether an error while reading is the storage's, rather than that of a damaged file."""
    return not isinstance(error, FFmpegError) or error.errno in _IO_ERRORS
