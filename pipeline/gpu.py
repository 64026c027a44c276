"""NVIDIA's media engines (NVDEC, NVENC): which decoders there are, and why FFmpeg cannot use them here.

What works is found by trying. Nothing else of this package loads CUDA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from pipeline.frames import StreamInfo

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

Hwaccel = Literal["auto", "none", "cuda"]
_DEVICE = "cuda"
# Their standards fix every bit of a decoded picture. MPEG-2 and MPEG-4 leave the rounding of the transform open.
_EXACT = ("h264", "hevc", "vp9", "av1")
# What NVDEC's pictures come down as: the software decoder's samples, with Cb and Cr in turn.
FORMATS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}


def accelerator() -> HWAccel:
    """For `av.open`: NVDEC where it has a decoder, FFmpeg's own where not; pictures come down to main memory."""
    return HWAccel(_DEVICE, allow_software_fallback=True)


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """The decoder of a stream that was opened with `accelerator`. AV1's is not the one FFmpeg takes by itself."""
    if stream.codec_context.codec.canonical_name != "av1":
        return stream.codec_context
    decoder = av.CodecContext.create("av1", "r", hwaccel=accelerator())
    decoder.extradata = stream.codec_context.extradata
    return decoder


@lru_cache(maxsize=1)
def no_nvdec() -> str | None:
    """Why nothing can be decoded by NVDEC here; None where something can."""
    if _DEVICE not in hwdevices_available():
        return "this build of FFmpeg knows no CUDA"
    with ffmpeg_says() as said:
        try:
            av.CodecContext.create("h264", "r", hwaccel=accelerator())
        except av.FFmpegError as e:
            return reason(e, said)
    return None


def no_decoder(info: StreamInfo) -> str | None:
    """Why NVDEC is not for such a stream; None where it can be tried."""
    if info.codec not in _EXACT:
        return f"NVDEC does not decode {info.codec} bit for bit as FFmpeg does"
    return None if info.pix_fmt in FORMATS else f"NVDEC decodes 4:2:0 of 8 and 10 bits, not {info.pix_fmt}"


@contextlib.contextmanager
def ffmpeg_says() -> Iterator[list[Any]]:
    """FFmpeg's own errors while the block runs; PyAV keeps them to itself otherwise."""
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # or an error that was met before would be left out
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        av.logging.set_skip_repeated(skips)
        av.logging.set_level(level)


def reason(e: av.FFmpegError, said: list[Any]) -> str:
    """The first of FFmpeg's errors, in one line: the ones after it follow from it."""
    return " ".join(said[0][2].split()) if said else e.strerror or str(e)
