"""What pictures of MPEG-4 part 2 say of their fields, without being decoded (clauses of ISO 14496-2).

That a picture is interlaced is said by its layer, for all of them; which field is first, by each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.frames import FieldOrder
from pipeline.h264_parameters import Bits

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

_SCANNED = 1 << 16  # bytes of a packet searched for its first picture
_HEADER = 48  # bytes that hold what is read of one header
_LAYERS, _PICTURE = range(0x20, 0x30), 0xB6  # start codes (6.2.1)
_EXTENDED_ASPECT = 15  # table 6-12
_RECTANGULAR = 0  # video_object_layer_shape
_PREDICTED, _SPRITE, _GLOBAL_MOTION = 1, 3, 2  # vop_coding_type, sprite_enable


@dataclass(frozen=True)
class _Layer:
    """A video object layer, as far as picture headers cannot be read without it."""

    interlaced: bool
    time_bits: int  # of vop_time_increment
    global_motion: bool


class PictureFields:
    """Told a stream's packets in coding order, says what each picture says of its fields."""

    def __init__(self, extradata: bytes | None) -> None:
        self._layer: _Layer | None = None
        self._first: FieldOrder = "tff"  # where a picture says no more than that it is the one before
        self._read(extradata or b"")

    def order(self, packet: av.Packet[VideoStream]) -> FieldOrder:
        """The order of fields of a packet's first picture."""
        self._read(bytes(memoryview(packet)[:_SCANNED]))
        return self._first if self._layer and self._layer.interlaced else "progressive"

    def _read(self, data: bytes) -> None:
        for unit in data.split(b"\0\0\1")[1:]:
            if unit and unit[0] in _LAYERS:
                self._layer = _layer(Bits(unit[1:_HEADER]))
            elif unit and unit[0] == _PICTURE:
                if self._layer and self._layer.interlaced:
                    self._first = _first_field(Bits(unit[1:_HEADER]), self._layer) or self._first
                return


def _layer(bits: Bits) -> _Layer | None:
    """6.2.3; None for a layer that is no plain rectangle."""
    bits.u(9)  # random_accessible_vol, video_object_type_indication
    version = bits.u(7) >> 3 if bits.u(1) else 1
    if bits.u(4) == _EXTENDED_ASPECT:
        bits.u(16)
    if bits.u(1):  # vol_control_parameters: chroma_format, low_delay
        bits.u(3)
        if bits.u(1):
            bits.u(79)  # vbv_parameters
    if bits.u(2) != _RECTANGULAR:
        return None
    bits.u(1)
    time_bits = max(1, (bits.u(16) - 1).bit_length())
    bits.u(1)
    if bits.u(1):
        bits.u(time_bits)  # fixed_vop_time_increment
    bits.u(29)  # width and height between markers
    interlaced = bool(bits.u(1))
    bits.u(1)  # obmc_disable
    return _Layer(interlaced, time_bits, bits.u(1 if version == 1 else 2) == _GLOBAL_MOTION)


def _first_field(bits: Bits, layer: _Layer) -> FieldOrder | None:
    """By top_field_first (6.2.5); None of a picture that is not coded, but the one before once more."""
    kind = bits.u(2)
    while bits.u(1):  # modulo_time_base, which zeros end
        pass
    bits.u(2 + layer.time_bits)
    if not bits.u(1):
        return None
    if kind == _PREDICTED or (kind == _SPRITE and layer.global_motion):
        bits.u(1)  # vop_rounding_type
    bits.u(3)  # intra_dc_vlc_thr
    return "tff" if bits.u(1) else "bff"
