"""Trying an encoder before a reel is planned for it: pictures of the reel's size and format, coded and decoded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import av
import numpy as np

from pipeline.chroma import chroma_size
from pipeline.codecs import Codec
from pipeline.encode import make_frame
from pipeline.encoders import EncoderSpec, open_encoder
from pipeline.frames import Plane
from pipeline.gpu import ffmpeg_says, reason
from pipeline.planes import pixel_layout, read_planes
from pipeline.timing import frame_ticks

_DECODERS: dict[Codec, str] = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d"}
_PICTURES = 8
_OFF = 16  # codes of 256 that luma is off in the mean when it is another picture's; the coarsest quantiser takes fewer
LOSSLESS = ("tune", "lossless")


@dataclass(frozen=True)
class _Coded:
    """Coded pictures: (pts, whether a keyframe, payload) of each, and the encoder's headers."""

    packets: tuple[tuple[int | None, bool, bytes], ...]
    headers: bytes


@lru_cache(maxsize=256)
def encoder_failure(spec: EncoderSpec) -> str | None:
    """Why the encoder does not code pictures as `spec` says, in order, the same each time; None where it does."""
    pictures = [_ramp(spec, n) for n in range(_PICTURES)]
    with ffmpeg_says() as said:
        try:
            coded, again = _coded(spec, pictures), _coded(spec, pictures)
        except av.FFmpegError as e:
            return reason(e, said)
    if coded != again:
        return "it codes the same pictures differently each time"
    step = frame_ticks(spec.fps, spec.time_base)
    expected = [(n * step, n == 0) for n in range(_PICTURES)]
    if [(pts, key) for pts, key, _ in coded.packets] != expected:
        return "it codes pictures out of order, or makes keyframes of its own"
    try:
        return _difference(spec, pictures, _decoded(spec, coded))
    except av.FFmpegError as e:
        return f"what it codes cannot be decoded: {e.strerror or e}"


def _difference(spec: EncoderSpec, pictures: list[Plane], decoded: list[av.VideoFrame]) -> str | None:
    """How the decoded pictures differ from those coded, beyond what coding explains."""
    layouts = [pixel_layout(frame.format.name) for frame in decoded]
    found = [(f.width, f.height, m.bit_depth, m.subsampling) for f, m in zip(decoded, layouts, strict=True)]
    if found != [(spec.width, spec.height, spec.bit_depth, spec.subsampling)] * len(pictures):
        return "what it codes is of another length, size or format"
    allowed = 0 if LOSSLESS in spec.options else _OFF << (spec.bit_depth - 8)
    for picture, frame, layout in zip(pictures, decoded, layouts, strict=True):
        luma, _ = read_planes(frame, layout, spec.color.matrix)
        if np.abs(luma.astype(int) - picture).mean() > allowed:
            return "what it codes does not look like the source"
    return None


def _ramp(spec: EncoderSpec, n: int) -> Plane:
    """Picture `n`: (H, W) luma of a slope that moves."""
    x, y = np.arange(spec.width), np.arange(spec.height)[:, None]
    codes = 16 + np.abs((x + y + 4 * n) // 4 % 400 - 200)
    return cast(Plane, (codes << (spec.bit_depth - 8)).astype(np.uint8 if spec.bit_depth == 8 else np.uint16))


def _coded(spec: EncoderSpec, pictures: list[Plane]) -> _Coded:
    encoder = open_encoder(spec)
    size = chroma_size(spec.height, spec.width, spec.subsampling)
    neutral = np.full(size, 1 << (spec.bit_depth - 1), pictures[0].dtype)
    packets: list[av.Packet[Any]] = []
    for n, picture in enumerate(pictures):
        frame = make_frame(spec, (picture, cast(Plane, neutral), cast(Plane, neutral)))
        frame.pts, frame.time_base = n * frame_ticks(spec.fps, spec.time_base), spec.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return _Coded(tuple((p.pts, p.is_keyframe, bytes(p)) for p in packets), encoder.extradata or b"")


def _decoded(spec: EncoderSpec, coded: _Coded) -> list[av.VideoFrame]:
    """The pictures that FFmpeg's own decoder makes of it."""
    decoder: Any = av.CodecContext.create(_DECODERS[spec.codec], "r")
    decoder.extradata = coded.headers or None
    decoded = [frame for _, _, payload in coded.packets for frame in decoder.decode(av.Packet(payload))]
    return [*decoded, *decoder.decode(None)]
