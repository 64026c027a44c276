"""Output streams that PyAV would refuse or alter, though the muxer takes them: declared by their parameters alone."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from av.bitstream import BitStreamFilterContext

if TYPE_CHECKING:
    from av.container import OutputContainer

_LAWS = ("pcm_alaw", "pcm_mulaw")  # of G.711, the sound of telephones: in MOV under codes of its own


def declare_as_is(output: OutputContainer, original: Any) -> Any:
    """A stream with the parameters of another container's; whether the muxer takes it, its header tells.

    PyAV copies parameters through a decoder, and asks the muxer's list first. Setting up the null filter, which does
    nothing to packets, copies them as they are.
    """
    stream = output.add_data_stream()
    BitStreamFilterContext("null", original, stream)
    return stream


def declare_unlisted_video(output: OutputContainer, coded: Any, rate: Fraction) -> Any:
    """A video stream with the parameters of another container's, `rate` pictures a second, of a codec not in the list.

    PyAV sets the rate, which MOV's timecode tracks count by, of listed codecs only: one of those is taken and replaced.
    """
    stream = output.add_mux_stream("mpeg4", rate=rate)
    BitStreamFilterContext("null", coded, stream)
    return stream


def declare_windows_codec(output: OutputContainer, original: Any) -> Any:
    """An audio stream for Matroska to keep under the header that Windows has for it (A_MS/ACM)."""
    if original.codec_context.name not in _LAWS:
        return declare_as_is(output, original)
    with av.open(os.devnull, "w", format="nut") as other:  # takes the source's code off, so that Matroska finds its own
        return declare_as_is(output, other.add_stream_from_template(original, opaque=True))
