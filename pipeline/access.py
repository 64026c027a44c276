"""Random access: reaching a keyframe in a file, and telling whether decoding may start there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError

from pipeline.demux import DecodeReport, read_packets
from pipeline.frames import StreamInfo
from pipeline.timing import packet_time

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_BACKING_SECONDS = (0, 2, 10)  # how far before the keyframe to seek, tried in turn: indexes go by decoding time
_SCANNED = 1 << 16  # bytes of a packet searched for its first slice; parameter sets and SEI come before it
_SLICE, _IDR, _SEI = 1, 5, 6  # H.264 nal_unit_type (ITU-T H.264 table 7-1)
_RECOVERY_POINT = 6  # SEI payloadType (annex D)


def seek_keyframe(
    container: InputContainer, stream: VideoStream, info: StreamInfo, seek: int, report: DecodeReport
) -> Iterator[av.Packet[VideoStream]] | None:
    """Packets from the keyframe whose time is exactly `seek` on; None where seeking does not reach it."""
    for seconds in _BACKING_SECONDS:
        try:
            container.seek(seek - round(seconds / info.time_base), stream=stream)
        except FFmpegError:
            continue
        packets = skip_to_keyframe(read_packets(container, stream, info.source, report), info, seek, past=False)
        if packets is not None:
            return packets
    return None


def skip_to_keyframe(
    packets: Iterator[av.Packet[VideoStream]], info: StreamInfo, seek: int, past: bool = True
) -> Iterator[av.Packet[VideoStream]] | None:
    """The packets from the keyframe whose time is `seek` on; `past`: look on after a later keyframe went by."""
    for packet in packets:
        time = packet_time(packet, info)
        if packet.is_keyframe and time is not None:
            if time == seek:
                return chain([packet], packets)
            if time > seek and not past:
                return None
    return None


def recovery_lag(codec: str, extradata: bytes | None, packet: bytes) -> int | None:
    """Frames from this keyframe until decoding that began here is exact: 0 nearly always; None if that is not known.

    An H.264 picture that is not IDR is exact after the frames its recovery point SEI counts (D.2.8), and of unknown
    use without one. The keyframes of other codecs stand alone but for leading pictures, which decoders drop.
    """
    if codec != "h264":
        return 0
    for nal in _nal_units(packet[:_SCANNED], extradata):
        kind = nal[0] & 31
        if kind == _IDR:
            return 0
        if kind == _SEI and (lag := _recovery_frames(nal[1:].replace(b"\0\0\3", b"\0\0"))) is not None:
            return lag
        if kind == _SLICE:
            return None
    return None


def _nal_units(data: bytes, extradata: bytes | None) -> Iterator[bytes]:
    """NAL units of an access unit: length-prefixed where the extradata is an avcC box (ISO 14496-15), else annex B."""
    if extradata and extradata[0] == 1 and len(extradata) > 4:
        size, at = (extradata[4] & 3) + 1, 0
        while at + size < len(data):
            length = int.from_bytes(data[at : at + size], "big")
            yield data[at + size : at + size + max(1, length)]
            at += size + length
    else:
        yield from (nal for nal in data.split(b"\0\0\1")[1:] if nal)


def _recovery_frames(sei: bytes) -> int | None:
    """recovery_frame_cnt of an SEI without emulation prevention bytes; None where it has no recovery point."""
    at = 0
    while at + 2 < len(sei):
        values = []
        for _ in range(2):  # payloadType, payloadSize: 255 for each whole byte, then the rest
            value = 0
            while at < len(sei) and sei[at] == 255:
                value, at = value + 255, at + 1
            values.append(value + (sei[at] if at < len(sei) else 0))
            at += 1
        kind, size = values
        if kind == _RECOVERY_POINT:
            bits = "".join(f"{byte:08b}" for byte in sei[at : at + size])
            zeros = len(bits) - len(bits.lstrip("0"))
            return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1  # ue(v), clause 9.1
        at += size
    return None
