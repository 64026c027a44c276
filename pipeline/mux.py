"""The output file: one coded video stream, and every other stream of the source copied packet by packet.

Used twice over the same path: to write a reel, and before any work to try whether a container takes all of it.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import av

from pipeline.declaring import declare_as_is, declare_unlisted_video, declare_windows_codec
from pipeline.encoders import EncoderSpec, configure
from pipeline.errors import UnsupportedError
from pipeline.frames import StreamInfo
from pipeline.matroska import ROOM, display_size, set_display_size
from pipeline.scheduling import ordinary_threads
from pipeline.storage import is_full
from pipeline.streams import (
    Container,
    codec_name,
    cover_pictures,
    describe,
    is_cover,
    is_made_by_muxer,
    is_timecode,
    kept_tags,
    rescale,
    stream_metadata,
    uses_itunes,
)
from pipeline.wrapped_pcm import plain_codec

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

_MICROSECONDS_HELD = 100_000  # packets are handed to the muxer in order of time, so that it need hold back few
_MAX_TIMESCALE = 2**31 - 1


@dataclass(frozen=True)
class Reel:
    """What is to be written: the source's main stream, how it is coded, into what, and the tags that say so."""

    info: StreamInfo
    spec: EncoderSpec
    container: Container
    provenance: Mapping[str, str]


class ReelMuxer:
    """An output file with all its streams declared, in the source's order; a context manager.

    Raises UnsupportedError, naming the stream, where the container does not take one.
    """

    def __init__(self, path: Path, source: InputContainer, reel: Reel) -> None:
        self._container, self._spec, self._info = reel.container, reel.spec, reel.info
        self._output: OutputContainer = av.open(
            str(path), "w", format=reel.container.format, container_options=self._options(source)
        )
        self.copies: dict[int, Any] = {}  # source index → output stream
        self.order: list[int | None] = []  # source indices of the streams with packets; None is the coded video
        self.attached: list[int] = []  # bytes of each attachment and cover picture
        self._covers: list[tuple[Any, bytes]] = []
        try:
            self._declare(source)
            if chapters := source.chapters():
                self._output.set_chapters([_later(chapter, reel.container.shift) for chapter in chapters])
            self.tags = self._tags(source, reel.provenance)
            self._output.metadata.update(self.tags)
            with ordinary_threads():
                self._output.start_encoding()
            self._write_covers()
        except av.FFmpegError as e:
            if is_full(e.errno):
                raise
            refused = self._refused(source) or f"these streams together ({e.strerror or e})"
            raise UnsupportedError(f"{self._info.source.url}: {self._container.name} cannot hold {refused}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(*([av.FFmpegError] if error else [])):  # the first error is the one to tell
            self._output.close()

    @property
    def extradata(self) -> bytes:
        """The encoder's out-of-band headers, as the output's header has them."""
        return self._coder.extradata or b""

    @property
    def time_base(self) -> Fraction:
        """The output's unit of video timestamps."""
        return cast(Fraction, self.video.time_base)

    def write_video(self, payload: bytes, pts: int, dts: int, duration: int, key: bool) -> None:
        """Write one coded picture; times in `time_base`."""
        packet = av.Packet(len(payload))
        packet.update(payload)
        packet.stream, packet.time_base = self.video, self.time_base
        packet.pts, packet.dts, packet.duration, packet.is_keyframe = pts, dts, duration, key
        self._output.mux_one(packet)

    def write_copy(self, packet: av.Packet[Any], stream: Any) -> None:
        """Write a packet of the source, its times already in `stream.time_base`."""
        packet.stream, packet.time_base = stream, stream.time_base
        self._output.mux_one(packet)

    def set_pixel_shape(self, path: Path, source: InputContainer) -> None:
        """Put the pixels' aspect into a closed Matroska file; other containers have it already."""
        if self._shapes_pixels:
            size = display_size(self._spec.width, self._spec.height, self._spec.sar)
            title = self._video_title(source.streams[self._info.index])
            set_display_size(path, self.order.index(None), size, title)

    @property
    def _shapes_pixels(self) -> bool:
        return self._container.milliseconds and self._spec.sar != 1

    @staticmethod
    def _video_title(original: Any) -> str:
        return str(original.metadata.get("title", ""))

    def _write_covers(self) -> None:
        for stream, picture in self._covers:
            packet = av.Packet(len(picture))
            packet.update(picture)
            packet.pts = packet.dts = 0
            packet.is_keyframe = True
            self.write_copy(packet, stream)

    def _declare(self, source: InputContainer) -> None:
        """Add every stream, in the source's order."""
        covers = cover_pictures(source)
        for stream in source.streams:
            if stream.index == self._info.index:
                self.video = self._add_video(stream)
                self.order.append(None)
                continue
            try:
                self._add_other(stream, covers)
            except (ValueError, av.FFmpegError) as e:
                raise UnsupportedError(
                    f"{self._info.source.url}: {self._container.name} cannot hold {describe(stream)}"
                ) from e

    def _add_other(self, stream: Any, covers: Mapping[int, bytes]) -> None:
        """Add a stream other than the main one; raises ValueError or FFmpegError where the container has no place."""
        if is_cover(stream):
            if stream.index in covers:
                self._add_cover(stream, covers[stream.index])
        elif stream.type == "attachment":
            if self._container.format != "matroska":
                raise ValueError("attachments exist in Matroska only")
            self._output.add_stream_from_template(stream)
            self.attached.append(len(stream.data))
        elif not is_made_by_muxer(stream) and stream.index not in (*self._info.silent, *self._container.without):
            self.copies[stream.index] = self._add_copy(stream)
            self.order.append(stream.index)
        elif is_timecode(stream) and self._container.format not in ("mov", "mp4", "matroska"):
            raise ValueError("no place for timecode")

    def _add_cover(self, stream: Any, picture: bytes) -> None:
        """An attached picture: an attachment in Matroska, an iTunes atom in mp4."""
        if self._container.format == "matroska":
            name, kind = _cover_name(stream)
            self._output.add_attachment(name, kind, picture)
        elif self._container.format == "mp4":
            self._covers.append((self._add_copy(stream), picture))
        else:
            raise ValueError("no place for a cover picture")
        self.attached.append(len(picture))

    def _add_video(self, original: Any) -> Any:
        spec = self._spec
        if (self._container.format, spec.codec) == ("mov", "ffv1"):
            # FFmpeg writes FFV1 into MOV as into MP4, but lists it for MP4 only, and PyAV asks the list.
            with av.open(os.devnull, "w", format="mp4") as listed, ordinary_threads():
                coded = self._declare_video(listed)
                listed.start_encoding()
                stream = declare_unlisted_video(self._output, coded, spec.fps)
        else:
            stream = self._declare_video(self._output)
        stream.time_base = spec.time_base
        stream.disposition = original.disposition
        stream.metadata.update(stream_metadata(original))
        if self._shapes_pixels:
            stream.metadata["title"] = self._video_title(original) + ROOM
        if self._container.format == "mpegts":
            stream.id = original.id
        return stream

    def _declare_video(self, output: OutputContainer) -> Any:
        spec = self._spec
        try:
            stream = output.add_stream(spec.encoder, rate=spec.fps)
        except ValueError as e:
            raise UnsupportedError(f"{self._info.source.url}: {self._container.name} cannot hold {spec.codec}") from e
        self._coder = stream.codec_context
        configure(cast(Any, self._coder), spec)
        if spec.codec == "hevc" and self._container.format in ("mp4", "mov"):
            self._coder.codec_tag = "hvc1"  # Apple's players know no other
        stream.time_base = spec.time_base
        if self._info.rotation or self._info.mirrored:
            cast(Any, stream).set_display_rotation(self._info.rotation, hflip=self._info.mirrored)
        return stream

    def _add_copy(self, original: Any) -> Any:
        has_decoder = original.codec_context is not None or original.type == "data"
        if codec := plain_codec(original, self._container.format):
            context = original.codec_context
            stream: Any = self._output.add_stream(codec, rate=context.sample_rate, layout=context.layout)
        elif not has_decoder:
            stream = declare_as_is(self._output, original)
        elif self._goes_as_windows_codec(original):
            stream = declare_windows_codec(self._output, original)
        else:
            stream = self._output.add_stream_from_template(original, opaque=True)
        stream.disposition = original.disposition
        stream.metadata.clear()
        stream.metadata.update(stream_metadata(original))
        if self._container.format == "mpegts":
            stream.id = original.id
        return stream

    def _goes_as_windows_codec(self, original: Any) -> bool:
        """Whether Matroska has no name of its own for an audio codec, but can keep its Windows header (A_MS/ACM)."""
        return (
            self._container.format == "matroska"
            and original.type == "audio"
            and original.codec_context.name not in self._output.supported_codecs
        )

    def _refused(self, source: InputContainer) -> str:
        """The streams that the muxer does not take even alone, in words."""
        refused = []
        for stream in source.streams:
            if stream.index in self.copies:
                output = self._output
                try:
                    with av.open(os.devnull, "w", format=self._container.format) as self._output:
                        self._add_copy(stream)
                        self._output.start_encoding()
                except av.FFmpegError:
                    refused.append(describe(stream))
                finally:
                    self._output = output
        return ", ".join(refused)

    def _options(self, source: InputContainer) -> dict[str, str]:
        """Muxer options: timestamps as given, nothing shifted, little held back."""
        options = {"avoid_negative_ts": "disabled", "max_interleave_delta": str(_MICROSECONDS_HELD)}
        options |= dict(self._container.options)
        if self._container.milliseconds:
            options["fflags"] = "+bitexact"  # or Matroska's identifiers are random numbers
        if self._container.format in ("mp4", "mov"):
            options["video_track_timescale"] = str(self._spec.time_base.denominator)
            options["movie_timescale"] = str(_movie_timescale(source, self._info))
            flags = [options.get("movflags", "")]
            if self._container.format == "mov" or not uses_itunes(source):
                flags.append("use_metadata_tags")
            options["movflags"] = "".join(f"+{f.strip('+')}" for f in flags if f)
        return {k: v for k, v in options.items() if v}

    def _tags(self, source: InputContainer, provenance: Mapping[str, str]) -> dict[str, str]:
        """The source's tags and the provenance: as tags of their own, or in the comment where mp4 has no others."""
        tags = kept_tags(source, self._container.format)
        if self._container.format == "mpegts":
            return {"service_provider": "reelcolor", "service_name": "colorized"}
        if self._container.format == "mp4" and uses_itunes(source):
            text = "; ".join(f"{k}: {v}" for k, v in provenance.items())
            return tags | {"comment": "\n".join(filter(None, (tags.get("comment"), text)))}
        return tags | dict(provenance)


def _movie_timescale(source: InputContainer, info: StreamInfo) -> int:
    """A unit in which edit lists state every stream's start exactly, where one of 31 bits exists; else milliseconds.

    MOV keeps a track's start as an edit in the movie's own unit, by default 1 ms: too coarse for audio in step.
    """
    starts = [info.start_pts * info.time_base]
    for stream in source.streams:
        if stream.index == info.index or not stream.start_time or not stream.time_base:
            continue
        rate = cast(Any, stream).codec_context.sample_rate if stream.type == "audio" and stream.codec_context else 0
        unit = Fraction(1, rate) if rate else stream.time_base
        starts.append(rescale(stream.start_time, stream.time_base, unit) * unit)
    scale = math.lcm(1000, *(start.denominator for start in starts if start > 0))
    return scale if scale <= _MAX_TIMESCALE else 1000


def _later(chapter: Any, shift: Fraction) -> Any:
    """A chapter mark, `shift` seconds later."""
    ticks = round(shift / chapter["time_base"]) if shift else 0
    return chapter | {"start": chapter["start"] + ticks, "end": chapter["end"] + ticks}


def _cover_name(stream: Any) -> tuple[str, str]:
    """(file name, MIME type) of an attached picture, as Matroska wants them (RFC 9559 §21.2: cover.jpg, cover.png)."""
    kinds = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png"), "bmp": ("bmp", "image/bmp")}
    suffix, mime = kinds.get(codec_name(stream), (codec_name(stream), f"image/{codec_name(stream)}"))
    return stream.metadata.get("filename", f"cover.{suffix}"), stream.metadata.get("mimetype", mime)
