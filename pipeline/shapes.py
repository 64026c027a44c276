"""Whether a stream's pictures are alike from beginning to end, by the headers that its key packets bring.

Headers are compared as bytes; only where they differ is a picture of each kind decoded. So a film whose size changes in
the middle is known for that before anything of it is coloured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
from av.error import FFmpegError

from pipeline.errors import InputError
from pipeline.frames import FieldOrder, Source
from pipeline.h264 import nal_units
from pipeline.planes import pixel_layout

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_SCANNED = 1 << 16  # bytes of a packet that are searched for headers
_MOST = 16  # headers of one stream that are told apart
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_SPS = 7, 33  # nal_unit_type of H.264 and of HEVC


@dataclass(frozen=True)
class Shape:
    """What a picture is like. after: how many pictures were coded before it."""

    after: int
    width: int
    height: int
    pix_fmt: str
    sar: Fraction
    full_range: bool

    def fits(self, other: Shape) -> bool:
        """Whether both can be in one reel."""
        same_size = (self.width, self.height) == (other.width, other.height)
        return same_size and pixel_layout(self.pix_fmt) == pixel_layout(other.pix_fmt)

    def __str__(self) -> str:
        return f"{self.width}×{self.height} {self.pix_fmt}"


class ShapeWatch:
    """Fed a stream's key packets in order; keeps the first with each kind of headers."""

    def __init__(self, context: VideoCodecContext) -> None:
        self._context = context
        self._headers = _HEADERS.get(context.codec.canonical_name)
        self._kinds: dict[tuple[bytes, ...], tuple[int, bytes, bytes | None]] = {}

    def see(self, packet: av.Packet[VideoStream], after: int) -> None:
        """Look at one packet, which so many pictures were coded before."""
        configured = packet.get_sidedata("new_extradata") if packet.has_sidedata("new_extradata") else None
        extradata = bytes(configured) if configured else self._context.extradata
        head = bytes(memoryview(packet)[:_SCANNED]) if self._headers else b""
        headers = (bytes(configured or b""), *(self._headers(head, extradata) if self._headers else ()))
        if headers not in self._kinds and len(self._kinds) < _MOST:
            self._kinds[headers] = after, bytes(packet), extradata

    def shapes(self) -> tuple[Shape, ...]:
        """The shape of a picture of each kind, in order; none where there is but one kind."""
        if len(self._kinds) < 2:
            return ()
        found = (_shape(self._context, *kind) for kind in self._kinds.values())
        return tuple(shape for shape in found if shape is not None)


def mpeg2_fields(packet: av.Packet[VideoStream]) -> FieldOrder:
    """What a picture of MPEG-2 says of its fields (ISO 13818-2, 6.3.10)."""
    data = bytes(memoryview(packet)[:_SCANNED])
    at = data.find(b"\0\0\1\xb5")
    while at >= 0 and (len(data) < at + 9 or data[at + 4] >> 4 != 8):  # another extension
        at = data.find(b"\0\0\1\xb5", at + 4)
    if at < 0 or data[at + 8] & 0x80:
        return "progressive"
    structure, top_first = data[at + 6] & 3, bool(data[at + 7] & 0x80)  # 1, 2: a field alone, the first of the two
    return "tff" if structure == 1 or (structure == 3 and top_first) else "bff"


def changed(source: Source, was: str, now: str, where: str) -> InputError:
    """The error of a stream that becomes another."""
    return InputError(f"{source.url}: changes from {was} to {now} {where}; split the file there and pass the parts")


def _shape(context: VideoCodecContext, after: int, payload: bytes, extradata: bytes | None) -> Shape | None:
    """Decode one packet by itself; None where that gives no picture."""
    decoder = cast("VideoCodecContext", av.CodecContext.create(context.codec.name, "r"))
    decoder.extradata, decoder.thread_count = extradata, 1
    try:
        frames = [*decoder.decode(av.Packet(payload)), *decoder.decode(None)]
    except FFmpegError:
        return None
    if not frames:
        return None
    frame, name = frames[0], frames[0].format.name
    full = name.startswith("yuvj") or int(frame.color_range) == _FULL_RANGE
    return Shape(after, frame.width, frame.height, name, decoder.sample_aspect_ratio or Fraction(1), full)


def _h264(data: bytes, extradata: bytes | None) -> Iterator[bytes]:
    return (nal for nal in nal_units(data, extradata) if nal[0] & 31 == _SPS[0])


def _hevc(data: bytes, extradata: bytes | None) -> Iterator[bytes]:
    return (nal for nal in nal_units(data, extradata, 21) if nal[0] >> 1 & 63 == _SPS[1])


def _mpeg2(data: bytes, _: bytes | None) -> Iterator[bytes]:
    """Size, aspect and rate of sequence headers; sequence extensions (ISO 13818-2, 6.2.2.1 and 6.2.2.3)."""
    for unit in data.split(b"\0\0\1")[1:]:
        if unit[:1] == b"\xb3":
            yield unit[1:5]
        elif unit[:1] == b"\xb5" and unit[1:2] and unit[1] >> 4 == 1:
            yield unit[1:4]


def _mpeg4(data: bytes, _: bytes | None) -> Iterator[bytes]:
    """Video object layers (ISO 14496-2, 6.2.3)."""
    return (unit for unit in data.split(b"\0\0\1")[1:] if unit and unit[0] >> 4 == 2)


def _vp8(data: bytes, _: bytes | None) -> Iterator[bytes]:
    """Start code and size (RFC 6386, 9.1)."""
    yield data[3:10]


def _vp9(data: bytes, _: bytes | None) -> Iterator[bytes]:
    """Sync code, colour and size, of profile 0 to the last bit (VP9 bitstream specification, 6.2)."""
    yield data[1:9]


def _jpeg(data: bytes, _: bytes | None) -> Iterator[bytes]:
    """Start of frame: depth, size and components (ITU-T T.81, B.2.2)."""
    for marker in (b"\xff\xc0\0", b"\xff\xc1\0", b"\xff\xc2\0"):
        at = data.find(marker)
        if at >= 0:
            yield data[at : at + 19]


_HEADERS: dict[str, Callable[[bytes, bytes | None], Iterator[bytes]]] = {
    "h264": _h264,
    "hevc": _hevc,
    "mpeg1video": _mpeg2,
    "mpeg2video": _mpeg2,
    "mpeg4": _mpeg4,
    "vp8": _vp8,
    "vp9": _vp9,
    "mjpeg": _jpeg,
}
