"""What H.264 packets tell without being decoded: where decoding is exact from, which fields make up one picture.

Clauses are those of ITU-T H.264.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SLICE, _IDR, _SEI, _SPS = 1, 5, 6, 7  # nal_unit_type (table 7-1)
_RECOVERY_POINT = 6  # SEI payloadType (annex D)
_SCANNED = 1 << 16  # bytes of a packet searched for its first slice; parameter sets and SEI come before it
_LONGEST_PREFIX = 32  # zeros before an Exp-Golomb number; more are damage
_SLICE_HEADER, _PARAMETERS = 32, 512  # bytes that hold the part of a slice header, or of an SPS, that is read here
# profile_idc of which the SPS says how chroma is sampled (7.3.2.1.1)
_WITH_CHROMA_FORMAT = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))


def recovery_lag(extradata: bytes | None, packet: bytes) -> int | None:
    """Frames from this keyframe until decoding that began here is exact; None if that is not known.

    0 for an IDR picture. Another is exact after the frames its recovery point SEI counts (D.2.8), and of unknown use
    without one.
    """
    for nal in nal_units(packet[:_SCANNED], extradata):
        kind = nal[0] & 31
        if kind == _IDR:
            return 0
        if kind == _SEI and (lag := _recovery_frames(_unescaped(nal[1:]))) is not None:
            return lag
        if kind == _SLICE:
            return None
    return None


class FieldPairs:
    """Tells which packets of a stream, in coding order, are the second field of the picture before (7.4.1.2.4)."""

    def __init__(self, extradata: bytes | None) -> None:
        self._extradata = extradata
        self._layout: _Layout | None = None
        self._open: tuple[int, int] | None = None  # frame_num and parity of a first field that waits for its second
        if extradata:
            self._read_parameters(_configured(extradata))

    @property
    def possible(self) -> bool:
        """Whether fields may come apart, as far as is known: only in interlaced streams."""
        return self._layout is None or self._layout.fields

    def completes(self, packet: bytes) -> bool:
        """Whether the packet is a second field alone; to be asked of every packet."""
        first, last = None, None
        for nal in nal_units(packet, self._extradata):
            kind = nal[0] & 31
            if kind == _SPS:
                self._read_parameters([nal])
            elif kind in (_SLICE, _IDR) and self._layout:
                last = self._layout.field(nal[1:_SLICE_HEADER])
                first = first or last
        if first is None or last is None or first != last:  # a frame, or both its fields
            self._open = None
            return False
        frame_num, bottom = first
        if self._open == (frame_num, not bottom):
            self._open = None
            return True
        self._open = first
        return False

    def _read_parameters(self, nals: list[bytes]) -> None:
        for nal in nals:
            self._layout = _layout(_Bits(_unescaped(nal[1:_PARAMETERS])))


class _Bits:
    """Reads a payload without emulation prevention bytes, bit by bit; zeros after its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def u(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        self._left -= count
        return (self._value >> self._left if self._left >= 0 else self._value << -self._left) & ((1 << count) - 1)

    def ue(self) -> int:
        """An Exp-Golomb number (9.1)."""
        zeros = 0
        while zeros < _LONGEST_PREFIX and not self.u(1):
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)


@dataclass(frozen=True)
class _Layout:
    """What a sequence parameter set says of slice headers."""

    fields: bool  # frame_mbs_only_flag is 0
    frame_num_bits: int
    colour_planes: bool  # separate_colour_plane_flag

    def field(self, header: bytes) -> tuple[int, int] | None:
        """(frame_num, bottom_field_flag) of a slice; None where it is of a frame (7.3.3)."""
        if not self.fields:
            return None
        bits = _Bits(_unescaped(header))
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
            bits.ue()
        bits.u(2 * self.colour_planes)
        frame_num = bits.u(self.frame_num_bits)
        return (frame_num, bits.u(1)) if bits.u(1) else None


def _layout(sps: _Bits) -> _Layout:
    """The beginning of a sequence parameter set (7.3.2.1.1)."""
    profile, _, _ = sps.u(8), sps.u(16), sps.ue()
    colour_planes = False
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = sps.ue()
        colour_planes = chroma_format == 3 and bool(sps.u(1))
        sps.ue(), sps.ue(), sps.u(1)  # depths of luma and chroma, lossless transform bypass
        if sps.u(1):
            for i in range(8 if chroma_format != 3 else 12):
                if sps.u(1):
                    _skip_scaling_list(sps, 16 if i < 6 else 64)
    frame_num_bits = min(16, sps.ue() + 4)
    order_type = sps.ue()
    if order_type == 0:
        sps.ue()
    elif order_type == 1:
        sps.u(1), sps.ue(), sps.ue()
        for _ in range(min(255, sps.ue())):
            sps.ue()
    sps.ue(), sps.u(1), sps.ue(), sps.ue()  # reference frames, gaps, width, height
    return _Layout(not sps.u(1), frame_num_bits, colour_planes)


def _skip_scaling_list(sps: _Bits, size: int) -> None:
    """7.3.2.1.1.1."""
    last = following = 8
    for _ in range(size):
        if following:
            code = sps.ue()
            following = (last + (code + 1 >> 1 if code & 1 else -(code >> 1))) % 256
        last = following or last


def _configured(extradata: bytes) -> list[bytes]:
    """The sequence parameter sets of a stream's headers: of an avcC box (ISO 14496-15, 5.3.3.1), or of annex B."""
    if extradata[0] != 1:
        return [nal for nal in nal_units(extradata, None) if nal[0] & 31 == _SPS]
    found, at = [], 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        length = int.from_bytes(extradata[at : at + 2], "big")
        found.append(extradata[at + 2 : at + 2 + length])
        at += 2 + length
    return [nal for nal in found if nal]


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


def _unescaped(payload: bytes) -> bytes:
    """Without emulation prevention bytes (7.3.1)."""
    return payload.replace(b"\0\0\3", b"\0\0")


def _recovery_frames(sei: bytes) -> int | None:
    """recovery_frame_cnt of an SEI; None where it has no recovery point."""
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
            return _Bits(sei[at : at + size]).ue()
        at += size
    return None
