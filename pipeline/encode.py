"""Frames into a segment file: the source's Y plane and new Cb, Cr planes, coded with a resolved encoder."""

from __future__ import annotations

import hashlib
import platform
from contextlib import ExitStack
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from pipeline.chroma import chroma_size
from pipeline.codecs import NVENC, PROFILES, EncoderSettings
from pipeline.encoders import EncoderSpec, open_encoder, resolve_encoder
from pipeline.errors import EngineError
from pipeline.frames import Plane, SegmentFile
from pipeline.h264 import marked_progressive
from pipeline.lumamap import LumaMap
from pipeline.packets import PacketWriter, SegmentHeader
from pipeline.planes import pixel_layout
from pipeline.storage import Place, place, replacing

__all__ = ["PROFILES", "EncoderSettings", "EncoderSpec", "FieldMarker", "LumaMap", "SegmentWriter", "resolve_encoder"]


class SegmentWriter:
    """Writes one segment; a context manager. The file appears under its name, whole, when the block ends well."""

    def __init__(self, spec: EncoderSpec, path: str | Place) -> None:
        self._spec, self._path = spec, place(path)
        self._size = chroma_size(spec.height, spec.width, spec.subsampling)
        self._dtype = np.uint8 if spec.bit_depth <= 8 else np.uint16
        self._luma_digest = hashlib.sha256()
        self._pts: list[int] = []
        self._durations: dict[int, int] = {}
        self._progressive: set[int] = set()
        self._clipped = 0
        self._result: SegmentFile | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self._path))
            self._packets = PacketWriter(stack.enter_context(temporary.open("wb")))
            self._encoder = encoder_for(self._spec, self._path)
            self._fields = FieldMarker(self._spec) if self._spec.codes_fields else None
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack as stack:
            # An error, the caller's or of the last packets, passes through the stack, which then discards the file.
            if error is None:
                self._finish()
            else:
                stack.__exit__(kind, error, trace)

    def write(self, luma: Plane, cb: Plane, cr: Plane, pts: int, duration: int, progressive: bool = False) -> None:
        """Code one frame.

        luma: (H, W) codes of the source's depth. cb, cr: (Hc, Wc) codes of the output's depth.
        pts, duration: in the spec's time base, pts rising from frame to frame; duration 0 where unknown.
        progressive: mark it so in a stream of fields, where the codec marks each picture (H.264 of x264, FFV1).
        Raises EngineError where the encoder fails, StorageError where the file cannot be written.
        """
        shapes = ((self._spec.height, self._spec.width), self._size, self._size)
        if (luma.shape, cb.shape, cr.shape) != shapes or not cb.dtype == cr.dtype == self._dtype:
            raise ValueError(f"expected {shapes} {self._dtype}, got {luma.shape = }, {cb.shape = }, {cb.dtype = }")
        if self._pts and pts <= self._pts[-1]:
            raise ValueError(f"expected pts above {self._pts[-1]}, got {pts = }")
        y = self._within_depth(self._spec.luma.apply(luma))
        self._luma_digest.update(np.ascontiguousarray(y).data)
        frame = make_frame(self._spec, (y, cb, cr))
        frame.pts, frame.time_base = pts, self._spec.time_base
        self._pts.append(pts)
        self._durations[pts] = duration
        if progressive:
            self._progressive.add(pts)
        unmarked = progressive and self._spec.codec == "ffv1"
        self._encode(self._fields.mark(frame) if self._fields and not unmarked else frame)

    def result(self) -> SegmentFile:
        """What was written, once the block has ended."""
        if self._result is None:
            raise ValueError("expected a segment that was written to its end")
        return self._result

    def _within_depth(self, plane: Plane) -> Plane:
        """The plane itself, or clipped where raw video had bits above its depth, which encoders do not survive."""
        peak = (1 << self._spec.bit_depth) - 1
        if plane.dtype == np.uint8 or peak == 65535 or plane.max(initial=0) <= peak:
            return plane
        self._clipped += 1
        return np.minimum(plane, peak)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            packets = self._encoder.encode(frame)
        except av.FFmpegError as e:
            raise _failed(self._spec, self._path, e) from e
        for packet in packets:
            pts = cast(int, packet.pts)
            one_moment = pts in self._progressive and self._spec.encoder == "libx264"
            payload = marked_progressive(bytes(packet)) if one_moment else packet
            self._packets.add(payload, pts, self._durations.pop(pts), packet.is_keyframe)

    def _finish(self) -> None:
        if self._pts:
            self._encode(None)
        if self._durations:
            raise EngineError(
                f"{self._path}: {self._spec.encoder} lost {len(self._durations)} of {len(self._pts)} frames"
            )
        header = SegmentHeader(self._spec.encoder, self._encoder.extradata or b"", self._spec.time_base)
        sha256 = self._packets.finish(header)
        self._result = SegmentFile(
            path=str(self._path),
            frames=len(self._pts),
            pts=tuple(self._pts),
            sha256=sha256,
            bytes=self._packets.bytes,
            luma_sha256=self._luma_digest.hexdigest(),
            warnings=(f"{self._clipped} pictures had luma above the peak of their depth",) if self._clipped else (),
        )


def encoder_for(spec: EncoderSpec, path: Place) -> VideoCodecContext:
    """An open encoder for `path`; raises EngineError where this machine does not have it."""
    try:
        return open_encoder(spec)
    except av.FFmpegError as e:
        raise _failed(spec, path, e) from e


def _failed(spec: EncoderSpec, path: Place, e: av.FFmpegError) -> EngineError:
    advice = "; try another --codec"
    if spec.encoder in NVENC.values():
        advice = f" on {platform.node()}; go on where it works, or begin anew with --hwaccel none"
    return EngineError(f"{path}: {spec.encoder} failed: {e.strerror or e}{advice}")


def make_frame(spec: EncoderSpec, planes: tuple[Plane, Plane, Plane]) -> av.VideoFrame:
    """A frame of the encoder's own layout with the planes' samples, Y' (H, W), Cb and Cr (Hc, Wc)."""
    frame = av.VideoFrame(spec.width, spec.height, spec.pix_fmt)
    layout = pixel_layout(spec.pix_fmt)
    for at, plane in zip(layout.components, planes, strict=True):
        rows = np.frombuffer(memoryview(frame.planes[at.plane]), plane.dtype).reshape(plane.shape[0], -1)
        rows[:, at.offset :: at.step][:, : plane.shape[1]] = plane << layout.shift if layout.shift else plane
    frame.color_range = 2 if spec.color.full_range else 1
    frame.colorspace = spec.matrix_code
    frame.color_trc, frame.color_primaries = spec.color.transfer, spec.color.primaries
    return frame


class FieldMarker:
    """Marks frames as interlaced, in the spec's field order, without touching their samples.

    PyAV shows a frame's interlaced flag but cannot set it; FFmpeg's setfield filter can.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self._graph = av.filter.Graph()
        rate = f"{spec.time_base.numerator}/{spec.time_base.denominator}"
        source = self._graph.add(
            "buffer",
            f"video_size={spec.width}x{spec.height}:pix_fmt={spec.pix_fmt}:time_base={rate}"
            f":colorspace={spec.matrix_code}:range={2 if spec.color.full_range else 1}",
        )
        mark = self._graph.add("setfield", spec.field_order)
        sink = self._graph.add("buffersink")
        source.link_to(mark)
        mark.link_to(sink)
        self._graph.configure()

    def mark(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same picture, interlaced."""
        self._graph.vpush(frame)
        return self._graph.vpull()
