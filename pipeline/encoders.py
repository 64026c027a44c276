"""From a stream and the wished codec to one fully resolved encoder: pixel format, depth, options, and what changes.

All that the output's bits depend on is fixed here, thread count included: x264 and x265 code differently with another
number of threads, and a reel's segments are coded on different machines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import cast

import av
from av.codec.context import ThreadType
from av.video.codeccontext import VideoCodecContext

from pipeline.codecs import (
    CHROMA_NAMES,
    FAMILIES,
    Codec,
    EncoderSettings,
    Family,
    check_settings,
    formats,
    options_of,
)
from pipeline.errors import UnsupportedError
from pipeline.frames import ColorTags, FieldOrder, StreamInfo, Subsampling
from pipeline.lumamap import LumaMap
from pipeline.planes import pixel_layout
from pipeline.scheduling import ordinary_threads

# H.273 MatrixCoefficients; BT.601 is 6, or 5 where the source says so.
_MATRIX_CODES = {"bt709": 1, "fcc": 4, "bt601": 6, "smpte240m": 7, "bt2020": 9}
_FIELD_ORDERS: dict[FieldOrder, int] = {"progressive": 1, "tff": 2, "bff": 3}  # AVFieldOrder
_FLAG_INTERLACED_DCT, _FLAG_GLOBAL_HEADER, _FLAG_INTERLACED_ME = 1 << 18, 1 << 22, 1 << 29  # avcodec.h
_TRANSFERS, _PRIMARIES = {1, 2, *range(4, 19)}, {1, 2, *range(4, 13), 22}  # H.273 values that mean something


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder, resolved for one reel: equal specs give equal bits for equal frames.

    `color`, `bit_depth`, `subsampling` describe the output; `luma` maps the source's codes onto it.
    `notes` states, one line each, what the output cannot keep of the source.
    """

    codec: Codec
    encoder: str
    pix_fmt: str
    options: tuple[tuple[str, str], ...]
    threads: int
    width: int
    height: int
    time_base: Fraction
    fps: Fraction
    sar: Fraction
    color: ColorTags
    field_order: FieldOrder
    bit_depth: int
    subsampling: Subsampling
    luma: LumaMap
    notes: tuple[str, ...] = ()

    @property
    def codes_fields(self) -> bool:
        """Whether the pictures are coded as interlaced, not only marked so by the container."""
        return self.field_order != "progressive" and FAMILIES[self.codec].interlaced

    @property
    def matrix_code(self) -> int:
        """H.273 MatrixCoefficients of the output."""
        if self.color.matrix == "bt601" and self.color.matrix_code in (5, 6):
            return self.color.matrix_code
        return _MATRIX_CODES[self.color.matrix]


def resolve_encoder(info: StreamInfo, settings: EncoderSettings) -> EncoderSpec:
    """The encoder for a reel.

    Raises RecipeError where the settings make no sense, UnsupportedError where the codec cannot code such pictures.
    """
    family = check_settings(settings)
    if min(info.width, info.height) < family.minimum:
        raise _refusal(info, settings.codec, f"it needs at least {family.minimum}×{family.minimum}")
    failure = "no pixel format fits"
    for chosen in formats(info, family):
        for options in options_of(info, settings, family):
            spec = make_spec(info, settings, family, chosen, options)
            found = _failure(replace(spec, notes=()))
            if found is None:
                return spec
            failure = found
    raise _refusal(info, settings.codec, failure)


def configure(context: VideoCodecContext, spec: EncoderSpec) -> None:
    """Set up an encoder's context; the caller opens it."""
    context.width, context.height, context.pix_fmt = spec.width, spec.height, spec.pix_fmt
    context.time_base, context.framerate = spec.time_base, spec.fps
    context.sample_aspect_ratio = spec.sar
    context.color_range = 2 if spec.color.full_range else 1
    context.colorspace, context.color_trc = spec.matrix_code, spec.color.transfer
    context.color_primaries = spec.color.primaries
    context.field_order = _FIELD_ORDERS[spec.field_order]
    context.thread_count = spec.threads
    context.thread_type = ThreadType.AUTO  # PyAV's default, SLICE, would have x264 cut pictures into slices
    context.flags |= _FLAG_GLOBAL_HEADER
    if spec.codes_fields:
        context.flags |= _FLAG_INTERLACED_DCT | _FLAG_INTERLACED_ME
    context.options = _with_steady_code(spec)
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes its settings to stderr otherwise


def _with_steady_code(spec: EncoderSpec) -> dict[str, str]:
    """The spec's options, and for x264 the code paths that compute the same on every run.

    Its AVX-512 macroblock tree reads memory that was never written (seen with the x264 in PyAV 18.1): the same
    frames and options give other bits. The AVX2 paths give those of SSE4, at the same speed here.
    """
    options = dict(spec.options)
    if spec.encoder == "libx264" and _has_avx512():
        options["x264-params"] = ":".join(filter(None, (options.get("x264-params"), "asm=avx2")))
    return options


@lru_cache(maxsize=1)
def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text("ascii", "replace").split()
    except OSError:
        return False


def open_encoder(spec: EncoderSpec) -> VideoCodecContext:
    """An open encoder outside any container."""
    context = cast(VideoCodecContext, av.CodecContext.create(spec.encoder, "w"))
    configure(context, spec)
    with ordinary_threads():
        context.open()
    return context


def make_spec(
    info: StreamInfo,
    settings: EncoderSettings,
    family: Family,
    chosen: tuple[str, int, Subsampling],
    options: tuple[tuple[str, str], ...],
) -> EncoderSpec:
    """The spec for one pixel format (name, depth, subsampling) and one set of options."""
    pix_fmt, depth, subsampling = chosen
    full_range = info.color.full_range and family.full_range
    color = replace(
        info.color,
        full_range=full_range,
        transfer=info.color.transfer if info.color.transfer in _TRANSFERS else 2,
        primaries=info.color.primaries if info.color.primaries in _PRIMARIES else 2,
    )
    if settings.codec == "prores":
        options = (*options, ("profile", "4444" if subsampling == (0, 0) else "hq"))
    spec = EncoderSpec(
        codec=settings.codec,
        encoder=family.encoder,
        pix_fmt=pix_fmt,
        options=options,
        threads=settings.threads,
        width=info.width,
        height=info.height,
        time_base=info.time_base,
        fps=info.fps,
        sar=info.sar,
        color=color,
        field_order=info.field_order,
        bit_depth=depth,
        subsampling=subsampling,
        luma=LumaMap(info.bit_depth, depth, info.color.full_range, full_range),
    )
    return replace(spec, notes=tuple(_notes(info, spec)))


def _notes(info: StreamInfo, spec: EncoderSpec) -> Iterator[str]:
    """What the output cannot keep as it was, and what would."""
    if spec.bit_depth < info.bit_depth:
        wider = "--profile preservation" if info.bit_depth > 12 else "--codec hevc or --profile preservation"
        yield (
            f"luma reduced from {info.bit_depth} to {spec.bit_depth} bits: "
            f"{spec.codec} holds at most {spec.bit_depth}; {wider} keeps it"
        )
    elif spec.bit_depth > info.bit_depth and spec.color.full_range == info.color.full_range:
        yield (
            f"luma widened from {info.bit_depth} to {spec.bit_depth} bits by an exact left shift: "
            f"{spec.codec} has no {info.bit_depth}"
        )
    if info.color.full_range and not spec.color.full_range:
        yield f"luma mapped from full to limited range at {spec.bit_depth} bits: {spec.codec} has no tag for full range"
    name = _chroma_text(spec.subsampling)
    if pixel_layout(info.pix_fmt).is_rgb:
        yield f"RGB becomes Y'CbCr {name}, matrix {spec.color.matrix}"
    elif (info.subsampling or (1, 1)) != spec.subsampling:
        yield (
            f"chroma stored at {name}: {spec.codec} cannot code {info.width}×{info.height} "
            f"at {_chroma_text(info.subsampling or (1, 1))}"
        )
    if info.interlaced and not spec.codes_fields:
        yield (
            f"{spec.codec} codes whole frames here: the field order ({info.field_order}) is marked in the container "
            "only; --codec h264 or --profile preservation codes fields"
        )


def _chroma_text(subsampling: Subsampling) -> str:
    return ":".join(CHROMA_NAMES[subsampling])


@lru_cache(maxsize=256)
def _failure(spec: EncoderSpec) -> str | None:
    """Why the encoder does not code one grey frame as `spec` says; None when it does."""
    try:
        context = open_encoder(spec)
        frame = av.VideoFrame(spec.width, spec.height, spec.pix_fmt)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = 0, spec.time_base
        packets = [*context.encode(frame), *context.encode(None)]
    except av.FFmpegError as e:
        return e.strerror or str(e)
    return None if packets else "it gave no packet for a frame"


def _refusal(info: StreamInfo, codec: Codec, reason: str) -> UnsupportedError:
    kind = "interlaced " if info.interlaced else ""
    other = "--codec h264 or --profile preservation" if codec != "h264" else "--profile preservation"
    return UnsupportedError(
        f"{info.source.url}: {codec} cannot code {kind}{info.width}×{info.height} pictures ({reason}); use {other}"
    )
