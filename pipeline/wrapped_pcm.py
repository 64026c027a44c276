"""Linear PCM as DVD, Blu-ray and SMPTE 302M wrap it, a header in every packet: plain PCM, sample for sample, elsewhere.

No container but MPEG's own streams takes it as it is, and FFmpeg writes it into few of those.
"""

from __future__ import annotations

import errno
from typing import Any, cast

import av
import numpy as np

from pipeline.streams import codec_name

_WRAPPED = ("pcm_dvd", "pcm_bluray", "s302m")
_PLAIN = {"s16": "pcm_s16le", "s32": "pcm_s24le"}  # of FFmpeg's sample formats: 20 and 24 bits come in the upper ones
_OPTIONS = {"s302m": {"non_pcm_mode": "copy"}}  # or what is no sound, as Dolby E, would be decoded or dropped


def plain_codec(stream: Any, muxer: str) -> str | None:
    """What a stream becomes in a file of FFmpeg's `muxer`; None where it is copied as it is."""
    if muxer == "mpegts" or codec_name(stream) not in _WRAPPED:
        return None
    form = stream.codec_context.format  # none where nothing is known of the stream, which then stays behind
    return _PLAIN.get(form.name) if form else None


class Unwrapper:
    """Takes packets of wrapped PCM and gives packets of plain PCM at the same times."""

    def __init__(self, stream: Any) -> None:
        context = stream.codec_context
        self._kind = _kind(context)
        self._decoder = cast(Any, av.CodecContext.create(context.name, "r"))
        self._decoder.options = _OPTIONS.get(codec_name(stream), {})
        self._decoder.sample_rate, self._decoder.layout = context.sample_rate, context.layout

    def unwrap(self, packet: Any) -> Any | None:
        """The samples of a packet; None where it holds none.

        Raises FFmpegError where it is damaged, or is of another kind than the stream began as, which plain PCM cannot
        become in its middle.
        """
        frames = self._decoder.decode(packet)
        if any(_kind(frame) != self._kind for frame in frames):
            raise av.InvalidDataError(errno.EINVAL, "another kind of PCM")
        samples = b"".join(_plain(frame.to_ndarray()) for frame in frames)
        if not samples:
            return None
        plain = av.Packet(len(samples))
        plain.update(samples)
        plain.stream, plain.time_base = packet.stream, packet.time_base
        plain.pts, plain.dts, plain.duration = packet.pts, packet.dts, packet.duration
        return plain


def _kind(sound: Any) -> tuple[str, int, int]:
    """Format, rate and number of channels of a decoder or a frame."""
    return sound.format.name, sound.sample_rate, sound.layout.nb_channels


def _plain(samples: np.ndarray[Any, Any]) -> bytes:
    """16 bits as they are, of 32 the upper 24."""
    if samples.dtype == np.int16:
        return samples.astype("<i2").tobytes()
    return np.ascontiguousarray(samples.astype("<i4").reshape(-1, 1).view(np.uint8)[:, 1:]).tobytes()
