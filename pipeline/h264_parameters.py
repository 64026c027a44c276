"""Parameter sets of H.264, as far as slice headers and picture timing cannot be read without them.

Clauses are those of ITU-T H.264.
"""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_PREFIX = 32  # zeros before an Exp-Golomb number; more are damage
_MOST_ENTRIES = 255  # of an order cycle (7.4.2.1.1); more are damage
_MOST_BUFFERS = 32  # coded picture buffers (E.2.2)
_EXTENDED_SAR = 255  # table E-1
# profile_idc of which the SPS says how chroma is sampled (7.3.2.1.1)
_WITH_CHROMA_FORMAT = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))


class Bits:
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

    def se(self) -> int:
        """A signed Exp-Golomb number (9.1.1)."""
        code = self.ue()
        return code + 1 >> 1 if code & 1 else -(code >> 1)


@dataclass(frozen=True)
class Layout:
    """What a sequence parameter set says of slice headers and of picture timing."""

    fields: bool  # frame_mbs_only_flag is 0
    adaptive: bool  # macroblocks of a frame may be fields
    frame_num_bits: int
    order_bits: int | None  # of pic_order_cnt_lsb; None where order is told otherwise
    colour_planes: bool  # separate_colour_plane_flag
    delay_bits: int  # before pic_struct
    structure: bool  # pic_struct_present_flag


def unescaped(payload: bytes) -> bytes:
    """Without emulation prevention bytes (7.3.1)."""
    return payload.replace(b"\0\0\3", b"\0\0")


def sequence_layout(sps: Bits) -> Layout:
    """A sequence parameter set up to its VUI (7.3.2.1.1)."""
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
    order_type, order_bits = sps.ue(), None
    if order_type == 0:
        order_bits = min(16, sps.ue() + 4)
    elif order_type == 1:
        sps.u(1), sps.ue(), sps.ue()
        for _ in range(min(_MOST_ENTRIES, sps.ue())):
            sps.ue()
    sps.ue(), sps.u(1), sps.ue(), sps.ue()  # reference frames, gaps, width, height
    fields = not sps.u(1)
    adaptive = fields and bool(sps.u(1))
    sps.u(1)  # direct_8x8_inference_flag
    if sps.u(1):
        sps.ue(), sps.ue(), sps.ue(), sps.ue()  # cropping
    delay_bits, structure = _usability(sps) if sps.u(1) else (0, False)
    return Layout(fields, adaptive, frame_num_bits, order_bits, colour_planes, delay_bits, structure)


def tells_bottom_order(pps: bytes) -> bool:
    """bottom_field_pic_order_in_frame_present_flag of a picture parameter set without its first byte (7.3.2.2)."""
    bits = Bits(unescaped(pps))
    bits.ue(), bits.ue(), bits.u(1)
    return bool(bits.u(1))


def _usability(vui: Bits) -> tuple[int, bool]:
    """(bits of a picture timing before pic_struct, whether that is there), of VUI parameters (E.1.1)."""
    if vui.u(1) and vui.u(8) == _EXTENDED_SAR:
        vui.u(32)
    if vui.u(1):
        vui.u(1)  # overscan
    if vui.u(1):
        vui.u(4)
        if vui.u(1):
            vui.u(24)  # colour description
    if vui.u(1):
        vui.ue(), vui.ue()  # chroma location
    if vui.u(1):
        vui.u(65)  # timing
    delay_bits = _delay_bits(vui) if vui.u(1) else 0
    if vui.u(1):
        delay_bits = _delay_bits(vui)
    if delay_bits:
        vui.u(1)  # low delay
    return delay_bits, bool(vui.u(1))


def _delay_bits(hrd: Bits) -> int:
    """Bits of cpb_removal_delay and dpb_output_delay together (E.1.2)."""
    buffers = min(_MOST_BUFFERS, hrd.ue() + 1)
    hrd.u(8)
    for _ in range(buffers):
        hrd.ue(), hrd.ue(), hrd.u(1)
    _, removal, output, _ = hrd.u(5), hrd.u(5) + 1, hrd.u(5) + 1, hrd.u(5)
    return removal + output


def _skip_scaling_list(sps: Bits, size: int) -> None:
    """7.3.2.1.1.1."""
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + sps.se()) % 256
        last = following or last
