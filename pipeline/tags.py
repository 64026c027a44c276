"""What a stream says of itself beside its pictures: colour tags, field order, rotation."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from pipeline.frames import ColorTags, FieldOrder, Matrix
from pipeline.planes import PixelLayout

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

UNSPECIFIED = 2  # of matrix, transfer and primaries in ITU-T H.273
_RGB = 0  # H.273 matrix_coefficients of RGB
_MATRICES: dict[int, Matrix] = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_SD = (1024, 576)  # largest width and height taken for standard definition: 576 lines, wide pixels included
# Codecs whose own syntax says that untagged means limited range, also where there is no chroma.
_LIMITED = frozenset(
    ("av1", "dnxhd", "h263", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "prores", "vc1", "vp8", "vp9", "vvc")
)
# Side data that says something of the picture; of these the output keeps none.
_SIDE_DATA = {
    "MASTERING_DISPLAY_METADATA": "mastering display",
    "CONTENT_LIGHT_LEVEL": "content light level",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "STEREO3D": "stereo layout",
    "SPHERICAL": "spherical projection",
    "AFD": "active format description",
    "FILM_GRAIN_PARAMS": "synthetic film grain",
}
_LEAST_MISSING = Fraction(1, 2)  # seconds
_NEVER_FILLED_IN = 1 << 30  # pictures that FFmpeg puts into an AVI's header until it knows how many there are
# AVFieldOrder: TT, BB, TB, BT; the second letter is the field shown first.
_FIELD_ORDERS: dict[int, FieldOrder] = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}


def color_tags(context: VideoCodecContext, frame: av.VideoFrame | None, layout: PixelLayout) -> ColorTags:
    """Tags of the source, and what stands in for the missing ones.

    Untagged: BT.601 up to 1024×576 and BT.709 above; full range for JPEG kinds, RGB and grey image formats, limited
    otherwise. The decoded frame has the last word, the headers the first.
    """
    matrix_code, range_code, transfer, primaries = _codes(context, frame)
    assumed = []
    matrix = _MATRICES.get(matrix_code)
    if matrix is None:
        matrix = "bt601" if context.width <= _SD[0] and context.height <= _SD[1] else "bt709"
        assumed += ["matrix"]
    full_range = range_code == _FULL_RANGE or layout.is_rgb
    if range_code == 0 and not layout.is_rgb:
        full_range = _full_by_kind(context, layout)
        assumed += ["range"]
    assumed += [name for name, code in (("transfer", transfer), ("primaries", primaries)) if code == UNSPECIFIED]
    code = matrix_code if matrix_code in _MATRICES else UNSPECIFIED
    return ColorTags(matrix, full_range, transfer, primaries, tuple(assumed), code)


def color_warnings(context: VideoCodecContext, frame: av.VideoFrame | None) -> list[str]:
    """What the tags say that cannot be honoured."""
    code = _codes(context, frame)[0]
    if code in _MATRICES or code in (_RGB, UNSPECIFIED):
        return []
    return [f"colour matrix {code} (ITU-T H.273) is not supported; luma is kept, colour is written with another matrix"]


def _codes(context: VideoCodecContext, frame: av.VideoFrame | None) -> tuple[int, int, int, int]:
    """(matrix, range, transfer, primaries): of the headers, or where they are silent of the first frame."""
    codes = []
    for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
        header = int(getattr(context, name))
        silent = header == 0 or (header == UNSPECIFIED and name != "color_range")
        codes.append(int(getattr(frame, name)) if silent and frame is not None else header)
    matrix, levels, transfer, primaries = codes
    return matrix, levels, transfer or UNSPECIFIED, primaries or UNSPECIFIED


def _full_by_kind(context: VideoCodecContext, layout: PixelLayout) -> bool:
    """Range of an untagged stream: what FFmpeg and the codecs themselves take it for."""
    codec, pix_fmt = context.codec.canonical_name, context.pix_fmt or ""
    if pix_fmt.startswith("yuvj") or codec in ("mjpeg", "jpeg2000", "webp"):
        return True
    return layout.subsampling is None and codec not in _LIMITED


def field_order(context: VideoCodecContext, frame: av.VideoFrame | None) -> tuple[FieldOrder, list[str]]:
    """Order of the fields by the first frame's flags where it is interlaced, else by the headers; with warnings.

    The frame goes first because FFmpeg's headers call every interlaced H.264 stream top field first. HEVC codes fields
    as pictures of their own, which FFmpeg leaves apart; such a picture has no other field in it.
    """
    if frame is not None and frame.interlaced_frame and context.codec.canonical_name == "hevc":
        return "progressive", ["its pictures are single fields; they stay apart, and are not marked as fields"]
    if frame is not None and frame.interlaced_frame:
        return ("bff" if _bottom_first(frame) else "tff"), []
    return _FIELD_ORDERS.get(context.field_order, "progressive"), []


def _bottom_first(frame: av.VideoFrame) -> bool:
    """Whether an interlaced frame shows the bottom field first: PyAV hides the flag, FFmpeg's select filter knows."""
    graph = av.filter.Graph()
    size = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1"
    nodes = graph.add("buffer", size), graph.add("select", r"eq(interlace_type\,BOTTOMFIRST)"), graph.add("buffersink")
    graph.link_nodes(*nodes).configure()
    graph.vpush(frame)
    try:
        graph.vpull()
    except av.BlockingIOError:
        return False
    return True


def orientation(frame: av.VideoFrame) -> tuple[int, bool, list[str]]:
    """Degrees counter-clockwise that a player turns the picture, as a multiple of 90, and whether it then mirrors it
    left to right; with what these cannot express.

    By the display matrix (3×3, 16.16 fixed point, row by row).
    """
    data = side_data(frame, "DISPLAYMATRIX")
    if data is None:
        return 0, False, []
    a, b, _, c, d = np.frombuffer(data, np.int32, 5).astype(float)
    if a * d == b * c:
        return 0, False, ["its display matrix leaves nothing of the picture; it is taken for none"]
    mirrors = a * d < b * c
    exact = round(-math.degrees(math.atan2(b / math.hypot(b, d), (-a if mirrors else a) / math.hypot(a, c)))) % 360
    degrees = round(exact / 90) * 90 % 360
    warnings = [f"display rotation of {exact}° is taken as {degrees}°"] if exact % 90 else []
    return degrees, mirrors, warnings


def left_out(frame: av.VideoFrame, stream: VideoStream) -> list[str]:
    """What pictures carry beside luma and chroma, and what the output has no place for."""
    alpha = any(c.is_alpha for c in frame.format.components) or stream.metadata.get("alpha_mode") == "1"
    found = ["alpha channel (transparency)"] if alpha else []
    found += [words for name, words in _SIDE_DATA.items() if side_data(frame, name) is not None]
    return [f"its {', '.join(found)} {'is' if len(found) == 1 else 'are'} not carried over"] if found else []


def cut_short(stream: VideoStream, end: Fraction) -> list[str]:
    """That pictures end, at `end` seconds, far before what the headers of Matroska, AVI or MXF tell.

    FFmpeg is silent of what it cannot read in these, up to the rest of the file.
    """
    told = _told_seconds(stream)
    if told - end < max(_LEAST_MISSING, told / 100):
        return []
    told_of = f"of the {float(told):.2f} s that its headers tell of"
    return [f"its pictures end after {float(end):.2f} s {told_of}; the rest is missing or damaged"]


def _told_seconds(stream: VideoStream) -> Fraction:
    """When a stream ends, as its headers say; 0 where they do not."""
    container, text = cast("InputContainer", stream.container), stream.metadata.get("DURATION", "")
    whole = Fraction(container.duration or 0, av.time_base)
    if "matroska" in container.format.name and (told := re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", text)):
        return min(whole, int(told[1]) * 3600 + int(told[2]) * 60 + Fraction(told[3]))
    if container.format.name == "mxf" and stream.duration:
        return min(whole, stream.duration * cast(Fraction, stream.time_base))
    if container.format.name == "avi" and stream.guessed_rate and stream.frames < _NEVER_FILLED_IN:
        return stream.frames / stream.guessed_rate
    return Fraction(0)


def side_data(frame: av.VideoFrame, name: str) -> bytes | None:
    """What a frame carries under a name of av.sidedata.sidedata.Type.

    Not by `frame.side_data`, which makes the frame hold itself: its memory would be free again when the garbage
    collector comes by, and decoders would find other remains in theirs.
    """
    try:
        return bytes(cast(Any, SideDataContainer)(frame)[name])
    except (KeyError, ValueError):  # none, or PyAV does not know the name of some other side data
        return None
