"""What H.264 packets tell without being decoded: where decoding is exact from, how fields make up pictures.

Clauses are those of ITU-T H.264.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.frames import FieldOrder
from pipeline.h264_parameters import Bits, Layout, sequence_layout, tells_bottom_order, unescaped

_SLICE, _IDR, _SEI, _SPS, _PPS = 1, 5, 6, 7, 8  # nal_unit_type (table 7-1)
_PICTURE_TIMING, _RECOVERY_POINT = 1, 6  # SEI payloadType (annex D)
_TOP, _BOTTOM, _TOP_BOTTOM, _BOTTOM_TOP = 1, 2, 3, 4  # pic_struct (table D-1)
_AS_A_FRAME, _AS_FIELDS = 0, 1  # ct_type (table D-2)
_SCANNED = 1 << 16  # bytes of a packet searched for its first slice; parameter sets and SEI come before it
_SLICE_HEADER, _PARAMETERS = 32, 512  # bytes that hold the part of a slice header, or of an SPS, that is read here


def recovery_lag(extradata: bytes | None, packet: bytes) -> int | None:
    """Frames from this keyframe until decoding that began here is exact; None if that is not known.

    0 for an IDR picture. Another is exact after the frames its recovery point SEI counts (D.2.8), and of unknown use
    without one.
    """
    for nal in nal_units(packet[:_SCANNED], extradata):
        kind = nal[0] & 31
        if kind == _IDR:
            return 0
        if kind == _SEI and (point := _sei(unescaped(nal[1:]), _RECOVERY_POINT)) is not None:
            return Bits(point).ue()  # recovery_frame_cnt
        if kind == _SLICE:
            return None
    return None


class FieldPairs:
    """Told a stream's packets in coding order, knows which are the second field of the picture before (7.4.1.2.4).

    `order` is then what the last packet says of its picture, as FFmpeg's decoder will: by picture timing where there
    is one, else by how the picture is coded; which field is first, by the order of the two.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._layout: Layout | None = None
        self._bottom_order = False
        self._open: tuple[int, int] | None = None  # frame_num and parity of a first field that waits for its second
        self._woven = True  # whether a frame whose fields have an order is of two moments: as the picture before
        self.order: FieldOrder = "progressive"
        self.configure(extradata)

    def configure(self, extradata: bytes | None) -> None:
        """Go on with these headers, which an MP4 may change in mid-stream."""
        self._extradata = extradata
        if extradata:
            self._read_parameters(_configured(extradata))

    @property
    def possible(self) -> bool:
        """Whether fields may come apart, as far as is known: only in interlaced streams."""
        return self._layout is None or self._layout.fields

    def completes(self, packet: bytes) -> bool:
        """Whether the packet is a second field alone; to be asked of keyframes, and of all where `possible`."""
        first, last, timing = None, None, None
        for nal in nal_units(packet, self._extradata):
            kind = nal[0] & 31
            if kind in (_SPS, _PPS):
                self._read_parameters([nal])
            elif kind == _SEI and self._layout and self._layout.structure:
                timing = _sei(unescaped(nal[1:_PARAMETERS]), _PICTURE_TIMING) or timing
            elif kind in (_SLICE, _IDR) and self._layout:
                last = _slice(self._layout, nal, self._bottom_order)
                first = first or last
        if first is None or last is None:
            self._open, self.order = None, "progressive"
            return False
        self.order = self._field_order(first, timing)
        if first.field is None or first.field != last.field:  # a frame, or both its fields
            self._open = None
            return False
        frame_num, bottom = first.field
        if self._open == (frame_num, not bottom):
            self._open = None
            return True
        self._open = first.field
        return False

    def _field_order(self, first: _Slice, timing: bytes | None) -> FieldOrder:
        layout = self._layout
        assert layout
        woven, structure = first.field is not None or (layout.fields and layout.adaptive), 0
        if timing is not None:
            bits = Bits(timing)
            bits.u(layout.delay_bits)
            structure = bits.u(4)
            if structure in (_TOP_BOTTOM, _BOTTOM_TOP):
                woven = woven or self._woven
            elif structure not in (_TOP, _BOTTOM):
                woven = False
            if structure <= _BOTTOM_TOP and bits.u(1):  # with a clock, which says how the picture was taken
                scan = bits.u(2)
                woven = scan == _AS_FIELDS or (woven and scan != _AS_A_FRAME)
        self._woven = woven
        if not woven:
            return "progressive"
        if first.later:
            return "tff" if first.later > 0 else "bff"
        return "bff" if structure in (_BOTTOM, _BOTTOM_TOP) else "tff"

    def _read_parameters(self, nals: list[bytes]) -> None:
        for nal in nals:
            if nal[0] & 31 == _SPS:
                self._layout = sequence_layout(Bits(unescaped(nal[1:_PARAMETERS])))
            else:
                self._bottom_order = tells_bottom_order(nal[1:_SLICE_HEADER])


@dataclass(frozen=True)
class _Slice:
    """What the header of a slice says (7.3.3)."""

    field: tuple[int, int] | None = None  # frame_num and bottom_field_flag; None where it is of a frame
    later: int = 0  # above 0 where the bottom field comes after the top one, below where it comes before


def _slice(layout: Layout, nal: bytes, bottom_order: bool) -> _Slice:
    if not layout.fields:
        return _Slice()
    bits = Bits(unescaped(nal[1:_SLICE_HEADER]))
    for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
        bits.ue()
    bits.u(2 * layout.colour_planes)
    frame_num = bits.u(layout.frame_num_bits)
    if bits.u(1):
        bottom = bits.u(1)
        return _Slice((frame_num, bottom), -1 if bottom else 1)
    if layout.order_bits is None or not bottom_order:
        return _Slice()
    if nal[0] & 31 == _IDR:
        bits.ue()
    bits.u(layout.order_bits)
    return _Slice(None, bits.se())


def _configured(extradata: bytes) -> list[bytes]:
    """The parameter sets of a stream's headers: of an avcC box (ISO 14496-15, 5.3.3.1), or of annex B."""
    if extradata[0] != 1:
        return [nal for nal in nal_units(extradata, None) if nal[0] & 31 in (_SPS, _PPS)]
    found, at = [], 5
    for mask in (31, 255):  # sequence parameter sets, picture parameter sets
        count = extradata[at] & mask if len(extradata) > at else 0
        at += 1
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            found.append(extradata[at + 2 : at + 2 + length])
            at += 2 + length
    return [nal for nal in found if nal and nal[0] & 31 in (_SPS, _PPS)]


def nal_units(data: bytes, extradata: bytes | None, lengths_at: int = 4) -> Iterator[bytes]:
    """NAL units of an access unit: length-prefixed where the extradata is an avcC box (ISO 14496-15), else annex B.

    lengths_at: the byte of the box whose last two bits give the size of the lengths: 21 in HEVC's hvcC.
    """
    if extradata and extradata[0] == 1 and len(extradata) > lengths_at:
        size, at = (extradata[lengths_at] & 3) + 1, 0
        while at + size < len(data):
            length = int.from_bytes(data[at : at + size], "big")
            yield data[at + size : at + size + max(1, length)]
            at += size + length
    else:
        yield from (nal for nal in data.split(b"\0\0\1")[1:] if nal)


def marked_progressive(packet: bytes) -> bytes:
    """A picture as x264 codes it in an interlaced stream, in annex B, now marked as of one moment.

    x264 has one pic_struct for all pictures, each in a message of its own (D.1.3): 4 bits, no clocks, alignment.
    """
    for structure in (_TOP_BOTTOM, _BOTTOM_TOP):
        packet = packet.replace(_timing(structure << 4 | 0b0010), _timing(0b100))
    return packet


def _timing(payload: int) -> bytes:
    return bytes((0, 0, 1, _SEI, _PICTURE_TIMING, 1, payload, 0x80))


def _sei(sei: bytes, wanted: int) -> bytes | None:
    """The payload of a type in an SEI; None where it has none."""
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
        if kind == wanted:
            return sei[at : at + size]
        at += size
    return None
