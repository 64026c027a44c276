"""Random access: reaching a keyframe in a file."""

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
